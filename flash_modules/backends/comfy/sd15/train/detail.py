"""ComfyUI's VAE as a host that a detail decoder is learned for."""

from collections.abc import Sequence

import comfy.model_management
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.model import AttnBlock
from comfy.sd import VAE
from einops import rearrange
from torch import Tensor

from .....attention import attend
from .....files.tensor_file import Tensors
from .....flash.decoder_file import SIGNATURE
from .....flash.detail_decoder import DetailDecoder
from ...learning.own_weights import loaded_from, own_weights
from ..detail import decode_with_details, detail_channels, reference_features
from .encode import check_vae


class ComfyVae:
    """Fulfils `DetailHost` with a copy of a VAE's weights. The VAE itself stays as it is.

    To be made and used outside of inference mode, in which ComfyUI runs its nodes.
    """

    def __init__(self, vae: VAE, dtype: torch.dtype) -> None:
        check_vae(vae)
        self.device: torch.device = comfy.model_management.get_torch_device()
        self.vae_name = loaded_from(vae.patcher) or "a VAE of Stable Diffusion 1.5"
        self.vae, self._dtype = own_vae(vae), dtype
        self.signature = vae_signature(vae)
        self.channels = detail_channels(self.vae)
        self.vae.to(self.device, dtype)

    @property
    def num_bytes(self) -> int:
        """Of the VAE's weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.vae.parameters())

    def encode(self, pixels_FCHW: Tensor) -> Tensor:
        """Unscaled latents of pixels in [0, 1]."""
        return self.vae.encode(self._centred(pixels_FCHW))

    def references(self, pixels_1CHW: Tensor) -> Sequence[Tensor]:
        """What the encoder has of a picture in [0, 1] after the blocks of each level, level 0 first."""
        return reference_features(self.vae, self._centred(pixels_1CHW))

    def _centred(self, pixels_FCHW: Tensor) -> Tensor:
        return pixels_FCHW.to(self.device, self._dtype) * 2 - 1

    def decode(
        self, decoder: DetailDecoder, latents_FCHW: Tensor, references: Sequence[Tensor], strength: float
    ) -> Tensor:
        """Pixels (F, 3, H, W), about [-1, 1], with details of the references."""
        return decode_with_details(self.vae, decoder, latents_FCHW, references, strength)


@torch.no_grad()
def vae_signature(vae: VAE) -> Tensors:
    """The SIGNATURE of a VAE; nothing is loaded."""
    weights = vae.get_sd()
    return {name: weights[name].to("cpu", copy=True) for name in SIGNATURE}


def own_vae(vae: VAE) -> AutoencoderKL:
    """A frozen copy of the VAE on the CPU, which ComfyUI's memory manager does not know.

    ComfyUI's own was made in inference mode: no gradient goes through it. Attention is our SDPA, whatever
    kernel ComfyUI was started with. Raises ValueError if encoder and decoder have other widths.
    """
    plain = vae.first_stage_model
    parts = plain.encoder.down, plain.decoder.up
    widths = [[level.block[-1].out_channels for level in part] for part in parts]
    if widths[0] != widths[1]:
        raise ValueError(
            f"The encoder of this VAE has {widths[0]} channels and its decoder {widths[1]}, and details are "
            "learned where both have as many: connect the VAE of a Stable Diffusion 1.5 checkpoint."
        )
    weights = own_weights(vae.patcher, prefix="")
    with torch.device("meta"):
        own = AutoencoderKL(ddconfig=_layout(plain), embed_dim=plain.embed_dim)
    own.load_state_dict(weights, assign=True)
    for layer in own.modules():
        if isinstance(layer, AttnBlock):
            layer.optimized_attention = _attention
    return own.eval().requires_grad_(False)


def _layout(vae: AutoencoderKL) -> dict:
    encoder = vae.encoder
    return {
        "double_z": True,
        "z_channels": vae.post_quant_conv.out_channels,
        "resolution": encoder.resolution,
        "in_channels": encoder.in_channels,
        "out_ch": vae.decoder.conv_out.out_channels,
        "ch": encoder.ch,
        "ch_mult": [channels // encoder.ch for channels in detail_channels(vae)],
        "num_res_blocks": encoder.num_res_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def _attention(q_FCHW: Tensor, k_FCHW: Tensor, v_FCHW: Tensor) -> Tensor:
    height = q_FCHW.shape[-2]
    q_FNC, k_FNC, v_FNC = (rearrange(x, "f c h w -> f (h w) c") for x in (q_FCHW, k_FCHW, v_FCHW))
    return rearrange(attend(q_FNC, k_FNC, v_FNC, 1), "f (h w) c -> f c h w", h=height)
