"""The small Wan as a host of the product's training, with the small base's VAE and text encoder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from flash_modules.backends.diffusers.sd15 import (
    decode_frames,
    encode_picture,
    encode_prompt,
    find_base,
    load_base,
)
from flash_modules.files.tensor_file import fingerprint
from flash_modules.flash.motion_alignment import VideoCall
from flash_modules.flash.sampling import SamplerConfig
from flash_modules.flash.training.action_training import ActionTrainingConfig, Checkpointing, Learned
from flash_modules.flash.training.latent_pool import Encode
from flash_modules.flash.training.lora_export import write_trained_lora
from flash_modules.flash.training.noise_law import FlowNoise

from ..base.wan_base import SHIFT, WEIGHTS, read_net

RANK = 8
_CHANNELS = 4


class SmallWanHost:
    """Fulfils `Host`."""

    def __init__(
        self, config: ActionTrainingConfig, base: Path, device: torch.device, weights: Path = WEIGHTS
    ) -> None:
        """`base` has the VAE and the text encoder."""
        net = read_net(weights)
        from flash_modules.backends.comfy.wan.train.alignment import LearningWan
        from flash_modules.backends.comfy.wan.train.low_rank import add_low_rank

        self.device, self.base, self.noise = device, load_base(find_base(base)), FlowNoise(SHIFT)
        self.vae_factor = self.base.vae_factor
        self.fingerprints: Mapping[str, str] = {"base": fingerprint(net.state_dict()), "rank": str(RANK)}
        self.weights: Mapping[str, Tensor] = add_low_rank(net, RANK, text=False, seed=config.seed)
        self.model = LearningWan(net, config.method.alignment).to(device)
        self.set_checkpointing(config.checkpointing)

    @property
    def num_bytes(self) -> int:
        """Of all weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    @property
    def aligned_layers(self) -> Sequence[str]:
        """The self-attentions."""
        return self.model.layers

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        """The velocity."""
        text_embeds_BMC = text_embeds.expand(len(latents_BFCHW), -1, -1)
        found_BFCHW: Tensor = self.model(latents_BFCHW, timestep_B, text_embeds_BMC, call)
        return found_BFCHW

    def latent_shape(self, num_frames: int, height: int, width: int) -> torch.Size:
        """One latent for each frame."""
        return torch.Size((num_frames, _CHANNELS, height // self.vae_factor, width // self.vae_factor))

    def sample(
        self, reference_1CHW: Tensor, prompt: Tensor, negative: Tensor, *, seed: int, config: SamplerConfig
    ) -> Tensor:
        """As in ComfyUI, with the shift of the small Wan."""
        from comfy.model_sampling import CONST, ModelSamplingDiscreteFlow

        from flash_modules.backends.comfy.wan.train.sampling import sample_video

        model_sampling = type("Sampling", (ModelSamplingDiscreteFlow, CONST), {})()
        model_sampling.set_parameters(shift=SHIFT, multiplier=1000)
        frames = config.num_frames
        return sample_video(
            self.predict, model_sampling, reference_1CHW, prompt, negative, frames, seed, config
        )

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose what runs again in the backward pass."""
        self.model.set_checkpointing(checkpointing)

    @contextmanager
    def encoder(self) -> Iterator[Encode]:
        """The VAE, frame by frame."""

        def encode(video_FCHW: Tensor) -> Tensor:
            frames = torch.split(rearrange(video_FCHW, "f c h w -> f h w c"), 1)
            return torch.cat([encode_picture(self.base.vae, frame_1HWC) for frame_1HWC in frames])

        yield encode

    def decode(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        """Pictures (H, W, 3) in [0, 1] of scaled latents."""
        return decode_frames(self.base.vae, latents_FCHW)

    def embed(self, prompt: str) -> Tensor:
        """Text embeddings (1, M, C)."""
        return encode_prompt(self.base, prompt).clone()

    def write(self, path: Path, learned: Learned, *, standalone: bool) -> None:
        """Write a LoRA file, which is the same whether `standalone` or not."""
        write_trained_lora(path, learned, base="small Wan", architecture="small-wan", shift=SHIFT, header={})
