import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.flash.first_frame import (
    check_reference,
    first_frame_latents,
    replace_first_frame,
)

B, F, C, H, W = 2, 3, 4, 5, 7


@pytest.mark.parametrize("batch", [(), (B,)])
def test_replace_first_frame_exchanges_frame_0_alone(batch: tuple[int, ...]) -> None:
    video_FCHW, frame_1CHW = torch.randn(*batch, F, C, H, W), torch.randn(1, C, H, W)
    kept_FCHW = video_FCHW.clone()
    out_FCHW = replace_first_frame(video_FCHW, frame_1CHW)
    assert out_FCHW.shape == video_FCHW.shape
    for video, kept in zip(out_FCHW.reshape(-1, F, C, H, W), kept_FCHW.reshape(-1, F, C, H, W), strict=True):
        assert torch.equal(video[0], frame_1CHW[0])
        assert torch.equal(video[1:], kept[1:])
    assert torch.equal(video_FCHW, kept_FCHW)


def test_replaced_frame_takes_the_videos_number_type() -> None:
    video_FCHW = replace_first_frame(torch.zeros(F, C, H, W, dtype=torch.float16), torch.randn(1, C, H, W))
    assert video_FCHW.dtype == torch.float16


def test_start_latents_are_the_reference_and_then_zeros() -> None:
    reference_1CHW = torch.randn(1, C, H, W)
    start_FCHW = first_frame_latents(reference_1CHW, F)
    assert start_FCHW.shape == (F, C, H, W)
    assert torch.equal(start_FCHW[:1], reference_1CHW)
    assert not start_FCHW[1:].any()


def test_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match=r"A video needs 2 frames or more, but `frames` is 1"):
        first_frame_latents(torch.randn(1, C, H, W), 1)


def test_a_picture_is_a_usable_reference() -> None:
    latent_BCHW = torch.randn(1, C, H, W)
    assert check_reference(latent_BCHW) is latent_BCHW


@pytest.mark.parametrize(
    ("latent", "sentence"),
    [
        (torch.ones(3, C, H, W), "holds 3 pictures, but the first frame is one picture"),
        (torch.ones(0, C, H, W), "holds 0 pictures"),
        (torch.ones(1, C, F, H, W), r"one encoded picture .* but its shape is \(1, 4, 3, 5, 7\)"),
        (torch.zeros(1, C, H, W), "is empty .all zeros.: connect VAE Encode"),
        (torch.full((1, C, H, W), float("nan")), "not finite"),
        (torch.full((1, C, H, W), float("inf")), "not finite"),
    ],
)
def test_an_unusable_reference_is_refused(latent: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_reference(latent)
