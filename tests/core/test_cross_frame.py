import pytest
import torch

from flash_pack.flash_modules.attention import attend
from flash_pack.flash_modules.flash.cross_frame import with_first_frame

B, F, N, M, HEADS, D = 2, 3, 5, 7, 4, 6
C = HEADS * D


def test_with_first_frame_appends_the_first_frame_of_each_video() -> None:
    tokens_XNC = torch.randn(B * F, N, C)
    both_XMC = with_first_frame(tokens_XNC, F)
    assert both_XMC.shape == (B * F, 2 * N, C)
    for video in range(B):
        for frame in range(F):
            row = video * F + frame
            assert torch.equal(both_XMC[row, :N], tokens_XNC[row])
            assert torch.equal(both_XMC[row, N:], tokens_XNC[video * F])


def test_first_frame_attends_as_in_self_attention() -> None:
    q_XNC, k_XNC, v_XNC = torch.randn(3, B * F, N, C)
    plain_XNC = attend(q_XNC, k_XNC, v_XNC, HEADS)
    crossed_XNC = attend(q_XNC, with_first_frame(k_XNC, F), with_first_frame(v_XNC, F), HEADS)
    difference_X = (crossed_XNC - plain_XNC).norm(dim=(1, 2)) / plain_XNC.norm(dim=(1, 2))
    assert difference_X[::F].max() <= 2e-7
    assert difference_X.reshape(B, F)[:, 1:].min() > 0.1


def test_frames_that_do_not_fill_videos_are_refused() -> None:
    with pytest.raises(Exception, match=r"can't divide axis"):
        with_first_frame(torch.zeros(B * F + 1, N, C), F)
