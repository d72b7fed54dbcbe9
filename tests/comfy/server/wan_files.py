"""A random file of Wan2.2 TI2V-5B as core's loader takes it, with two narrow layers, and a LoRA for it."""

from pathlib import Path

import torch
from safetensors.torch import save_file

LAYOUT = {"in_dim": 48, "out_dim": 48, "dim": 128, "ffn_dim": 160, "num_heads": 1, "num_layers": 2}
RANK = 2


def write_wan(path: Path, draw) -> None:
    """The transformer; `draw` makes random weights of a layout."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    with torch.device("meta"):
        net = WanModel(model_type="t2v", text_dim=4096, operations=comfy.ops.disable_weight_init, **LAYOUT)
    save_file(draw(net.state_dict(), torch.Generator().manual_seed(26)), path)


def write_lora(path: Path) -> None:
    draw, weights = torch.Generator().manual_seed(27), {}
    for part in "qkvo":
        for role, shape in (("A", (RANK, LAYOUT["dim"])), ("B", (LAYOUT["dim"], RANK))):
            name = f"diffusion_model.blocks.0.self_attn.{part}.lora_{role}.weight"
            weights[name] = 0.1 * torch.randn(shape, generator=draw)
    save_file(weights, path)
