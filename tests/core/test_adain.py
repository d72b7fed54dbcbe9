import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.flash.adain import AdaINConfig, adain

F, C, H, W = 3, 4, 5, 7


def slow_adain(latents_FCHW: Tensor) -> Tensor:
    out_FCHW = latents_FCHW.clone()
    for f in range(1, F):
        for c in range(C):
            (mean, std), (first_mean, first_std) = (statistics(latents_FCHW[i, c]) for i in (f, 0))
            for y in range(H):
                for x in range(W):
                    out_FCHW[f, c, y, x] = (latents_FCHW[f, c, y, x] - mean) / std * first_std + first_mean
    return out_FCHW


def statistics(values_HW: Tensor) -> tuple[float, float]:
    values = values_HW.flatten().tolist()
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1) + 1e-8) ** 0.5


@pytest.fixture
def latents_FCHW() -> Tensor:
    scale_FC11, shift_FC11 = torch.rand(2, F, C, 1, 1, dtype=torch.float64) + 0.5
    return torch.randn(F, C, H, W, dtype=torch.float64) * scale_FC11 + shift_FC11


def test_adain_equals_a_loop(latents_FCHW: Tensor) -> None:
    torch.testing.assert_close(
        adain(latents_FCHW, AdaINConfig()), slow_adain(latents_FCHW), rtol=1e-12, atol=1e-12
    )


def test_every_frame_has_the_mean_and_spread_of_frame_0(latents_FCHW: Tensor) -> None:
    styled_FCHW = adain(latents_FCHW, AdaINConfig())
    for measure in (Tensor.mean, Tensor.std):
        assert not torch.allclose(
            measure(latents_FCHW[1:], (-2, -1)), measure(latents_FCHW[:1], (-2, -1)), rtol=0.01
        )
        found_FC = measure(styled_FCHW, (-2, -1))
        torch.testing.assert_close(found_FC, found_FC[:1].expand(F, C), rtol=1e-6, atol=1e-6)


def test_strength_0_changes_nothing(latents_FCHW: Tensor) -> None:
    off = AdaINConfig(strength=0.0)
    assert torch.equal(adain(latents_FCHW.float(), off), latents_FCHW.float())
    one_pixel_FCHW = latents_FCHW[..., :1, :1]  # has no spread
    assert torch.equal(adain(one_pixel_FCHW, off), one_pixel_FCHW)


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.7, 1.0])
def test_frame_0_is_unchanged(latents_FCHW: Tensor, strength: float) -> None:
    latents_FCHW = latents_FCHW.float()
    assert torch.equal(adain(latents_FCHW, AdaINConfig(strength=strength))[0], latents_FCHW[0])


@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_strength_blends_linearly(latents_FCHW: Tensor, strength: float) -> None:
    blended_FCHW = (1 - strength) * latents_FCHW + strength * slow_adain(latents_FCHW)
    found_FCHW = adain(latents_FCHW, AdaINConfig(strength=strength))
    torch.testing.assert_close(found_FCHW, blended_FCHW, rtol=1e-12, atol=1e-12)


def test_input_is_not_written_to(latents_FCHW: Tensor) -> None:
    kept_FCHW = latents_FCHW.clone()
    adain(latents_FCHW, AdaINConfig())
    assert torch.equal(latents_FCHW, kept_FCHW)


def test_a_flat_frame_stays_finite() -> None:
    latents_FCHW = torch.cat([torch.randn(1, C, H, W), torch.full((2, C, H, W), 3.0)])
    assert adain(latents_FCHW, AdaINConfig()).isfinite().all()


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
def test_strength_outside_0_to_1_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"AdaIN strength must lie between 0 and 1, but it is"):
        AdaINConfig(strength=strength)


def test_latents_of_a_video_model_are_refused() -> None:
    with pytest.raises(ValueError, match="AdaIN needs a video of Stable Diffusion"):
        adain(torch.zeros(1, 4, 3, 5, 6), AdaINConfig(strength=0.0))
