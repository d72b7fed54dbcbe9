"""The Detail Enhancement Decoder on diffusers' AutoencoderKL, whose layers are walked and never changed."""

from collections.abc import Iterator, Sequence

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor

from ....flash.decoder_file import DetailWeights, check_vae
from ....flash.detail_decoder import DetailDecoder
from .load.encode import to_picture


def detail_channels(vae: AutoencoderKL) -> tuple[int, ...]:
    """Channels of the VAE's levels, from level 0 on: what a DetailDecoderConfig needs."""
    return tuple(vae.config.block_out_channels)


def make_detail_decoder(vae: AutoencoderKL, weights: DetailWeights) -> DetailDecoder:
    """The decoder of a file, where the VAE is. Raises ValueError if it was trained with another VAE."""
    check_vae(weights, vae.state_dict())
    decoder = DetailDecoder(weights.config, device="meta")
    decoder.load_state_dict(weights.tensors, assign=True)
    return decoder.to(vae.device, vae.dtype).eval().requires_grad_(False)


@torch.inference_mode()
def decode_frames_with_details(
    vae: AutoencoderKL,
    decoder: DetailDecoder,
    latents_FCHW: Tensor,
    image_1HWC: Tensor,
    strength: float = 1.0,
    *,
    keep_first: bool = False,
) -> Iterator[Tensor]:
    """Pictures (H, W, 3) in [0, 1] of scaled latents, one after the other, with details of the first picture.

    With `keep_first`, frame 0 is the picture itself.
    """
    references = reference_features(vae, image_1HWC)
    for i, latent_1CHW in enumerate(latents_FCHW.split(1)):
        if i == 0 and keep_first:
            yield image_1HWC[0]
        else:
            yield to_picture(decode_with_details(vae, decoder, latent_1CHW, references, strength))


def reference_features(vae: AutoencoderKL, image_1HWC: Tensor) -> list[Tensor]:
    """What the encoder has of a picture in [0, 1] after the blocks of each level, level 0 first."""
    pixels_1CHW = rearrange(image_1HWC, "1 h w c -> 1 c h w").to(vae.device, vae.dtype) * 2 - 1
    encoder, features = vae.encoder, []
    h = encoder.conv_in(pixels_1CHW)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            h = resnet(h, temb=None)
        features.append(h)
        for layer in block.downsamplers or ():
            h = layer(h)
    return features


def decode_with_details(
    vae: AutoencoderKL,
    decoder: DetailDecoder,
    latents_FCHW: Tensor,
    references: Sequence[Tensor],
    strength: float = 1.0,
) -> Tensor:
    """Pixels (F, 3, H, W), about [-1, 1], of scaled latents, with details of the reference's features."""
    plain, level = vae.decoder, len(references) - 1
    h = latents_FCHW.to(vae.device, vae.dtype) / vae.config.scaling_factor
    h = plain.mid_block(plain.conv_in(vae.post_quant_conv(h)))
    for block in plain.up_blocks:
        for resnet in block.resnets:
            h = resnet(h, temb=None)
        h = decoder.enhance(level, h, references[level], strength)
        for layer in block.upsamplers or ():
            h = layer(h)
        level -= 1
    return plain.conv_out(plain.conv_act(plain.conv_norm_out(h)))
