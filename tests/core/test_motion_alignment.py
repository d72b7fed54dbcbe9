import math
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from flash_pack.flash_modules.attention import attend
from flash_pack.flash_modules.flash.motion_alignment import (
    AlignmentConfig,
    Stills,
    VideoCall,
    align_attention,
    align_correspondence,
    align_first_frame_correspondence,
    align_module,
    align_motion_features,
    align_tokens,
    draw_layers,
    motion_channels,
    motion_scores,
)

B, F, C, N = 2, 5, 11, 3
HEADS, D = 2, 4
ALL = AlignmentConfig(tau=0.0)
"""All channels but the stillest, of all frames."""


def features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Positions and channels with means and deviations of their own."""
    generator = torch.Generator().manual_seed(seed)
    *_, channels, positions = shape
    scale, shift = torch.rand(2, channels, positions, generator=generator, dtype=torch.float64) + 0.5
    noise = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return (noise * scale * torch.linspace(0.5, 2, channels)[:, None] + 3 * shift).to(dtype)


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def slow_motion_channels(ori_FCN: Tensor, tau: float) -> list[int]:
    _, channels, positions = ori_FCN.shape
    s = [
        sum(mean_and_deviation(ori_FCN[:, c, n].tolist())[1] for n in range(positions)) / positions
        for c in range(channels)
    ]
    place = tau / 100 * (channels - 1)
    low, high = sorted(s)[math.floor(place)], sorted(s)[math.ceil(place)]
    limit = low + (high - low) * (place - math.floor(place))
    return [c for c in range(channels) if s[c] > limit]


def slow_align(ori_FCN: Tensor, aug_FCN: Tensor, tau: float, start: int = 0) -> Tensor:
    """Eq. 3-4, number by number."""
    out_FCN = aug_FCN.clone()
    for c in slow_motion_channels(ori_FCN[start:], tau):
        for n in range(ori_FCN.shape[2]):
            mean, deviation = mean_and_deviation(ori_FCN[start:, c, n].tolist())
            own_mean, own_deviation = mean_and_deviation(aug_FCN[start:, c, n].tolist())
            for f in range(start, ori_FCN.shape[0]):
                normalised = (float(ori_FCN[f, c, n]) - mean) / (deviation + 1e-6)
                out_FCN[f, c, n] = normalised * own_deviation + own_mean
    return out_FCN


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    return features(B, F, C, N, seed=1), features(B, F, C, N, seed=2)


@pytest.mark.parametrize("exclude_first", [False, True])
@pytest.mark.parametrize("tau", [0.0, 25.0, 50.0, 70.0, 75.0, 90.0])
def test_equation_3_and_4_equal_a_loop(pair: tuple[Tensor, Tensor], tau: float, exclude_first: bool) -> None:
    found = align_motion_features(*pair, AlignmentConfig(tau=tau, exclude_first=exclude_first))
    for ori_FCN, aug_FCN, found_FCN in zip(*pair, found, strict=True):
        expected_FCN = slow_align(ori_FCN, aug_FCN, tau, start=int(exclude_first))
        torch.testing.assert_close(found_FCN, expected_FCN, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(found_FCN, aug_FCN, atol=0.1)


@pytest.mark.parametrize(
    ("channels", "tau", "count"),
    [
        (320, 90, 32),
        (640, 90, 64),
        (1280, 90, 128),
        (320, 75, 80),
        (320, 50, 160),
        (11, 70, 3),
        (320, 100, 0),
    ],
)
def test_a_tenth_of_the_channels_are_motion_channels(channels: int, tau: float, count: int) -> None:
    scores_BC = motion_scores(features(B, F, channels, N))
    found_BK, moves_BK = motion_channels(scores_BC, tau)
    for scores_C, found_K, moves_K in zip(scores_BC, found_BK, moves_BK, strict=True):
        assert set(found_K[moves_K].tolist()) == set(scores_C.sort().indices[channels - count :].tolist())
        assert len(found_K) == len(set(found_K.tolist())) <= count + 1


def test_the_percentile_counts_ties_as_not_above() -> None:
    scores_BC = torch.tensor([[1.0, 3, 3, 3, 2, 0], [5, 5, 5, 5, 5, 5]])
    channels_BK, moves_BK = motion_channels(scores_BC, 50.0)  # medians 2.5 and 5
    assert set(channels_BK[0][moves_BK[0]].tolist()) == {1, 2, 3}
    assert not moves_BK[1].any()


def test_a_still_original_changes_nothing() -> None:
    frames = 4  # whose mean, of equal numbers, is exactly theirs
    ori, aug = features(B, 1, C, N).expand(B, frames, C, N), features(B, frames, C, N, seed=2)
    assert torch.equal(align_motion_features(ori, aug, AlignmentConfig()), aug)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tau", [50.0, 90.0])
def test_other_channels_are_bit_for_bit_unchanged(dtype: torch.dtype, tau: float) -> None:
    ori, aug = features(B, F, C, N, seed=1, dtype=dtype), features(B, F, C, N, seed=2, dtype=dtype)
    out = align_motion_features(ori, aug, AlignmentConfig(tau=tau, exclude_first=False))
    assert out.dtype == dtype
    for b in range(B):
        moving = slow_motion_channels(ori[b].double(), tau)
        for c in range(C):
            assert torch.equal(out[b, :, c], aug[b, :, c]) == (c not in moving)


def test_twin_keeps_its_own_mean_and_deviation() -> None:
    ori, aug = (features(B, F, C, N, seed=seed, dtype=torch.float32) for seed in (1, 2))
    out = align_motion_features(ori, aug, ALL)
    for b in range(B):
        for c in range(C):
            for n in range(N):
                own, found = (mean_and_deviation(x[b, :, c, n].tolist()) for x in (aug, out))
                assert found == pytest.approx(own, rel=5e-6)


def test_an_original_is_its_own_twin() -> None:
    ori = features(B, F, C, N, dtype=torch.float32)
    torch.testing.assert_close(align_motion_features(ori, ori, ALL), ori, rtol=4e-6, atol=4e-6)


def test_a_twin_of_other_scale_and_shift_is_unchanged() -> None:
    ori = features(B, F, C, N, dtype=torch.float32)
    scale, shift = torch.rand(2, B, 1, C, N) + 0.5
    aug = scale * ori + shift
    torch.testing.assert_close(align_motion_features(ori, aug, ALL), aug, rtol=6e-6, atol=6e-6)


def test_the_originals_course_over_time_is_taken_over(pair: tuple[Tensor, Tensor]) -> None:
    ori, aug = pair
    out = align_motion_features(ori, aug, ALL)
    for b in range(B):
        stillest = int(motion_scores(ori)[b].argmin())
        for c in set(range(C)) - {stillest}:
            for n in range(N):
                of_ori = torch.stack([ori[b, :, c, n], out[b, :, c, n]]).corrcoef()[0, 1]
                assert of_ori == pytest.approx(1.0, abs=1e-9)


def test_statistics_of_half_precision_are_taken_in_fp32() -> None:
    ori, aug = (100 + features(1, 16, C, N, seed=seed).to(torch.bfloat16) for seed in (1, 2))
    found = align_motion_features(ori, aug, AlignmentConfig(tau=50.0))
    expected = align_motion_features(ori.float(), aug.float(), AlignmentConfig(tau=50.0))
    assert torch.equal(found, expected.bfloat16())


def test_tau_100_is_off(pair: tuple[Tensor, Tensor]) -> None:
    assert align_motion_features(*pair, AlignmentConfig(tau=100.0)) is pair[1]


def test_frame_0_takes_no_part_where_it_is_left_out(pair: tuple[Tensor, Tensor]) -> None:
    ori, aug = pair
    config = AlignmentConfig(tau=50.0, exclude_first=True)
    out = align_motion_features(ori, aug, config)
    assert torch.equal(out[:, 0], aug[:, 0])
    for noisy in (ori, aug):
        noisy[:, 0] += 100
    assert torch.equal(align_motion_features(ori, aug, config)[:, 1:], out[:, 1:])


def test_all_frames_take_part_and_moving_channels_are_chosen_unless_said_otherwise() -> None:
    """As the paper words it; and what follows the first attention is what follows "a temporal attention"."""
    assert AlignmentConfig() == AlignmentConfig(
        tau=90.0,
        after_attention=True,
        exclude_first=False,
        relative_to_still=False,
        p=0.5,
        first_frame_only=False,
        detach_source=False,
    )


def course(slope: float, frames: int = 16) -> Tensor:
    """One video of one channel, which goes its way at all positions."""
    return torch.linspace(-slope, slope, frames, dtype=torch.float64).view(1, frames, 1, 1)


def test_motion_is_found_beside_noise_that_deviates_more() -> None:
    """Channel 5 goes its way, and the noise in the others deviates three times as much, as without motion."""
    still, twin = (4 * features(1, 16, C, 40, seed=seed) for seed in (3, 4))
    still[:, :, 5] /= 10
    moving = still.clone()
    moving[:, :, 5:6] += course(2.0)
    config = AlignmentConfig(relative_to_still=True)

    def taken(still_scores_BC: Tensor | None) -> list[int]:
        out = align_motion_features(moving, twin, config, still_scores_BC)
        return [c for c in range(C) if not torch.equal(out[0, :, c], twin[0, :, c])]

    assert taken(motion_scores(still)) == [5]
    assert 5 not in taken(None)


@pytest.mark.parametrize("exclude_first", [False, True])
def test_a_call_on_stills_notes_what_the_next_call_chooses_by(exclude_first: bool) -> None:
    """After attentions and modules alike; stills come back as they went in."""
    config = AlignmentConfig(relative_to_still=True, exclude_first=exclude_first, tau=50.0)
    height, width = 2, 3
    still, ori, aug = (features(B, F, C, height * width, seed=seed) for seed in (1, 2, 3))
    scores_BC = motion_scores(still[:, int(exclude_first) :])
    expected = torch.cat([ori, align_motion_features(ori, aug, config, scores_BC)])
    assert not torch.equal(expected, torch.cat([ori, align_motion_features(ori, aug, config)]))
    for align, pattern in (
        (align_attention, "b f c n -> (b n) f c"),
        (align_module, "b f c n -> (b f) c n"),
        (align_tokens, "b f c n -> b (f n) c"),
    ):
        stills = Stills(num_videos=B)

        def folded(video_BFCN: Tensor, module: bool = align is align_module, p: str = pattern) -> Tensor:
            out = rearrange(video_BFCN, p)
            return out.unflatten(-1, (height, width)) if module else out

        call = VideoCall(num_frames=F, stills=stills)
        assert torch.equal(align(folded(still), call, config, "here"), folded(still))
        call = VideoCall(num_frames=F, num_pairs=B, stills=stills)
        assert torch.equal(align(folded(torch.cat([ori, aug])), call, config, "here"), folded(expected))


def test_videos_do_not_mix(pair: tuple[Tensor, Tensor]) -> None:
    ori, aug = pair
    alone = align_motion_features(ori[1:], aug[1:], AlignmentConfig())
    assert torch.equal(align_motion_features(ori, aug, AlignmentConfig())[1:], alone)


def test_nothing_is_written_to(pair: tuple[Tensor, Tensor]) -> None:
    kept = [x.clone() for x in pair]
    align_motion_features(*pair, ALL)
    assert all(torch.equal(x, k) for x, k in zip(pair, kept, strict=True))


def gradients(detach_source: bool) -> tuple[Tensor | None, Tensor]:
    ori, aug = (features(1, F, C, 2, seed=seed).requires_grad_() for seed in (1, 2))
    config = AlignmentConfig(tau=50.0, detach_source=detach_source)
    (align_motion_features(ori, aug, config) ** 3).sum().backward()
    assert aug.grad is not None
    return ori.grad, aug.grad


def test_gradients_are_those_of_the_equation() -> None:
    ori, aug = (features(1, 4, 6, 2, seed=seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(
        lambda *pair: align_motion_features(*pair, AlignmentConfig(tau=50.0)), (ori, aug)
    )


def test_gradients_reach_the_original_in_motion_channels_alone_and_never_if_detached() -> None:
    ori_grad, aug_grad = gradients(detach_source=False)
    assert ori_grad is not None
    moving = slow_motion_channels(features(1, F, C, 2, seed=1)[0], 50.0)
    assert [c for c in range(C) if ori_grad[0, :, c].any()] == moving
    detached_ori_grad, detached_aug_grad = gradients(detach_source=True)
    assert detached_ori_grad is None
    assert torch.equal(detached_aug_grad, aug_grad)


def test_a_still_channel_has_finite_gradients() -> None:
    ori, aug = features(1, F, C, N, seed=1), features(1, F, C, N, seed=2)
    ori[..., 0] = ori[:, :1, :, 0]  # one position stands still
    aug[..., 1] = aug[:, :1, :, 1]
    ori.requires_grad_()
    aug.requires_grad_()
    out = align_motion_features(ori, aug, ALL)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert ori.grad is not None
    assert ori.grad.isfinite().all()
    assert aug.grad is not None
    assert aug.grad.isfinite().all()


# Correspondence: frames of [original, twin], keys and values of [current frame; first frame].

X = 2 * F


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    q_XNC = torch.randn(X, N, HEADS * D, dtype=torch.float64)
    k_XMC, v_XMC = torch.randn(2, X, 2 * N, HEADS * D, dtype=torch.float64)
    return q_XNC, k_XMC, v_XMC


def score(q_XNC: Tensor, k_XMC: Tensor, x: int, n: int, m: int, head: int) -> float:
    part = slice(head * D, (head + 1) * D)
    return float(q_XNC[x, n, part] @ k_XMC[x, m, part]) / D**0.5


def slow_swap(q_XNC: Tensor, k_XMC: Tensor, v_XMC: Tensor, *, first_frame_only: bool) -> Tensor:
    """Eq. 5 for every frame, head and token: the twin's scores are exchanged, its values are not."""
    out = torch.zeros_like(q_XNC)
    for x in range(X):
        for head in range(HEADS):
            for n in range(N):
                scores = [
                    score(
                        q_XNC, k_XMC, x - F if x >= F and not (first_frame_only and m < N) else x, n, m, head
                    )
                    for m in range(2 * N)
                ]
                total = sum(math.exp(s) for s in scores)
                for m, s in enumerate(scores):
                    part = slice(head * D, (head + 1) * D)
                    out[x, n, part] += math.exp(s) / total * v_XMC[x, m, part]
    return out


