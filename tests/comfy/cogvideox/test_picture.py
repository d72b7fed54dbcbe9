"""The picture on its way into the model: cut to size, encoded as diffusers does, put into both prompts."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from flash_pack.flash_modules.backends.comfy import cogvideox as backend
from flash_pack.flash_modules.backends.comfy.cogvideox.picture import fit, how_fitted
from flash_pack.tests.backends.small_models import randomise
from flash_pack.tests.comfy.cogvideox.two_hosts import difference, draw, prompt

WIDTHS = (32, 32, 32, 32)


@pytest.fixture(scope="module")
def diffusers_vae() -> AutoencoderKLCogVideoX:
    kinds = {f"{side}_block_types": [f"CogVideoX{side.title()}Block3D"] * 4 for side in ("down", "up")}
    return randomise(AutoencoderKLCogVideoX(block_out_channels=WIDTHS, layers_per_block=1, **kinds), 4)


@pytest.fixture
def vae(diffusers_vae, monkeypatch):
    """ComfyUI's VAE with the same weights, narrower than it takes every CogVideoX VAE for."""
    import comfy.ldm.cogvideo.vae
    import comfy.sd

    whole = comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX

    class Narrow(whole):
        def __init__(self, latent_channels: int):
            super().__init__(block_out_channels=WIDTHS, layers_per_block=1, latent_channels=latent_channels)

    monkeypatch.setattr(comfy.ldm.cogvideo.vae, "AutoencoderKLCogVideoX", Narrow)
    return comfy.sd.VAE(sd={n: w.clone() for n, w in diffusers_vae.state_dict().items()}, dtype=torch.float32)


def image(height: int, width: int, channels: int = 3) -> Tensor:
    """Of 256 levels, as Load Image gives them."""
    draw = torch.Generator().manual_seed(8)
    return torch.randint(256, (1, height, width, channels), generator=draw) / 255


def test_a_picture_is_encoded_as_diffusers_does(vae, diffusers_vae) -> None:
    """Without the transparency that it may have."""
    picture = image(480, 720, channels=4)
    made = backend.condition(prompt(2, None), prompt(3, None), vae, picture)
    latent = made.positive[0][1]["concat_latent_image"]
    pixels = 2 * picture[..., :3].permute(0, 3, 1, 2)[:, :, None] - 1
    assert difference(latent, diffusers_vae.encode(pixels).latent_dist.mode()) <= 1e-5
    assert latent is made.negative[0][1]["concat_latent_image"]
    assert torch.equal(made.latent["samples"], torch.zeros(1, 16, 13, 60, 90))


def test_prompts_that_were_given_stay_as_they_are(vae) -> None:
    positive, negative = prompt(2, None), prompt(3, None)
    made = backend.condition(positive, negative, vae, image(48, 72))
    assert made.notes == how_fitted(48, 72)
    assert positive[0][1] == negative[0][1] == {}
    assert made.positive[0][0] is positive[0][0]
    assert made.negative[0][0] is negative[0][0]


@pytest.mark.parametrize("size", [(480, 720), (1000, 1000), (333, 777), (64, 48), (3000, 200), (479, 721)])
def test_any_picture_becomes_720_x_480(size: tuple[int, int]) -> None:
    fitted = fit(image(*size))
    assert fitted.shape == (1, 480, 720, 3)
    assert fitted.min() >= 0
    assert fitted.max() <= 1


def test_a_picture_of_that_size_is_not_touched() -> None:
    picture = image(480, 720)
    torch.testing.assert_close(fit(picture), picture)


def test_the_middle_is_kept_and_nothing_is_stretched() -> None:
    """A white square in the middle of a wide picture stays a square in the middle."""
    picture = torch.zeros(1, 960, 2000, 3)
    picture[:, 430:530, 950:1050] = 1
    white = (fit(picture)[0, :, :, 0] > 0.5).nonzero()
    (top, left), (bottom, right) = white.min(0).values.tolist(), white.max(0).values.tolist()
    assert (top, bottom, left, right) == (215, 264, 335, 384)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((480, 720), []),
        ((960, 1440), ["1440 x 960 became 720 x 480."]),
        ((720, 720), ["720 x 720 became 720 x 480.", "33 % was cut off, top and bottom."]),
        ((480, 960), ["960 x 480 became 720 x 480.", "25 % was cut off, left and right."]),
        (
            (100, 150),
            [
                "150 x 100 became 720 x 480.",
                "It was enlarged 4.8 times: a larger picture gives more detail.",
            ],
        ),
    ],
)
def test_it_is_said_what_was_done(size: tuple[int, int], words: list[str]) -> None:
    assert how_fitted(*size) == words


def test_several_pictures_are_refused(vae) -> None:
    with pytest.raises(ValueError, match="There are 2 pictures, and a video begins with one: choose one"):
        backend.condition(prompt(2, None), prompt(3, None), vae, image(8, 8).expand(2, -1, -1, -1))


def test_another_vae_is_refused() -> None:
    from flash_pack.tests.comfy.backend.two_hosts import comfy_vae
    from flash_pack.tests.comfy.backend.two_hosts import vae as sd15_vae

    with pytest.raises(ValueError, match="This VAE is AutoencoderKL, and CogVideoX needs its own: load"):
        backend.condition(prompt(2, None), prompt(3, None), comfy_vae(sd15_vae()), image(8, 8))


def test_the_stock_decode_is_near_diffusers(vae, diffusers_vae) -> None:
    """Its group norms look at other frames together. In diffusers' chunks the same weights give the same."""
    latents = draw(1, 16, 5, 4, 6, seed=9)
    theirs = diffusers_vae.decode(latents)[0]
    assert difference(vae.first_stage_model._decode_batched(latents), theirs) <= 1e-5
    stock = difference(vae.decode(latents), ((theirs.movedim(1, -1) + 1) / 2).clamp(0, 1))
    assert 1e-4 < stock < 0.1  # on these random weights 0.09
