"""The committed small base, used as the product uses a base: it animates an actor's picture."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flash_modules.animatediff.motion_file import read_motion
from flash_modules.animatediff.noise_schedule import ddim_timesteps
from flash_modules.backends.diffusers.sd15 import (
    AnimatedUNet,
    Base,
    add_action,
    decode_frames,
    encode_picture,
    encode_prompt,
    find_base,
    load_base,
)
from flash_modules.flash.action_file import Action
from flash_modules.flash.adain import AdaINConfig
from flash_modules.flash.sampling import SamplerConfig, denoise, draw_noise, sample_video
from flash_modules.flash.training.noise_law import DiffusionNoise

from ..world.clips import Clip, clip_video

FOLDER = Path(__file__).parents[1] / "weights" / "base"
MOTION = FOLDER / "motion.safetensors"
DETAILS = FOLDER.parent / "details.safetensors"
"""A detail decoder for its VAE."""

SAMPLER = SamplerConfig(num_frames=8, steps=20, cfg=1.5)
"""Twenty steps look like more here, and more guidance gives a figure colours that it does not have."""


def image_size(folder: Path = FOLDER) -> int:
    """Pixels on a side of the pictures that the base of a folder was trained on."""
    configs = (folder / part / "config.json" for part in ("unet", "vae"))
    unet, vae = (json.loads(file.read_text(encoding="utf-8")) for file in configs)
    size: int = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    return size


@dataclass(frozen=True)
class SmallBase:
    """A base and a U-Net that animates with it."""

    base: Base
    model: AnimatedUNet

    @property
    def size(self) -> int:
        """Pixels on a side of its pictures."""
        size: int = self.base.unet.config.sample_size * self.base.vae_factor
        return size

    def to(self, device: torch.device) -> "SmallBase":
        """The same base, which works there from now on; its videos are on the CPU all the same."""
        for part in (self.base.vae, self.base.text_encoder, self.model):
            part.to(device)
        return self

    def animate(self, reference: Clip, seed: int, config: SamplerConfig = SAMPLER) -> Tensor:
        """A video (F, H, W, 3) in [0, 1] that goes on from the clip's first frame as its caption says."""
        prompt, negative = (encode_prompt(self.base, text) for text in (reference.caption, ""))
        latent_1CHW = encode_picture(self.base.vae, clip_video(reference)[:1])
        latents_FCHW = sample_video(
            self.model.predict,
            latent_1CHW,
            prompt,
            negative,
            prediction=self.base.prediction,
            seed=seed,
            config=config,
            style=AdaINConfig(),
        )
        return self.decode(latents_FCHW)

    def decode(self, latents_FCHW: Tensor) -> Tensor:
        """The video (F, H, W, 3) in [0, 1] of scaled latents, by the VAE alone."""
        return torch.stack([*decode_frames(self.base.vae, latents_FCHW)]).cpu()

    def redraw(self, latents_FCHW: Tensor, caption: str, seed: int, timestep: int = 251) -> Tensor:
        """The same video after noise of this timestep and the way back (SDEdit, arXiv:2108.01073).

        So its frames are wrong as generated ones are, and what they should be is known. Frame 0 stays. The
        timestep is one of `SAMPLER`'s, else a ValueError says which there are.
        """
        if timestep not in (known := ddim_timesteps(SAMPLER.steps)):
            raise ValueError(f"Videos are drawn again from the timesteps {known}, but not from {timestep}.")
        prompt = encode_prompt(self.base, caption)
        noise_FCHW = draw_noise(latents_FCHW.shape, seed).to(latents_FCHW)
        timestep_1 = torch.tensor([timestep], device=latents_FCHW.device)
        law = DiffusionNoise(self.base.prediction)
        (noised_FCHW,) = law.noised(latents_FCHW[None], noise_FCHW[None], timestep_1)
        return denoise(
            self.model.predict,
            noised_FCHW,
            latents_FCHW[:1],
            prompt,
            prompt,
            prediction=self.base.prediction,
            config=replace(SAMPLER, num_frames=len(latents_FCHW), cfg=1.0),
            start_timestep=timestep,
        )

    def rebuilt(self, clip: Clip) -> Tensor:
        """The clip after the VAE's way there and back."""
        return self.decode(encode_picture(self.base.vae, clip_video(clip)))


def load_small_base(folder: Path = FOLDER, action: Action | None = None) -> SmallBase:
    """The small base of a folder, with its motion module and the action if there is one."""
    base = load_base(find_base(folder))
    return SmallBase(base, add_action(base.unet, read_motion(folder / MOTION.name), action))
