"""The Detail Enhancement Decoder on diffusers' VAE."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.sd15.detail import (
    decode_with_details,
    detail_channels,
    reference_features,
)
from flash_pack.flash_modules.backends.diffusers.sd15.load.encode import decode_frames
from flash_pack.flash_modules.flash.detail_decoder import DetailDecoder, DetailDecoderConfig
from flash_pack.tests.backends.small_models import randomise, small_vae


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return small_vae().requires_grad_(False)


def new_decoder(vae: AutoencoderKL) -> DetailDecoder:
    return DetailDecoder(DetailDecoderConfig(channels=detail_channels(vae), width=8))


@pytest.fixture
def image_1HWC() -> Tensor:
    return torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def latents_FCHW(vae: AutoencoderKL) -> Tensor:
    factor = 2 ** (len(detail_channels(vae)) - 1)
    return torch.randn(3, 4, 32 // factor, 48 // factor, generator=torch.Generator().manual_seed(2))


def test_untrained_it_is_the_vae_bit_for_bit(
    vae: AutoencoderKL, image_1HWC: Tensor, latents_FCHW: Tensor
) -> None:
    references = reference_features(vae, image_1HWC)
    for strength in (1.0, 0.0):
        pixels_FCHW = decode_with_details(vae, new_decoder(vae), latents_FCHW, references, strength)
        assert torch.equal(pixels_FCHW, vae.decode(latents_FCHW / vae.config.scaling_factor).sample)
    frames = torch.stack([*decode_frames(vae, latents_FCHW)])
    torch.testing.assert_close((pixels_FCHW / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), frames)


def test_references_are_what_the_encoder_has_after_each_size(vae: AutoencoderKL, image_1HWC: Tensor) -> None:
    seen: list[Tensor] = []
    hooks = [
        block.resnets[-1].register_forward_hook(lambda layer, args, out: seen.append(out))
        for block in vae.encoder.down_blocks
    ]
    vae.encode(image_1HWC.permute(0, 3, 1, 2) * 2 - 1)
    for hook in hooks:
        hook.remove()
    references = reference_features(vae, image_1HWC)
    assert [found.shape[1] for found in references] == list(detail_channels(vae))
    assert references[0].shape[2:] == (32, 48)
    for found, wanted in zip(references, seen, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_each_level_adds_to_what_the_vae_has_there(
    vae: AutoencoderKL, image_1HWC: Tensor, latents_FCHW: Tensor
) -> None:
    """A hook of diffusers' own adds at one level what the decoder adds at that level alone."""
    references = reference_features(vae, image_1HWC)
    for level in range(len(references)):
        decoder = new_decoder(vae)
        randomise(decoder.levels[level], seed=level)
        found = decode_with_details(vae, decoder, latents_FCHW, references, 0.7)
        block = vae.decoder.up_blocks[len(references) - 1 - level].resnets[-1]
        hook = block.register_forward_hook(
            lambda layer, args, h, d=decoder, i=level: d.enhance(i, h, references[i], 0.7)
        )
        wanted = vae.decode(latents_FCHW / vae.config.scaling_factor).sample
        hook.remove()
        assert torch.equal(found, wanted)
        assert not torch.allclose(found, vae.decode(latents_FCHW / vae.config.scaling_factor).sample)


def test_only_the_new_layers_learn(vae: AutoencoderKL, image_1HWC: Tensor, latents_FCHW: Tensor) -> None:
    decoder = new_decoder(vae)
    randomise(decoder, seed=0).requires_grad_(True)
    pixels_FCHW = decode_with_details(vae, decoder, latents_FCHW, reference_features(vae, image_1HWC))
    pixels_FCHW.square().mean().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())
    assert all(weight.grad is None for weight in vae.parameters())
