"""Names of the original Stable Diffusion code for weights of diffusers' and transformers' models."""

import re
from collections.abc import Iterator

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE = (
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", lambda m: "mid.attn_1"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"down.{m[1]}.block.{m[2]}"),
    (r"down_blocks\.(\d)\.downsamplers\.0", lambda m: f"down.{m[1]}.downsample"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"conv_shortcut", lambda m: "nin_shortcut"),
    (r"conv_norm_out", lambda m: "norm_out"),
    (r"group_norm", lambda m: "norm"),
    (r"to_([qkv])\.", lambda m: f"{m[1]}."),
    (r"to_out\.0", lambda m: "proj_out"),
)


def checkpoint(unet: UNet2DConditionModel, vae: AutoencoderKL, text: CLIPTextModel) -> dict[str, Tensor]:
    """The three models as one checkpoint file holds them."""
    text_names = {name: f"text_model.{name.removeprefix('text_model.')}" for name in text.state_dict()}
    return {
        **{f"model.diffusion_model.{unet_name(n)}": t.clone() for n, t in unet.state_dict().items()},
        **{f"first_stage_model.{vae_name(n)}": as_conv(n, t).clone() for n, t in vae.state_dict().items()},
        **{f"cond_stage_model.transformer.{text_names[n]}": t.clone() for n, t in text.state_dict().items()},
    }


def unet_name(name: str) -> str:
    for theirs, original in _unet_parts():
        if name.startswith(theirs):
            rest = name.removeprefix(theirs)
            part = rest.split(".")[0]
            if ".resnets." in theirs:
                rest = rest.replace(part, RESNET[part], 1)
            return original + rest
    raise AssertionError(name)


def _unet_parts() -> Iterator[tuple[str, str]]:
    yield "time_embedding.linear_1.", "time_embed.0."
    yield "time_embedding.linear_2.", "time_embed.2."
    yield "conv_in.", "input_blocks.0.0."
    yield "conv_norm_out.", "out.0."
    yield "conv_out.", "out.2."
    yield "mid_block.resnets.0.", "middle_block.0."
    yield "mid_block.attentions.0.", "middle_block.1."
    yield "mid_block.resnets.1.", "middle_block.2."
    for level in range(4):
        for j in range(2):
            yield f"down_blocks.{level}.resnets.{j}.", f"input_blocks.{3 * level + j + 1}.0."
            yield f"down_blocks.{level}.attentions.{j}.", f"input_blocks.{3 * level + j + 1}.1."
        yield f"down_blocks.{level}.downsamplers.0.conv.", f"input_blocks.{3 * level + 3}.0.op."
        for j in range(3):
            yield f"up_blocks.{level}.resnets.{j}.", f"output_blocks.{3 * level + j}.0."
            yield f"up_blocks.{level}.attentions.{j}.", f"output_blocks.{3 * level + j}.1."
        yield f"up_blocks.{level}.upsamplers.0.", f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}."


def vae_name(name: str) -> str:
    for theirs, original in VAE:
        name = re.sub(theirs, original, name)
    return name


def as_conv(name: str, weight: Tensor) -> Tensor:
    """The original VAE attends with 1 x 1 convolutions."""
    return weight[:, :, None, None] if "attentions" in name and weight.ndim == 2 else weight
