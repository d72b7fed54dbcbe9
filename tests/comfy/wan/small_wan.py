"""A small random Wan2.2 TI2V-5B as diffusers' transformer and ComfyUI's MODEL, with a small VAE and UMT5."""

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from flash_pack.tests.backends.small_models import randomise

CHANNELS, LAYERS, WIDTH, TEXT_WIDTH = 48, 4, 128, 4096
"""ComfyUI takes heads of 128, so the small one has a single head; its text is as wide as UMT5-XXL's."""
FRAMES, HEIGHT, WIDTH_LATENT = 3, 4, 6
"""Of latents."""
SHAPE_FCHW = (FRAMES, CHANNELS, HEIGHT, WIDTH_LATENT)
TEXT = 7


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(one: Tensor, other: Tensor) -> float:
    """Root mean square of the difference, relative to that of the other."""
    return float((one - other).norm() / other.norm())


def small_twin(layers: int = LAYERS, heads: int = 1) -> WanTransformer3DModel:
    """diffusers' transformer."""
    return randomise(
        WanTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=WIDTH // heads,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=TEXT_WIDTH,
            ffn_dim=160,
            num_layers=layers,
            rope_max_seq_len=64,
        ),
        3,
    )


_NAMES = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    (".attn1.to_out.0", ".self_attn.o"),
    (".attn2.to_out.0", ".cross_attn.o"),
    (".attn1.to_", ".self_attn."),
    (".attn2.to_", ".cross_attn."),
    (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."),
    (".ffn.net.0.proj", ".ffn.0"),
    (".ffn.net.2", ".ffn.2"),
    (".norm2.", ".norm3."),
    ("scale_shift_table", "modulation"),
    ("proj_out", "head.head"),
)


def core_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' weights by the names of the original code, which are ComfyUI's."""
    found = {}
    for name, weight in weights.items():
        for theirs, ours in _NAMES:
            name = name.replace(theirs, ours)
        found["head.modulation" if name == "modulation" else name] = weight.clone()
    return found


def comfyui_model(twin: WanTransformer3DModel, dtype: torch.dtype = torch.float32):
    """ComfyUI's MODEL with the same weights, by its own loader."""
    import comfy.sd

    weights = {name: weight.to(dtype) for name, weight in core_names(twin.state_dict()).items()}
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": dtype})


def quantised_model(twin: WanTransformer3DModel, kind: str = "float8_e4m3fn", **told):
    """ComfyUI's MODEL of the same weights, the blocks' quantised as core's files have them.

    `told` is what a file tells of each layer beside its kind.
    """
    import json

    import comfy.sd
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    how = {"scale": "recalculate"} if kind.startswith("float8") else {}
    if "w4" in kind:  # these turn channels in groups, and the files tell of how many
        how = told = {**told, "convrot_groupsize": 64}
    mark = torch.tensor(list(json.dumps({"format": kind, **told}).encode()), dtype=torch.uint8)
    layout = QUANT_ALGOS[kind]["comfy_tensor_layout"]
    weights = core_names(twin.state_dict())
    for name in [name for name, w in weights.items() if name.startswith("blocks.") and w.ndim == 2]:
        if weights[name].shape[1] % told.get("convrot_groupsize", 1) == 0:
            weights |= QuantizedTensor.from_float(weights[name], layout, **how).state_dict(name)
            weights[f"{name.removesuffix('weight')}comfy_quant"] = mark.clone()
    return comfy.sd.load_diffusion_model_state_dict(weights)
