"""A small Wan 2.2 for the latents of the small base, pretrained on drawn clips.

The class is ComfyUI's own, as of Wan2.2 TI2V-5B but for its sizes; no frames are merged in time, so that a
clip has a latent for each frame. VAE and text encoder are those of the small base.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from tqdm import tqdm

from flash_modules.backends.diffusers.sd15 import Base, encode_prompt, find_base, load_base
from flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_modules.flash.training.noise_law import FlowNoise, TimestepConfig

from .comfyui import use_comfyui
from .pool import ClipPool, actor_clip, make_pool
from .small_base import FOLDER
from .training import Limit, Recipe, averaged_weights, generator, train, where
from .vae import to_pixels

if TYPE_CHECKING:
    from comfy.ldm.wan.model import WanModel

SHIFT = 3.0
"""Small latents are told less of under noise than large ones, which Wan 2.2 shifts by 5 to 8."""
LAYERS, HEADS, WIDTH = 6, 4, 160
"""4 heads of 40, for 1152 tokens of 2 x 2 latent pixels: 2.4 million weights."""
RECIPE = Recipe(lr=1e-3, parts=("net",), warmup=200)
BASE = "wan"
"""Folder of the stage."""
WEIGHTS = FOLDER.parent / "wan.safetensors"
"""The committed weights."""

_FIGURES = 3.0
"""Weight of the error of people and things, where places have 1."""
_TEXT_DROP = 0.1
_AT_ONCE = {"cpu": 16, "cuda": 800}
"""Frames that are encoded together."""


def new_net(seed: int = 0) -> WanModel:
    """Weights as torch draws them, but for the head, which begins at 0."""
    use_comfyui()
    from comfy.ldm.wan.model import WanModel

    torch.manual_seed(seed)
    net = WanModel(
        model_type="t2v",
        in_dim=4,
        out_dim=4,
        dim=WIDTH,
        ffn_dim=3 * WIDTH,
        freq_dim=128,
        text_dim=64,
        num_heads=HEADS,
        num_layers=LAYERS,
        operations=torch.nn,
    )
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("modulation"):
                weight.normal_(std=WIDTH**-0.5)
        net.head.head.weight.zero_()
        net.head.head.bias.zero_()
    return net


def velocity(net: WanModel, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor) -> Tensor:
    """Velocities (B, F, C, H, W) of videos whose frame 0 is clean."""
    from flash_modules.backends.comfy.learning.own_attention import own_attention

    timestep_BF = timestep_B[:, None].repeat(1, latents_BFCHW.shape[1])
    timestep_BF[:, 0] = 0
    found_BCFHW = net(
        rearrange(latents_BFCHW, "b f c h w -> b c f h w"),
        timestep_BF,
        text_embeds_BMC,
        transformer_options={"optimized_attention_override": own_attention},
    )
    found_BFCHW: Tensor = rearrange(found_BCFHW, "b c f h w -> b f c h w")
    return found_BFCHW


class VideoData:
    """Clips as latents, with embeddings of their captions and figures; batches are drawn of them."""

    def __init__(self, pool: ClipPool, base: Base, device: torch.device) -> None:
        self.device = device
        base.vae.to(device)
        encoded = [_encode(base, clips, device) for clips in tqdm(pool.chunks_KFHW3, desc="latents")]
        base.vae.to("cpu")
        self.latents_KFCHW = torch.cat(encoded)[: len(pool)]
        self.figures_KFHW = pool.figures_KFHW.to(device)
        texts = {text: index for index, text in enumerate(dict.fromkeys(["", *pool.captions]))}
        embeds = [encode_prompt(base, text) for text in tqdm(texts, desc="captions")]
        self.texts_TMC = torch.cat(embeds).clone().to(device)
        self.text_of_K = torch.tensor([texts[caption] for caption in pool.captions], device=device)

    def draw(self, count: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, F, C, H, W), text (B, M, C), and weights of errors (B, F, 1, H, W)."""
        clips = torch.randint(len(self.text_of_K), (count,), generator=draws, device=self.device)
        dropped = torch.rand(count, generator=draws, device=self.device) < _TEXT_DROP
        texts = torch.where(dropped, 0, self.text_of_K[clips])
        weights_BFHW = 1 + (_FIGURES - 1) * self.figures_KFHW[clips].float() / 255
        return self.latents_KFCHW[clips].float(), self.texts_TMC[texts], weights_BFHW[:, :, None]


@torch.inference_mode()
def _encode(base: Base, clips_KFHW3: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    frames_XHW3 = rearrange(torch.from_numpy(np.array(clips_KFHW3)), "k f h w c -> (k f) h w c").to(device)
    parts = torch.split(frames_XHW3, _AT_ONCE[device.type])
    means = [base.vae.encode(to_pixels(part)).latent_dist.mean for part in parts]
    scaled_XCHW = (torch.cat(means) * base.vae.config.scaling_factor).half()
    scaled_KFCHW: Tensor = rearrange(scaled_XCHW, "(k f) c h w -> k f c h w", f=clips_KFHW3.shape[1])
    return scaled_KFCHW


def base_loss(net: WanModel, data: VideoData, count: int, draws: torch.Generator) -> Tensor:
    """Mean squared error of the velocity of so many clips, each at a timestep of its own."""
    latents_BFCHW, text_BMC, weights_BF1HW = data.draw(count, draws)
    law = FlowNoise(SHIFT)
    u_B = 1 - torch.rand(count, generator=draws, device=data.device)
    timestep_B = 1000 * SHIFT * u_B / (1 + (SHIFT - 1) * u_B)
    noise_BFCHW = torch.randn(latents_BFCHW.shape, generator=draws, device=data.device)
    found_BFCHW = velocity(net, law.noised(latents_BFCHW, noise_BFCHW, timestep_B), timestep_B, text_BMC)
    off_BFCHW = found_BFCHW.float() - law.target(latents_BFCHW, noise_BFCHW, timestep_B)
    weights_BG1HW = weights_BF1HW[:, 1:]
    return (off_BFCHW[:, 1:].square() * weights_BG1HW).mean() / weights_BG1HW.mean()


def pretrain(
    out: Path, num_clips: int, limit: Limit, *, seed: int, batch: int, device: torch.device, workers: int
) -> None:
    """Draw the clips, and train until the limit, into out/wan; what was begun there goes on."""
    make_pool(out / "pool", actor_clip, num_clips, seed, workers=workers)
    data = VideoData(ClipPool(out / "pool", num_clips), load_base(find_base(FOLDER)), device)
    net = new_net(seed).to(device).train()
    train(
        out / BASE,
        nn.ModuleDict({"net": net}),
        lambda step, over: base_loss(net, data, batch, generator(seed, BASE, step, device)),
        RECIPE,
        limit,
    )


def export(out: Path, path: Path = WEIGHTS) -> None:
    """Write the averaged weights in fp16, with where the training ended."""
    weights = {name: weight.half() for name, weight in averaged_weights(out / BASE, "net").items()}
    write_tensors(path, weights, {name: str(value) for name, value in where(out / BASE).items()})


def read_net(path: Path = WEIGHTS) -> WanModel:
    """The pretrained network, in fp32. Raises ValueError if there is none."""
    if not path.is_file():
        raise ValueError(f"There is no {path}: make it with `python -m actors wan-base`.")
    net = new_net()
    tensors, _ = read_tensors(path)
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net.eval().requires_grad_(False)


TIMESTEPS = TimestepConfig(law="shifted")
"""How lessons draw them: as the base was taught."""
