"""Which of the Wan models a MODEL is: an action is learned on Wan2.2 TI2V-5B."""

from comfy.ldm.wan.model import WanModel
from comfy.model_base import WAN22
from comfy.model_patcher import ModelPatcher

BASE = "Wan2.2 TI2V-5B"
ARCHITECTURE = "wan2.2-ti2v-5b"
"""The base in the words of LoRA headers (modelspec.architecture)."""
_A14B_IN = 36
"""Channels that an expert of Wan2.2 I2V-A14B reads: 16 of noise, 4 of the mask, 16 of the picture."""
_NAMES = {
    "t2v": "a text-to-video model of Wan (Wan 2.1 T2V, or an expert of Wan2.2 T2V-A14B)",
    "i2v": "Wan 2.1 I2V",
    "vace": "Wan VACE",
    "camera": "Wan Fun Camera",
    "camera_2.2": "Wan2.2 Fun Camera",
    "s2v": "Wan2.2 S2V",
    "humo": "HuMo",
    "animate": "Wan2.2 Animate",
}
"""Kinds of Wan by ComfyUI's name for their layout."""


def check_model(model: ModelPatcher) -> None:
    """Raise ValueError, with the name of what it is, unless the MODEL is Wan2.2 TI2V-5B."""
    if _is_learnable(model):
        return
    raise ValueError(
        f"This MODEL is {_name(model)}, and an action is learned on {BASE}: load that with Load Diffusion "
        "Model (wan2.2_ti2v_5B_fp16.safetensors)."
    )


def _is_learnable(model: ModelPatcher) -> bool:
    """Subclasses of WAN22 or of its network are other models, though of the same layout."""
    if type(model.model) is not WAN22 or type(net := model.model.diffusion_model) is not WanModel:
        return False
    return net.ref_conv is None and net.in_dim == net.out_dim


def _name(model: ModelPatcher) -> str:
    """What it is, in a user's words."""
    config = getattr(model.model, "model_config", None)
    layout = getattr(config, "unet_config", {})
    if layout.get("image_model") != "wan2.1":
        return f"no Wan, but {type(model.model if config is None else config).__name__}"
    if layout.get("in_dim_ref_conv") is not None:
        return "Wan Fun Control"
    kind: str = layout.get("model_type", "?")
    if kind == "t2v" and layout.get("in_dim") == _A14B_IN:
        return "an expert of Wan2.2 I2V-A14B, or Wan Fun InP"
    return _NAMES.get(kind, f"a Wan of the kind '{kind}'")
