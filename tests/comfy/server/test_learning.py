"""The template Learn-an-action in a real server: it learns, shows, is cancelled, and goes on."""

import json
import time

import pytest
from PIL import Image
from safetensors import safe_open


@pytest.fixture
def lesson(small_prompt):
    """A function: the template as a prompt of this run's name and steps, without what stands behind it."""

    def lesson(run_name: str, steps: int) -> dict:
        prompt = small_prompt("Learn-an-action", steps=steps)
        node = next(node for node in prompt.values() if node["class_type"] == "FLASH_LearnAction")
        node["inputs"]["run_name"] = run_name
        kept = {"CheckpointLoaderSimple", "LoadImage"}
        return {
            key: node
            for key, node in prompt.items()
            if node["class_type"] in kept
            or (node["class_type"].startswith("FLASH_") and node["class_type"] not in _BEHIND)
        }

    return lesson


_BEHIND = {"FLASH_ApplyAction", "FLASH_Sampler", "FLASH_PreviewClips"}


def header_of(server, run_name: str) -> dict[str, str]:
    with safe_open(server.base / "models/flash_actions" / f"{run_name}.safetensors", "pt") as file:
        return file.metadata()


def shown_by_learn_action(history: dict) -> dict:
    (shown,) = (output for output in history["outputs"].values() if output.get("animated"))
    return shown


def test_it_learns_and_shows_a_moving_sample(server, lesson):
    history = server.finished(server.queue(lesson("first", 2)))
    assert history["status"]["status_str"] == "success", json.dumps(history["status"]["messages"], indent=1)
    shown = shown_by_learn_action(history)
    assert [one["filename"] for one in shown["images"]] == ["sample-000002.webp"]
    with Image.open(server.base / "output/flash/first/sample-000002.webp") as sample:
        assert (sample.size, sample.n_frames) == ((64, 64), 4)
    assert header_of(server, "first")["flash.steps"] == "2"


def test_finished_run_is_given_at_once(server, lesson):
    server.finished(server.queue(lesson("again", 1)))
    server.post("/free", {"unload_models": True, "free_memory": True})
    file = server.base / "models/flash_actions/again.safetensors"
    before = file.stat().st_mtime_ns
    start = time.monotonic()
    history = server.finished(server.queue(lesson("again", 1)))
    assert history["status"]["status_str"] == "success"
    assert file.stat().st_mtime_ns == before
    assert time.monotonic() - start < 60
    assert shown_by_learn_action(history)["images"][0]["filename"] == "sample-000001.webp"


def test_cancel_saves_and_the_run_goes_on(server, lesson):
    cancelled = server.queue(lesson("broken off", 50))
    sample = server.base / "output/flash/broken off/sample-000001.webp"
    server.wait_for(sample.is_file, "the first step")
    server.post("/interrupt", {})
    assert "execution_interrupted" in json.dumps(server.finished(cancelled)["status"]["messages"])
    steps = int(header_of(server, "broken off")["flash.steps"])
    assert 1 <= steps < 50
    history = server.finished(server.queue(lesson("broken off", steps + 1)))
    assert history["status"]["status_str"] == "success", json.dumps(history["status"]["messages"], indent=1)
    assert header_of(server, "broken off")["flash.steps"] == str(steps + 1)
