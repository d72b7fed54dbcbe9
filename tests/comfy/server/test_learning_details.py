"""Learn Detail Decoder in a real server: it learns, shows, is cancelled, goes on, and is used at once."""

import json

import pytest
from PIL import Image
from safetensors.torch import load_file


@pytest.fixture
def lesson():
    """A function: a prompt that learns details in a run of this name, and decodes a picture with them."""

    def lesson(run_name: str, steps: int, sample_every: int = 1) -> dict:
        learning = {
            "vae": ["1", 2],
            "clips": "my_clips",
            "preset": "draft",
            "steps": steps,
            "run_name": run_name,
            "size": 64,
            "frames_per_step": 1,
            "frames": 4,
            "width": 8,
            "branches": "both",
            "dtype": "auto",
            "sample_every": sample_every,
            "seed": 0,
            "stride": 4,
            "learning_rate": 1e-4,
            "cooldown": 0.0,
            "accumulation": 1,
            "save_steps": 500,
            "keep": 3,
        }
        scaled = {"upscale_method": "lanczos", "width": 64, "height": 64, "crop": "center"}
        decoding = {"vae": ["1", 2], "decoder": ["2", 0], "strength": 1.0, "keep_first_frame": False}
        return {
            "1": {
                "class_type": "CheckpointLoaderSimple",
                "inputs": {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"},
            },
            "2": {"class_type": "FLASH_LearnDetailDecoder", "inputs": learning},
            "3": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
            "4": {"class_type": "ImageScale", "inputs": {"image": ["3", 0], **scaled}},
            "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["4", 0], "vae": ["1", 2]}},
            "6": {
                "class_type": "FLASH_DetailDecode",
                "inputs": {"latents": ["5", 0], "reference": ["4", 0], **decoding},
            },
            "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
        }

    return lesson


def succeeded(history: dict) -> dict:
    assert history["status"]["status_str"] == "success", json.dumps(history["status"]["messages"], indent=1)
    return history


def decoder_of(server, run_name: str) -> dict:
    return load_file(server.base / "models/flash_decoders" / f"{run_name}.safetensors")


def test_it_learns_shows_and_decodes_in_one_run(server, lesson):
    history = succeeded(server.finished(server.queue(lesson("sharp", 2))))
    (shown,) = history["outputs"]["2"]["images"]
    assert (shown["filename"], shown["subfolder"]) == ("sample-000002.png", "flash/sharp")
    with Image.open(server.base / "output/flash/sharp/sample-000002.png") as sheet:
        assert sheet.size == (64, 4 * 64)
    assert history["outputs"]["7"]["images"]
    assert decoder_of(server, "sharp")["detail_decoder.levels.0.fuse.conv.weight"].any()


def test_cancel_saves_and_the_run_goes_on_exactly(server, lesson):
    succeeded(server.finished(server.queue(lesson("whole", 5, sample_every=100))))
    cancelled = server.queue(lesson("details broken off", 5, sample_every=2))
    sample = server.base / "output/flash/details broken off/sample-000002.png"
    server.wait_for(sample.is_file, "the second step")
    server.post("/interrupt", {})
    assert "execution_interrupted" in json.dumps(server.finished(cancelled)["status"]["messages"])
    checkpoints = list((server.base / "models/flash_runs/details broken off").glob("checkpoint-*"))
    assert [1 < int(path.name.split("-")[1]) < 5 for path in checkpoints] == [True]
    assert decoder_of(server, "details broken off")
    succeeded(server.finished(server.queue(lesson("details broken off", 5, sample_every=2))))
    whole, found = (decoder_of(server, name) for name in ("whole", "details broken off"))
    assert found.keys() == whole.keys()
    assert all(found[name].equal(whole[name]) for name in whole)