YES, NO = torch.tensor(True), torch.tensor(False)


def test_swapping_queries_and_keys_swaps_the_attention_weights(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    q_XNC, k_XMC, v_XMC = qkv
    found = attend(*align_correspondence(q_XNC, k_XMC, YES), v_XMC, HEADS)
    expected = slow_swap(*qkv, first_frame_only=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(attend(*qkv, HEADS)[F:], expected[F:], atol=0.1)


def test_first_frame_part_alone_swaps_those_scores_under_one_softmax(
    qkv: tuple[Tensor, Tensor, Tensor],
) -> None:
    q_XNC, k_XMC, v_XMC = qkv
    found = attend(*align_first_frame_correspondence(q_XNC, k_XMC, YES, HEADS), v_XMC, HEADS)
    expected = slow_swap(*qkv, first_frame_only=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for other in (attend(*qkv, HEADS), slow_swap(*qkv, first_frame_only=False)):
        assert not torch.allclose(other[F:], expected[F:], atol=0.1)
    off = attend(*align_first_frame_correspondence(q_XNC, k_XMC, NO, HEADS), v_XMC, HEADS)
    torch.testing.assert_close(off, attend(*qkv, HEADS), rtol=1e-12, atol=1e-12)


def test_without_a_swap_queries_and_keys_stay(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    q_XNC, k_XMC, _ = qkv
    found_q, found_k = align_correspondence(q_XNC, k_XMC, NO)
    assert torch.equal(found_q, q_XNC)
    assert torch.equal(found_k, k_XMC)


def test_originals_are_bit_for_bit_unchanged_by_a_swap(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    q_XNC, k_XMC, v_XMC = (x.float() for x in qkv)
    plain = attend(q_XNC, k_XMC, v_XMC, HEADS)
    swapped = attend(*align_correspondence(q_XNC, k_XMC, YES), v_XMC, HEADS)
    assert torch.equal(swapped[:F], plain[:F])
    wide = [
        attend(*align_first_frame_correspondence(q_XNC, k_XMC, swap, HEADS), v_XMC, HEADS)
        for swap in (YES, NO)
    ]
    assert torch.equal(wide[0][:F], wide[1][:F])


@pytest.mark.parametrize("detach_source", [False, True])
def test_gradients_of_a_swap(qkv: tuple[Tensor, Tensor, Tensor], detach_source: bool) -> None:
    q_XNC, k_XMC, v_XMC = (x.requires_grad_() for x in qkv)
    q, k = align_correspondence(q_XNC, k_XMC, YES, detach_source=detach_source)
    attend(q, k, v_XMC, HEADS)[F:].square().sum().backward()  # of the twin alone
    for x in (q_XNC, k_XMC):
        assert x.grad is not None
        assert not x.grad[F:].any()
        assert bool(x.grad[:F].any()) != detach_source
    assert v_XMC.grad is not None
    assert v_XMC.grad[F:].any()
    assert not v_XMC.grad[:F].any()


def drawn(count: int, num_layers: int = 16, **settings: Any) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    config = AlignmentConfig(**settings)
    return torch.stack([draw_layers(num_layers, config, generator) for _ in range(count)])


@pytest.mark.parametrize(
    ("num_layers", "p", "count"), [(16, 0.5, 8), (16, 1.0, 16), (16, 0.0, 0), (5, 0.5, 3), (16, 0.25, 4)]
)
def test_exactly_so_many_layers_are_drawn_anew_each_step(num_layers: int, p: float, count: int) -> None:
    draws_SL = drawn(2000, num_layers, p=p)
    assert draws_SL.dtype == torch.bool
    assert (draws_SL.sum(1) == count).all()
    assert (draws_SL.double().mean(0) - count / num_layers).abs().max() < 0.05
    assert len(draws_SL.unique(dim=0)) > (500 if count == 8 else 0)


def test_layers_follow_the_generator() -> None:
    assert torch.equal(drawn(20), drawn(20))


@pytest.mark.parametrize("tau", [-1.0, 100.5, float("nan")])
def test_tau_is_a_percentile(tau: float) -> None:
    with pytest.raises(ValueError, match=r"`tau` is a percentile between 0 and 100, but it is"):
        AlignmentConfig(tau=tau)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_is_a_part(p: float) -> None:
    with pytest.raises(ValueError, match=r"`p` must lie between 0 and 1, but it is"):
        AlignmentConfig(p=p)
