"""The shipped workflows, run by a real ComfyUI server on random models."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted(
    path.stem
    for path in (ROOT / "workflows").glob("*.json")
    if "CheckpointLoaderSimple" in path.read_text("utf-8")
)
NUM_FRAMES = 16


@pytest.fixture(scope="module")
def vae_round_trip(server, small_prompt) -> np.ndarray:
    """The picture as it leaves the stock nodes VAE Encode and VAE Decode, without any node of ours."""
    return made_by_stock_nodes(server, small_prompt, "VAEDecode")


@pytest.fixture(scope="module")
def cut_picture(server, small_prompt) -> np.ndarray:
    """The picture in the video's size."""
    return made_by_stock_nodes(server, small_prompt, "ImageScale")


def made_by_stock_nodes(server, small_prompt, last: str) -> np.ndarray:
    prompt = small_prompt("Animate-a-picture")
    stock = {n["class_type"]: i for i, n in prompt.items()}
    kept = ("CheckpointLoaderSimple", "LoadImage", "ImageScale", "VAEEncode", "VAEDecode")
    prompt = {stock[name]: prompt[stock[name]] for name in kept}
    prompt[stock["VAEDecode"]]["inputs"]["samples"] = [stock["VAEEncode"], 0]
    prompt["save"] = {
        "class_type": "SaveImage",
        "inputs": {"images": [stock[last], 0], "filename_prefix": last},
    }
    saved = server.output(server.finished(server.queue(prompt)))
    return np.asarray(Image.open(saved).convert("L"), dtype=float)


def frames_of(video: Path) -> np.ndarray:
    """Brightness of all frames: H.264 halves the resolution of colours, and random weights paint noise."""
    with av.open(str(video)) as container:
        assert container.streams.video[0].average_rate == 8
        return np.stack([frame.to_image().convert("L") for frame in container.decode(video=0)]).astype(float)


def assert_starts_with(frames: np.ndarray, picture: np.ndarray) -> None:
    """Frame 0 is the picture but for the loss of H.264, and no other frame is."""
    assert frames.shape == (NUM_FRAMES, *picture.shape)
    away = np.abs(frames - picture).mean(axis=(1, 2))
    assert away[0] < 0.25 * away[1:].min(), away


@pytest.mark.parametrize("name", WORKFLOWS)
def test_shipped_workflow_makes_a_video_that_starts_with_the_picture(
    server, small_prompt, vae_round_trip, name
):
    prompt = small_prompt(name)
    history = server.finished(server.queue(prompt))
    assert_starts_with(frames_of(server.output(history)), vae_round_trip)


def test_details_come_with_the_decoder_and_the_picture_with_the_switch(server, small_prompt, cut_picture):
    prompt = small_prompt("Perform-a-learned-action")
    (decode,) = (node for node in prompt.values() if node["class_type"] == "FLASH_DetailDecode")
    loader = {"class_type": "FLASH_LoadDetailDecoder", "inputs": {"file_name": "details.safetensors"}}
    prompt["loader"] = loader
    decode["inputs"] |= {"decoder": ["loader", 0], "keep_first_frame": True}
    history = server.finished(server.queue(prompt))
    assert_starts_with(frames_of(server.output(history)), cut_picture)


def test_run_after_a_cancelled_one_works(server, small_prompt, vae_round_trip):
    cancelled = server.queue(small_prompt("Animate-a-picture", steps=50))
    server.wait_for(lambda: " 1/50 [" in server.log_tail(), "the first step")
    server.post("/interrupt", {})
    messages = json.dumps(server.finished(cancelled)["status"]["messages"])
    assert "execution_interrupted" in messages
    history = server.finished(server.queue(small_prompt("Animate-a-picture", seed=2)))
    assert_starts_with(frames_of(server.output(history)), vae_round_trip)
