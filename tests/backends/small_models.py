"""Small models with random weights, in the layouts of Stable Diffusion 1.5 and AnimateDiff; small clips."""

import json
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from flash_pack.flash_modules.animatediff.motion_file import MotionWeights
from flash_pack.flash_modules.animatediff.motion_module import MotionConfig, MotionModel
from flash_pack.flash_modules.files.tensor_file import fingerprint
from flash_pack.flash_modules.flash.action_file import Action, Source

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


def small_unet(seed: int = 0, widths: tuple[int, ...] = WIDTHS, layers: int = 2) -> UNet2DConditionModel:
    """All kinds of places that Stable Diffusion 1.5 has; with four widths and two layers its very layout."""
    unet, weights = _unet(widths, layers), _unet_weights(seed, widths, layers)
    unet.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    return unet.eval().requires_grad_(False)


def _unet(widths: tuple[int, ...], layers: int) -> UNet2DConditionModel:
    attentions = len(widths) - 1
    return UNet2DConditionModel(
        block_out_channels=widths,
        layers_per_block=layers,
        down_block_types=["CrossAttnDownBlock2D"] * attentions + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * attentions,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        sample_size=8,
    )


@cache
def _unet_weights(seed: int = 0, widths: tuple[int, ...] = WIDTHS, layers: int = 2) -> dict[str, Tensor]:
    return randomise(_unet(widths, layers), seed).state_dict()


def small_motion(
    seed: int = 1, widths: tuple[int, ...] = WIDTHS, layers: int = 2, *, mid: bool = False
) -> MotionWeights:
    """AnimateDiff v3's layout, or v2's with a module in the middle block."""
    config = MotionConfig(
        down=tuple((width,) * layers for width in widths),
        up=tuple((width,) * (layers + 1) for width in reversed(widths)),
        mid=widths[-1:] if mid else (),
    )
    tensors = randomise(MotionModel(config), seed).state_dict()
    version = "v2" if mid else "v3"
    return MotionWeights(name="small", version=version, reason="made so", config=config, tensors=tensors)


def small_vae(seed: int = 2, layers: int = 2) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=layers,
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


def write_gif(path: Path, color: str, num_frames: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = []
    for i in range(num_frames):
        frame = Image.new("RGB", (40, 32), "navy")
        frame.paste(color, (4 + 3 * i, 8, 14 + 3 * i, 26))
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


KV = [
    f"{attention}.transformer_blocks.0.{attn}.{part}"
    for attention in (
        *(f"down_blocks.0.attentions.{j}" for j in range(2)),
        "mid_block.attentions.0",
        *(f"up_blocks.1.attentions.{j}" for j in range(3)),
    )
    for attn in ("attn1", "attn2")
    for part in ("to_k", "to_v")
]


def key(path: str) -> str:
    return "lora_unet_" + path.replace(".", "_")


def base_sha256() -> str:
    weights = _unet_weights()
    return fingerprint({key(path): weights[f"{path}.weight"] for path in KV})


def make_action(motion: MotionWeights, *, kind: str = "compact") -> Action:
    """Attention weights of the motion and all spatial keys and values are trained."""
    generator = torch.Generator().manual_seed(5)
    trained = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in motion.tensors.items()
        if kind == "standalone" or ".attention_blocks." in name
    }
    weights = _unet_weights()
    kv_diffs = {key(p): 0.1 * torch.randn(weights[f"{p}.weight"].shape, generator=generator) for p in KV}
    return Action(
        name="jump",
        kind=kind,
        motion=trained,
        kv_diffs=kv_diffs,
        base=Source(name="small", sha256=base_sha256()),
        motion_module=Source(name="small_motion", sha256=motion.sha256, version="v3"),
        frames=16,
    )
