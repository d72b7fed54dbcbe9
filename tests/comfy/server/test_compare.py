"""Compare Videos in a graph that a real server runs."""

import numpy as np
from PIL import Image


def test_two_pictures_of_a_graph_stand_side_by_side(server) -> None:
    empty = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255}}
    prompt = {
        "one": empty,
        "two": {"class_type": "EmptyImage", "inputs": {**empty["inputs"], "color": 0xFF0000}},
        "both": {
            "class_type": "FLASH_CompareVideos",
            "inputs": {"videos.video0": ["one", 0], "videos.video1": ["two", 0], "names": "blue\nred"},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["both", 0], "filename_prefix": "both"}},
    }
    saved = server.output(server.finished(server.queue(prompt)))
    pixels = np.asarray(Image.open(saved).convert("RGB"))
    assert pixels.shape == (48 + 24, 64 + 8 + 64, 3)
    assert pixels[-1, 0].tolist() == [0, 0, 255]
    assert pixels[-1, -1].tolist() == [255, 0, 0]
