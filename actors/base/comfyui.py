"""ComfyUI's own classes of models, where there is a ComfyUI: as the host tests find it."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch


def use_comfyui() -> None:
    """Make `comfy` importable, set up to train. Raises ValueError, with a sentence, where there is none.

    What its own environment has is found after all that is here.
    """
    home = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (home / "main.py").is_file():
        raise ValueError(
            f"There is no ComfyUI at {home}, and this command trains a model of its own class: set "
            "COMFYUI_PATH to a ComfyUI of 0.33 or later."
        )
    for folder in (home, *home.glob(".venv/lib/python*/site-packages")):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    args = importlib.import_module("comfy.cli_args").args
    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = True
    management: Any = importlib.import_module("comfy.model_management")
    management.in_training = True
