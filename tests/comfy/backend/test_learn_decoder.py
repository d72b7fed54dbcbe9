"""Learn Detail Decoder as a graph uses it: its files, its answers, and what it leaves behind."""

from dataclasses import replace

import comfy.model_management
import folder_paths
import pytest
import torch
from PIL import Image

from flash_pack import nodes as our_nodes
from flash_pack.flash_modules.backends.comfy.sd15 import detail_decode
from flash_pack.flash_modules.backends.comfy.sd15.train import learn_decoder as room
from flash_pack.flash_modules.backends.comfy.sd15.train import needs
from flash_pack.flash_modules.backends.comfy.sd15.train.learn_decoder import (
    DecoderLesson,
    DecoderOptions,
    learn_decoder,
)
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.tests.comfy.backend import two_hosts

OPTIONS = DecoderOptions(size=64, frames=4, width=8, sample_every=2, learning_rate=1e-3)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders for what is written."""
    for key in ("flash_decoders", "flash_runs"):
        (tmp_path / key).mkdir()
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, key, ([str(tmp_path / key)], {".safetensors"})
        )
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    two_hosts.write_clips(tmp_path / "a_turn")
    return tmp_path


@pytest.fixture
def lesson(folders) -> DecoderLesson:
    return DecoderLesson(
        vae=two_hosts.comfy_vae(two_hosts.vae()),
        folder=folders / "a_turn",
        preset="draft",
        steps=3,
        run_name="sharp",
        options=OPTIONS,
    )


@pytest.fixture
def no_model(monkeypatch):
    """From now on nothing may be trained."""

    def forbidden(*args, **kwargs):
        raise AssertionError("a VAE was copied")

    return lambda: monkeypatch.setattr(room, "ComfyVae", forbidden)


def at_step(monkeypatch, step: int, do) -> None:
    """Something happens when the node shows that step."""
    plain = room.NodeDisplay.step

    def show(self, progress):
        plain(self, progress)
        if progress.step == step:
            do()

    monkeypatch.setattr(room.NodeDisplay, "step", show)


def tensors_of(folders, name: str = "sharp") -> dict[str, torch.Tensor]:
    return read_tensors(folders / "flash_decoders" / f"{name}.safetensors")[0]


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_what_is_learned_decodes_in_the_next_node(lesson):
    before = two_hosts.copies(lesson.vae.patcher)
    learned = learn_decoder(lesson)
    assert len(learned.losses["loss"]) == 3
    assert "Learned 3 of 3 steps from 2 clips, 2 frames of 64 x 64 a step." in learned.report
    assert "Decoder: sharp.safetensors in models/flash_decoders" in learned.report
    after = two_hosts.copies(lesson.vae.patcher)
    assert same(after, before)
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    latents = lesson.vae.encode(picture)
    plain, ours = (
        detail_decode(lesson.vae, learned.detail, latents, picture, strength, keep_first=False)
        for strength in (0.0, 1.0)
    )
    assert torch.equal(plain, lesson.vae.decode(latents))
    assert not torch.equal(plain, ours)


def test_the_node_gives_all_of_it(lesson, folders, monkeypatch):
    monkeypatch.setattr(folder_paths, "input_directory", str(folders))
    (node,) = (one for one in our_nodes.NODES if one.GET_SCHEMA().node_id == "FLASH_LearnDetailDecoder")
    wishes = {"clips": "a_turn", "preset": "draft", "steps": 1, "run_name": "sharp"}
    assert node.validate_inputs("a_turn") is True
    before = node.fingerprint_inputs(**wishes)
    given = node.execute(vae=lesson.vae, **wishes, **vars(OPTIONS))
    detail, losses, sample, report = given.args
    assert detail.weights.name == "sharp"
    assert len(losses["loss"]) == 2  # one, and another because Plot Loss Graph divides by the range
    assert sample.shape == (1, 4 * 64, 2 * 64, 3)
    assert report.startswith("Learned 1 of 1 steps")
    assert given.ui["images"][0]["filename"] == "sample-000001.png"
    assert node.fingerprint_inputs(**wishes) != before


def test_samples_lie_in_the_output_folder_and_change_nothing(lesson, folders, monkeypatch):
    learn_decoder(replace(lesson, run_name="unseen", options=replace(OPTIONS, sample_every=100)))
    shown = []
    monkeypatch.setattr(room.NodeDisplay, "show", lambda self, output: shown.append(output))
    learned = learn_decoder(lesson)
    names = ["sample-000002.png", "sample-000003.png"]
    assert [one["images"][0]["filename"] for one in shown] == names
    assert learned.ui == {
        "images": [{"filename": names[1], "subfolder": "flash/sharp", "type": "output"}],
        "animated": (False,),
    }
    with Image.open(folders / "output/flash/sharp" / names[0]) as sheet:
        assert sheet.size == (2 * 64, 4 * 64)
    assert same(tensors_of(folders), tensors_of(folders, "unseen"))


def test_needs_are_said_before_the_first_step(lesson, monkeypatch):
    said = []
    monkeypatch.setattr(room.NodeDisplay, "say", lambda self, text: said.append(text))
    learn_decoder(lesson)
    assert said[0].startswith("About 0.")
    assert said[0].endswith("for 3 steps")
    assert said[1].startswith("Step 1 of 3 · loss ")


def test_finished_run_gives_its_file_and_trains_nothing(lesson, no_model):
    first = learn_decoder(lesson)
    no_model()
    again = learn_decoder(lesson)
    assert same(again.detail.weights.tensors, first.detail.weights.tensors)
    assert (again.losses, again.report, again.ui) == (first.losses, first.report, first.ui)
    assert torch.equal(again.sheet, first.sheet)


@pytest.mark.parametrize("where", ["between steps", "inside a step"])
def test_cancel_leaves_a_decoder_and_goes_on_exactly(lesson, folders, monkeypatch, where):
    lesson = replace(lesson, options=replace(OPTIONS, sample_every=100))
    learn_decoder(replace(lesson, run_name="whole"))
    with monkeypatch.context() as patches:
        at_step(patches, 2, comfy.model_management.interrupt_current_processing)
        if where == "between steps":  # else the next layer of the VAE notices it
            at_step(patches, 2, comfy.model_management.throw_exception_if_processing_interrupted)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            learn_decoder(lesson)
    assert not comfy.model_management.in_training
    _, header = read_tensors(folders / "flash_decoders" / "sharp.safetensors")
    assert header["flash.steps"] == "2"
    assert [path.name for path in (folders / "flash_runs/sharp").glob("checkpoint-*")] == ["checkpoint-2"]
    learned = learn_decoder(lesson)
    assert same(tensors_of(folders), tensors_of(folders, "whole"))
    assert len(learned.losses["loss"]) == 3


def test_file_of_another_run_is_not_written_over(lesson, folders, no_model):
    other = folders / "flash_decoders" / "sharp.safetensors"
    other.write_bytes(b"somebody's work")
    no_model()
    with pytest.raises(ValueError, match="this run did not write it"):
        learn_decoder(lesson)
    assert other.read_bytes() == b"somebody's work"


def test_what_differs_from_the_run_is_said(lesson, no_model):
    learn_decoder(lesson)
    no_model()
    other = two_hosts.vae()
    other.encoder.conv_out.weight.data += 1.0
    for changed, said in (
        (replace(lesson, options=replace(OPTIONS, seed=5)), "seed: 0 then, 5 now"),
        (replace(lesson, options=replace(OPTIONS, branches="warping")), "attention: true then, false now"),
        (replace(lesson, vae=two_hosts.comfy_vae(other)), "vae: "),
    ):
        with pytest.raises(ValueError, match=f"was begun with other settings.*{said}"):
            learn_decoder(changed)


def test_what_does_not_fit_is_refused_before_anything_is_written(lesson, folders, monkeypatch):
    monkeypatch.setattr(needs, "free_memory", lambda device, own_bytes: 20 * 2**20)
    with pytest.raises(ValueError, match=r"even `size` 64 with `frames_per_step` 1 needs about"):
        learn_decoder(lesson)
    assert not list((folders / "flash_runs").iterdir())
    assert not list((folders / "flash_decoders").iterdir())
    assert not comfy.model_management.in_training


def test_the_setting_that_fits_is_named(lesson, monkeypatch):
    def just_too_little(needed, free, device, remedy):
        raise ValueError(remedy(needed - 1))

    monkeypatch.setattr(needs, "check_fits", just_too_little)
    with pytest.raises(ValueError, match=r"^set `frames_per_step` to 1, which needs about"):
        learn_decoder(lesson)


def test_full_memory_is_one_sentence_and_the_step_is_kept(lesson, folders, monkeypatch):
    def full():
        raise torch.OutOfMemoryError

    at_step(monkeypatch, 2, full)
    with pytest.raises(ValueError, match=r"The memory of cpu is full.*The last whole step is kept\."):
        learn_decoder(lesson)
    assert (folders / "flash_runs/sharp/checkpoint-2").is_dir()
    assert not comfy.model_management.in_training


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"run_name": "../away"}, "must be letters, digits"),
        ({"options": replace(OPTIONS, frames_per_step=4)}, "`frames` of a step must lie between 1 and 3"),
        ({"options": replace(OPTIONS, size=12)}, "`size` must be a multiple of 8"),
    ],
)
def test_mistakes_are_one_sentence(lesson, no_model, change, sentence):
    no_model()
    with pytest.raises(ValueError, match=sentence):
        learn_decoder(replace(lesson, **change))


def test_another_kind_of_vae_is_refused(lesson, no_model, monkeypatch):
    no_model()
    monkeypatch.setattr(lesson.vae, "latent_channels", 16)
    with pytest.raises(ValueError, match="AutoencoderKL with 16 channels"):
        learn_decoder(lesson)
