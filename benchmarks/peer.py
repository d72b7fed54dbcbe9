"""AnimateDiff-Evolved in ComfyUI, from a checkout of it: what our rows are compared with."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import folder_paths
import nodes
import torch
from comfy.model_patcher import ModelPatcher
from safetensors.torch import save_file

from flash_modules.animatediff.motion_module import MotionModel, sinusoidal_positions

FILE = "motion.safetensors"


def add_peer_motion(model: ModelPatcher, motion: MotionModel, checkout: Path) -> ModelPatcher:
    """The MODEL with the same motion weights in AnimateDiff-Evolved's hands, as its nodes apply them.

    Its modules have Stable Diffusion 1.5's widths alone.
    """
    assert asyncio.run(nodes.load_custom_node(str(checkout.resolve()))), (
        "ComfyUI did not load AnimateDiff-Evolved"
    )
    with tempfile.TemporaryDirectory() as folder:
        save_file(_file(motion), Path(folder) / FILE)
        folder_paths.add_model_folder_path("animatediff_models", folder)
        motion_model = _run("ADE_LoadAnimateDiffModel", model_name=FILE)
    motion_models = _run("ADE_ApplyAnimateDiffModelSimple", motion_model=motion_model)
    patched: ModelPatcher = _run(
        "ADE_UseEvolvedSampling", model=model, beta_schedule="autoselect", m_models=motion_models
    )
    return patched


def _run(node: str, **inputs: object) -> Any:
    node_class = nodes.NODE_CLASS_MAPPINGS[node]
    return getattr(node_class(), node_class.FUNCTION)(**inputs)[0]


def _file(motion: MotionModel) -> dict[str, torch.Tensor]:
    """Tensors as AnimateDiff's files have them: fp16, with a table of positions for each attention."""
    tensors = dict(motion.state_dict())
    for name, module in motion.named_modules():
        if hasattr(module, "positions_FC"):
            tensors[f"{name}.pos_encoder.pe"] = sinusoidal_positions(*module.positions_FC.shape)[None]
    return {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
