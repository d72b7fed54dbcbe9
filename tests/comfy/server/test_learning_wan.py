"""The templates of Wan 2.2 in a real server, on a small random model: learned, cancelled, performed."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import av
import pytest
from PIL import Image
from safetensors import safe_open

from flash_pack.tests.comfy.server.conftest import running_server

API = Path(__file__).resolve().parents[1] / "api"
STAND_INS = {"CLIPLoader": "StandInUmt5", "VAELoader": "StandInWanVae"}
SMALL = {"width": 64, "height": 64, "length": 5}
OPTIONS = {"frames": 5, "rank": 2, "pool": 1, "sample_every": 2, "sample_steps": 2, "save_steps": 1}


def small(name: str, **changes) -> dict:
    """A template on small models and videos."""
    prompt = json.loads((API / f"{name}.json").read_text())
    for node in prompt.values():
        if stand_in := STAND_INS.get(node["class_type"]):
            node.update(class_type=stand_in, inputs={})
        node["inputs"].update((k, v) for k, v in {**SMALL, **changes}.items() if k in node["inputs"])
        if node["class_type"] == "FLASH_LearnActionWan":
            node["inputs"]["options"] = ["options", 0]
            prompt = {**prompt, "options": options()}
    return prompt


def options() -> dict:
    """The node with small settings."""
    from flash_pack.nodes.wan import TrainingOptionsWan

    defaults = {one.id: one.default for one in TrainingOptionsWan.GET_SCHEMA().inputs}
    return {"class_type": "FLASH_TrainingOptionsWan", "inputs": {**defaults, **OPTIONS}}


def lesson(run_name: str, steps: int) -> dict:
    """The template up to what is learned."""
    prompt = small("Learn-an-action-on-Wan", run_name=run_name, steps=steps)
    kept = {"UNETLoader", "LoadImage", *STAND_INS.values()}
    kept |= {"FLASH_LearnActionWan", "FLASH_TrainingOptionsWan"}
    return {key: node for key, node in prompt.items() if node["class_type"] in kept}


def header_of(base: Path, run_name: str) -> dict[str, str]:
    with safe_open(base / "models/loras" / f"{run_name}.safetensors", "pt") as file:
        return file.metadata()


def tensors_of(base: Path, run_name: str) -> dict:
    with safe_open(base / "models/loras" / f"{run_name}.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in [*file.keys()]}


def assert_ended_well(history: dict) -> None:
    assert history["status"]["status_str"] == "success", json.dumps(history["status"]["messages"], indent=1)


def test_the_template_learns_and_performs(server):
    history = server.finished(server.queue(small("Learn-an-action-on-Wan", run_name="wan whole", steps=2)))
    with av.open(str(server.output(history))) as video:
        assert video.streams.video[0].average_rate == 24
        assert len([*video.decode(video=0)]) == 5
    assert header_of(server.base, "wan whole")["flash.steps"] == "2"
    with Image.open(server.base / "output/flash/wan whole/sample-000002.webp") as sample:
        assert (sample.size, sample.n_frames) == ((64, 64), 5)
    assert (server.base / "output/flash/wan whole/sample-000000.png").is_file()


def test_stock_nodes_perform(server):
    prompts = [small("Perform-on-Wan", steps=2, seed=1, strength_model=strength) for strength in (1.0, 0.0)]
    assert not any("FLASH" in node["class_type"] for prompt in prompts for node in prompt.values())
    with_lora, without = (
        frames_of(server.output(server.finished(server.queue(prompt)))) for prompt in prompts
    )
    assert len(with_lora) == len(without) == 5
    assert any(a.tobytes() != b.tobytes() for a, b in zip(with_lora[1:], without[1:], strict=True))


def frames_of(path: Path) -> list:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_cancel_saves_and_the_run_goes_on(server):
    cancelled = server.queue(lesson("wan broken off", 5000))
    sample = server.base / "output/flash/wan broken off/sample-000002.webp"
    server.wait_for(sample.is_file, "the second step")
    server.post("/interrupt", {})
    assert "execution_interrupted" in json.dumps(server.finished(cancelled)["status"]["messages"])
    steps = int(header_of(server.base, "wan broken off")["flash.steps"])
    assert 2 <= steps < 5000
    assert_ended_well(server.finished(server.queue(lesson("wan broken off", steps + 2))))
    assert header_of(server.base, "wan broken off")["flash.steps"] == str(steps + 2)
    assert_ended_well(server.finished(server.queue(lesson("wan at once", steps + 2))))
    ours, whole = (tensors_of(server.base, name) for name in ("wan broken off", "wan at once"))
    assert all(bool((ours[name] == tensor).all()) for name, tensor in whole.items())


def test_finished_run_is_given_at_once(server):
    assert_ended_well(server.finished(server.queue(lesson("wan again", 1))))
    file = server.base / "models/loras/wan again.safetensors"
    before = file.stat().st_mtime_ns
    server.post("/free", {"unload_models": True, "free_memory": True})
    assert_ended_well(server.finished(server.queue(lesson("wan again", 1))))
    assert file.stat().st_mtime_ns == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_it_goes_on_as_if_nothing_had_been(base):
    """Twice in the middle of learning; what is on the disk is whole."""
    run = base / "models/flash_runs/wan killed"
    for _ in range(2):
        before = newest(run)
        with running_server(base) as server:
            server.queue(lesson("wan killed", 5000))
            server.wait_for(partial(passed, run, before), "a checkpoint")
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
    steps = newest(run) + 1
    with running_server(base) as server:
        assert_ended_well(server.finished(server.queue(lesson("wan killed", steps))))
        assert_ended_well(server.finished(server.queue(lesson("wan not killed", steps))))
    ours, whole = (tensors_of(base, name) for name in ("wan killed", "wan not killed"))
    assert all(bool((ours[name] == tensor).all()) for name, tensor in whole.items())


def passed(run: Path, step: int) -> bool:
    return newest(run) > step


def newest(run: Path) -> int:
    return max((int(path.name.rsplit("-", 1)[1]) for path in run.glob("checkpoint-*")), default=0)
