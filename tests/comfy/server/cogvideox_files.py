"""Random files of CogVideoX-5b-I2V and FlexiAct in their true width, with one layer, as they are released."""

from pathlib import Path

import av
import numpy as np
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import save_file

WIDTH, RANK, TOKENS = 3072, 64, 226
ATTENTION = "transformer_blocks.0.attn1.processor"


def write_cogvideox(path: Path, draw) -> None:
    """The transformer by diffusers' names; `draw` makes random weights of a layout (0.5 GB)."""
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel(
            num_attention_heads=48, in_channels=32, num_layers=1,
            use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True,
        )  # fmt: skip
    save_file(draw(transformer.state_dict(), torch.Generator().manual_seed(22)), path)


def write_action(path: Path) -> None:
    draw = torch.Generator().manual_seed(23)
    torch.save({f"{ATTENTION}.motion_inversion_tokens": torch.randn(1, TOKENS, WIDTH, generator=draw)}, path)


def write_ref_adapter(path: Path) -> None:
    draw, weights = torch.Generator().manual_seed(24), {}
    for part in ("q", "k", "v", "proj"):
        for role, shape in (("down", (RANK, WIDTH)), ("up", (WIDTH, RANK))):
            weights[f"{ATTENTION}.lora_{part}.{role}.weight"] = torch.randn(shape, generator=draw) * 0.01
    torch.save(weights, path)


def write_clip(path: Path) -> None:
    """A square that crosses the picture in a second and a half."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for place in range(12):
            frame_HWC = np.full((64, 96, 3), (40, 120, 90), np.uint8)
            frame_HWC[20:44, 6 * place : 6 * place + 24] = 230, 60, 40
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, "rgb24")))
        file.mux(stream.encode())
