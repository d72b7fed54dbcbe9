"""Small models with random weights, in the layouts of Stable Diffusion 1.5 and AnimateDiff."""

import json
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from flash_pack.flash_modules.animatediff.motion_file import MotionWeights
from flash_pack.flash_modules.animatediff.motion_module import MotionConfig, MotionModel

WIDTHS = (32, 64)
SD15_WIDTHS = (32, 64, 96, 128)
TEXT_WIDTH = 48


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Weights, norms and biases alike: nothing is left at a start value that could hide it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(noise * 1.5 / weight[0].numel() ** 0.5)
            else:
                weight.copy_(noise * 0.3 + float(name.endswith("weight")))
    return model.eval().requires_grad_(False)


def small_unet(seed: int = 0, widths: tuple[int, ...] = WIDTHS) -> UNet2DConditionModel:
    """All kinds of places that Stable Diffusion 1.5 has; with four widths its very layout."""
    with torch.device("meta"):
        unet = _unet(widths)
    unet.load_state_dict({n: t.clone() for n, t in _unet_weights(seed, widths).items()}, assign=True)
    return unet.eval().requires_grad_(False)


def _unet(widths: tuple[int, ...]) -> UNet2DConditionModel:
    attentions = len(widths) - 1
    return UNet2DConditionModel(
        block_out_channels=widths,
        down_block_types=["CrossAttnDownBlock2D"] * attentions + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * attentions,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        sample_size=8,
    )


@cache
def _unet_weights(seed: int, widths: tuple[int, ...]) -> dict[str, Tensor]:
    return randomise(_unet(widths), seed).state_dict()


def small_motion(seed: int = 1, widths: tuple[int, ...] = WIDTHS, *, mid: bool = False) -> MotionWeights:
    """AnimateDiff v3's layout, or v2's with a module in the middle block."""
    config = MotionConfig(
        down=tuple((width,) * 2 for width in widths),
        up=tuple((width,) * 3 for width in reversed(widths)),
        mid=widths[-1:] if mid else (),
    )
    tensors = randomise(MotionModel(config), seed).state_dict()
    version = "v2" if mid else "v3"
    return MotionWeights(name="small", version=version, reason="made so", config=config, tensors=tensors)


def small_vae(seed: int = 2) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.25,
    )
    return randomise(vae, seed)


def small_text_encoder(seed: int = 3) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=TEXT_WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=12,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
    )
    return randomise(CLIPTextModel(config), seed)


def vocabulary() -> dict[str, int]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def save_tokenizer(folder: Path) -> Path:
    """A tokenizer that knows single letters."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


class PerFrame(nn.Module):
    """A norm over each frame, where diffusers' motion module runs one over all frames together."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features_BCFHW: Tensor) -> Tensor:
        frames = self.norm(rearrange(features_BCFHW, "b c f h w -> (b f) c h w"))
        return rearrange(frames, "(b f) c h w -> b c f h w", b=features_BCFHW.shape[0])


def per_frame(oracle: UNetMotionModel) -> UNetMotionModel:
    """diffusers' AnimateDiff with the published code's motion norms."""
    for module in oracle.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            module.norm = PerFrame(module.norm)
    return oracle
