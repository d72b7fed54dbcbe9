"""diffusers' VAE as a host that a detail decoder is learned for."""

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from .....files.tensor_file import Tensors
from .....flash.decoder_file import SIGNATURE
from .....flash.detail_decoder import DetailDecoder
from .....flash.training.detail_training import DetailTraining, DetailTrainingConfig
from .....training.clips import Clip
from ..detail import decode_with_details, detail_channels, reference_features


class DiffusersVae:
    """Fulfils `DetailHost`. The VAE belongs to it from now on."""

    def __init__(self, vae: AutoencoderKL, vae_name: str, dtype: torch.dtype, device: torch.device) -> None:
        self.vae, self.vae_name, self.device, self._dtype = vae, vae_name, device, dtype
        self.signature: Tensors = {name: vae.state_dict()[name].clone() for name in SIGNATURE}
        self.channels = detail_channels(vae)
        nn.Module.to(vae, device, dtype)  # diffusers' own warns, of an empty list of modules
        vae.eval().requires_grad_(False)

    @property
    def num_bytes(self) -> int:
        """Of the VAE's weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.vae.parameters())

    def encode(self, pixels_FCHW: Tensor) -> Tensor:
        """Scaled latents of pixels in [0, 1]."""
        latents = self.vae.encode(pixels_FCHW.to(self._dtype) * 2 - 1).latent_dist
        return latents.mean * self.vae.config.scaling_factor

    def references(self, pixels_1CHW: Tensor) -> Sequence[Tensor]:
        """What the encoder has of a picture in [0, 1] after the blocks of each level, level 0 first."""
        return reference_features(self.vae, rearrange(pixels_1CHW, "1 c h w -> 1 h w c"))

    def decode(
        self, decoder: DetailDecoder, latents_FCHW: Tensor, references: Sequence[Tensor], strength: float
    ) -> Tensor:
        """Pixels (F, 3, H, W), about [-1, 1], with details of the references."""
        return decode_with_details(self.vae, decoder, latents_FCHW, references, strength)


def detail_training(
    vae: AutoencoderKL,
    vae_name: str,
    clips: Sequence[Clip],
    config: DetailTrainingConfig,
    device: torch.device,
) -> DetailTraining[DiffusersVae]:
    """A training on a VAE and clips. The VAE belongs to it from now on."""
    return DetailTraining(DiffusersVae(vae, vae_name, config.dtype, device), clips, config)
