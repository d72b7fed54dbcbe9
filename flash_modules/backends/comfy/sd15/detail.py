"""The Detail Enhancement Decoder on ComfyUI's VAE, whose layers are walked and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ....flash.decoder_file import DetailWeights, check_vae, read_detail_decoder
from ....flash.detail_decoder import DetailDecoder
from ..weights import make_patcher

_OTHER_SHAPE = 0.05
"""Ratios of width to height that differ by more are of another picture."""
PLAIN_DECODE = "No detail decoder is connected: this was VAE Decode."
"""What a user may want to know of a decode without one."""
_MEMORY = 1.4
"""What a frame takes, in parts of what the plain decode of it takes: 1.5 with the reference's features, which
all frames share, as `make bench-details` counts."""


@dataclass(frozen=True, kw_only=True)
class LoadedDetail:
    """A detail decoder in ComfyUI's hands, with its weights in `patcher`."""

    weights: DetailWeights
    patcher: ModelPatcher


def load_detail_decoder(path: Path) -> LoadedDetail:
    """Load a detail decoder file; ComfyUI decides when its weights move to the GPU."""
    weights = read_detail_decoder(path)
    return LoadedDetail(weights=weights, patcher=_patcher(weights))


def _patcher(weights: DetailWeights, disable_dynamic: bool = False) -> ModelPatcher:
    device = comfy.model_management.vae_device()
    offload_device = comfy.model_management.vae_offload_device()
    net = DetailDecoder(weights.config, operations=comfy.ops.manual_cast, device="meta")
    patcher = make_patcher(net, weights.tensors, device, offload_device, disable_dynamic=disable_dynamic)
    patcher.cached_patcher_init = (_patcher, (weights,))
    return patcher


def detail_decode(
    vae: VAE,
    detail: LoadedDetail | None,
    latents_FCHW: Tensor,
    image: Tensor,
    strength: float,
    *,
    keep_first: bool,
) -> Tensor:
    """Frames (F, H, W, 3) in [0, 1] of unscaled latents, with details of the picture (1, H, W, 3).

    Without `detail` they are VAE Decode's. With `keep_first`, frame 0 is the picture itself. Raises
    ValueError if the parts do not fit together.
    """
    _check(vae, latents_FCHW)
    picture_1HWC = _fit(image, vae, latents_FCHW)
    if detail is None:
        video = vae.decode(latents_FCHW)
        return torch.cat([picture_1HWC.to(video), video[1:]]) if keep_first else video
    check_vae(detail.weights, vae.get_sd())
    memory = _MEMORY * vae.memory_used_decode((1, *latents_FCHW.shape[1:]), vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher, detail.patcher], memory_required=memory)
    at_once = max(1, int(vae.patcher.get_free_memory(vae.device) / memory))
    pixels_1CHW = vae.process_input(picture_1HWC.movedim(-1, 1)).to(vae.device, vae.vae_dtype)
    references = reference_features(vae.first_stage_model, pixels_1CHW)
    count, height, width = len(latents_FCHW), *picture_1HWC.shape[1:3]
    video = torch.empty(count, height, width, 3, device=vae.output_device, dtype=vae.vae_output_dtype())
    first = 1 if keep_first else 0
    video[:first] = picture_1HWC.to(video)
    bar = comfy.utils.ProgressBar(count - first)
    for start in range(first, count, at_once):
        comfy.model_management.throw_exception_if_processing_interrupted()
        part = latents_FCHW[start : start + at_once].to(vae.device, vae.vae_dtype)
        pixels = decode_with_details(vae.first_stage_model, detail.patcher.model, part, references, strength)
        video[start : start + at_once] = vae.process_output(pixels.to(video)).movedim(1, -1)
        bar.update(len(part))
    return video


def _check(vae: VAE, latents: Tensor) -> None:
    if not isinstance(vae.first_stage_model, AutoencoderKL) or vae.latent_channels != 4:
        raise ValueError(
            f"Detail Decode works with the VAE of Stable Diffusion 1.5, but this is "
            f"{type(vae.first_stage_model).__name__} with {vae.latent_channels} channels: connect the "
            "checkpoint's own VAE, or use VAE Decode."
        )
    if latents.ndim != 4 or latents.shape[1] != vae.latent_channels:
        raise ValueError(
            f"Detail Decode takes latents of Stable Diffusion 1.5, (frames, 4, height, width), but these are "
            f"{tuple(latents.shape)}: connect the video of a FLASH sampler."
        )


def _fit(image: Tensor, vae: VAE, latents: Tensor) -> Tensor:
    """The picture in the video's size, cut as VAE Encode cuts it."""
    if len(image) != 1:
        raise ValueError(f"Detail Decode takes one reference picture, but there are {len(image)}: give one.")
    picture_1HWC = vae.vae_encode_crop_pixels(image[..., :3])
    wanted = tuple(size * vae.upscale_ratio for size in latents.shape[2:])
    found = tuple(picture_1HWC.shape[1:3])
    if found == wanted:
        return picture_1HWC
    if not all(found) or abs(found[0] * wanted[1] / (found[1] * wanted[0]) - 1) > _OTHER_SHAPE:
        raise ValueError(
            f"The reference picture is {image.shape[2]}x{image.shape[1]}, and the video {wanted[1]}x"
            f"{wanted[0]}, which is another shape: give the picture that went into VAE Encode."
        )
    scaled = comfy.utils.common_upscale(picture_1HWC.movedim(-1, 1), *wanted[::-1], "lanczos", "disabled")
    return scaled.movedim(1, -1)


def detail_channels(vae: AutoencoderKL) -> tuple[int, ...]:
    """Channels of the VAE's levels, from level 0 on: what a DetailDecoderConfig needs."""
    return tuple(level.block[-1].out_channels for level in vae.encoder.down)


def reference_features(vae: AutoencoderKL, pixels_1CHW: Tensor) -> list[Tensor]:
    """What the encoder has of a picture in [-1, 1] after the blocks of each level, level 0 first."""
    encoder, features = vae.encoder, []
    h = encoder.conv_in(pixels_1CHW)
    for i, level in enumerate(encoder.down):
        for block in level.block:
            h = block(h, None)
        features.append(h)
        if i < len(encoder.down) - 1:
            h = level.downsample(h)
    return features


def decode_with_details(
    vae: AutoencoderKL,
    net: DetailDecoder,
    latents_FCHW: Tensor,
    references: Sequence[Tensor],
    strength: float,
) -> Tensor:
    """Pixels (F, 3, H, W), about [-1, 1], of unscaled latents, with details of the reference's features.

    It is the plain decoder, with details after the blocks of each level.
    """
    decoder = vae.decoder
    h = decoder.conv_in(vae.post_quant_conv(latents_FCHW))
    h = decoder.mid.block_2(decoder.mid.attn_1(decoder.mid.block_1(h, None)), None)
    for i in reversed(range(len(decoder.up))):
        for block in decoder.up[i].block:
            h = block(h, None)
        h = net.enhance(i, h, references[i], strength)
        if i > 0:
            h = decoder.up[i].upsample(h)
    return decoder.conv_out(torch.nn.functional.silu(decoder.norm_out(h)))
