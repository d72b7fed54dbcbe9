"""Motion alignment: the twin is recovered from the original's motion (FLASH, arXiv:2503.00276, section 3.2).

The U-Net runs once on [originals, twins] along the batch. How pairs lie in its tensors is written here,
once: a backend calls `align_module`, `align_attention` and `align_queries_keys` where its layers are.
"""

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from einops import rearrange
from torch import Tensor

_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Not in the paper: all options but `tau` and `p`."""

    tau: float = 90.0
    """Channels above this percentile of motion are aligned; 100 = none, motion features stay as they are."""
    after_attention: bool = True
    """Align after each temporal attention, before its residual, and not after each motion module: the paper's
    "after a temporal attention layer" can be read both ways."""
    exclude_first: bool = False
    """Leave the clean frame 0 out of the statistics and of the exchange. The paper takes all frames; at high
    noise the way from frame 0 to the noisy ones is most of the deviation."""
    relative_to_still: bool = False
    """Choose channels by how much more they deviate than those of a still clip with the same noise: what
    answers to noise alone does not count then. It costs another call of the model on the originals, without
    gradients; docs/measured.md has the figures."""
    p: float = 0.5
    """Part of the cross-frame attentions (of Wan: self-attentions) that take the original's correspondence;
    0 = none."""
    first_frame_only: bool = False
    """Take over the correspondence with the first frame alone, and not also that within the frame."""
    detach_source: bool = False
    """No gradient flows from the twin into what it takes from the original."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.tau <= 100.0:
            raise ValueError(
                f"`tau` is a percentile between 0 and 100, but it is {self.tau}: 90 is the paper's."
            )
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"`p` must lie between 0 and 1, but it is {self.p}: 0.5 is the paper's.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Stills:
    """What channels do where nothing moves: a call of the model on still originals notes it for the next."""

    num_videos: int
    """They lie along the batch: frame 0 of each original in all frames, with the original's noise."""
    scores: dict[object, Tensor] = field(default_factory=dict)
    """`motion_scores` (B, C) of each place of the model, by the layer that is there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoCall:
    """One call of a model on whole videos: what its layers must know, in every host."""

    num_frames: int = 1
    """Of a video; the model takes it from the latents."""
    num_pairs: int = 0
    """[originals, twins] lie along the batch, so many of each; 0 = there are no twins."""
    swaps_L: Tensor | None = None
    """With pairs: the aligned layers (bool, in the model's order) whose twins take the correspondence."""
    stills: Stills | None = None
    """With pairs: what channels are chosen relative to. Without: the videos are still, and it is filled."""


def check_pairs(call: VideoCall, num_videos: int, num_layers: int) -> Tensor:
    """The draw of layers. Raises ValueError unless it is of so many, and the pairs are so many videos."""
    if num_videos != 2 * call.num_pairs:
        raise ValueError(
            f"{call.num_pairs} pairs are {2 * call.num_pairs} videos, [originals, twins] along the batch, "
            f"but there are {num_videos}."
        )
    swaps_L = call.swaps_L
    if swaps_L is None or swaps_L.shape != (num_layers,) or swaps_L.dtype != torch.bool:
        found = "missing" if swaps_L is None else f"{tuple(swaps_L.shape)} of {swaps_L.dtype}"
        raise ValueError(
            f"`swaps_L` must say yes or no for each of the model's {num_layers} attentions that can be "
            f"aligned, but it is {found}."
        )
    return swaps_L


def align_module(
    features_XCHW: Tensor, call: VideoCall, config: AlignmentConfig, place: object = None
) -> Tensor:
    """What a motion module gives for [originals, twins], with the twins' aligned (Eq. 3-4).

    For stills it is unchanged, and noted for this place of the model; without pairs and stills unchanged.
    """
    if call.num_pairs:
        height, pattern = features_XCHW.shape[-2], "(two b f) c h w -> two b f c (h w)"
        ori_BFCN, aug_BFCN = rearrange(features_XCHW, pattern, two=2, f=call.num_frames)
        aligned_BFCN = align_motion_features(ori_BFCN, aug_BFCN, config, _still_scores(call, place))
        aligned_XCHW = rearrange(aligned_BFCN, "b f c (h w) -> (b f) c h w", h=height)
        return torch.cat([features_XCHW.chunk(2)[0], aligned_XCHW])
    if call.stills:
        still_BFCN = rearrange(features_XCHW, "(b f) c h w -> b f c (h w)", f=call.num_frames)
        call.stills.scores[place] = motion_scores(still_BFCN[:, int(config.exclude_first) :])
    return features_XCHW


def align_attention(
    tokens_YFC: Tensor, call: VideoCall, config: AlignmentConfig, place: object = None
) -> Tensor:
    """What a temporal attention gives for [originals, twins], before it is added to its input; likewise."""
    if call.num_pairs:
        pattern = "(two b n) f c -> two b f c n"
        ori_BFCN, aug_BFCN = rearrange(tokens_YFC, pattern, two=2, b=call.num_pairs)
        aligned_BFCN = align_motion_features(ori_BFCN, aug_BFCN, config, _still_scores(call, place))
        return torch.cat([tokens_YFC.chunk(2)[0], rearrange(aligned_BFCN, "b f c n -> (b n) f c")])
    if call.stills:
        still_BFCN = rearrange(tokens_YFC, "(b n) f c -> b f c n", b=call.stills.num_videos)
        call.stills.scores[place] = motion_scores(still_BFCN[:, int(config.exclude_first) :])
    return tokens_YFC


def align_tokens(
    tokens_BLC: Tensor, call: VideoCall, config: AlignmentConfig, place: object = None
) -> Tensor:
    """What an attention over all frames at once gives, tokens (B, F N, C) frame by frame; likewise."""
    if call.num_pairs:
        pattern = "(two b) (f n) c -> two b f c n"
        ori_BFCN, aug_BFCN = rearrange(tokens_BLC, pattern, two=2, f=call.num_frames)
        aligned_BFCN = align_motion_features(ori_BFCN, aug_BFCN, config, _still_scores(call, place))
        return torch.cat([tokens_BLC.chunk(2)[0], rearrange(aligned_BFCN, "b f c n -> b (f n) c")])
    if call.stills:
        still_BFCN = rearrange(tokens_BLC, "b (f n) c -> b f c n", f=call.num_frames)
        call.stills.scores[place] = motion_scores(still_BFCN[:, int(config.exclude_first) :])
    return tokens_BLC


def _still_scores(call: VideoCall, place: object) -> Tensor | None:
    return call.stills.scores[place] if call.stills else None


def align_queries_keys(
    q_XNC: Tensor, k_XMC: Tensor, swap: Tensor, num_heads: int, config: AlignmentConfig
) -> tuple[Tensor, Tensor]:
    """Queries and keys [current frame; first frame] of [originals, twins], exchanged if `swap` (Eq. 5)."""
    exchange = align_correspondence
    if config.first_frame_only:
        exchange = partial(align_first_frame_correspondence, num_heads=num_heads)
    return exchange(q_XNC, k_XMC, swap, detach_source=config.detach_source)


def align_motion_features(
    ori_BFCN: Tensor, aug_BFCN: Tensor, config: AlignmentConfig, still_scores_BC: Tensor | None = None
) -> Tensor:
    """The twins' features with the originals' motion: FLASH (arXiv:2503.00276), Eq. 3-4.

    In the motion channels a twin takes the original's features, normalised over time, with its own mean and
    deviation of each position; other channels stay bit for bit. Not in the paper: statistics in fp32 or
    wider, biased deviation, 1e-6 added where it divides; scores of a still clip, which are taken off.
    """
    if config.tau == 100.0:
        return aug_BFCN
    start = int(config.exclude_first)
    target_BFCN = aug_BFCN[:, start:]
    source_BFCN = ori_BFCN[:, start:].detach() if config.detach_source else ori_BFCN[:, start:]
    scores_BC = motion_scores(source_BFCN)
    if still_scores_BC is not None:
        scores_BC = scores_BC - still_scores_BC
    channels_BK, moves_BK = motion_channels(scores_BC, config.tau)
    channels_B1K1, moves_B1K1 = (rearrange(x, "b k -> b 1 k 1") for x in (channels_BK, moves_BK))
    own_BFKN = torch.take_along_dim(target_BFCN, channels_B1K1, dim=2)
    taken_BFKN = _exchange(torch.take_along_dim(source_BFCN, channels_B1K1, dim=2), own_BFKN)
    new_BFKN = torch.where(moves_B1K1, taken_BFKN, own_BFKN)
    aligned_BFCN = target_BFCN.scatter(2, channels_B1K1.expand_as(own_BFKN), new_BFKN)
    return torch.cat([aug_BFCN[:, :start], aligned_BFCN], dim=1) if start else aligned_BFCN


@torch.no_grad()
def motion_scores(features_BFCN: Tensor) -> Tensor:
    """Motion (B, C) of each channel: its deviation over time, averaged over space. Has no gradient."""
    wide_BFCN = _wide(features_BFCN)
    centred_BFCN = wide_BFCN - wide_BFCN.mean(dim=1, keepdim=True)
    return centred_BFCN.square_().mean(dim=1).sqrt_().mean(-1)  # `std` takes 3 to 30 times as long on a CPU


def motion_channels(scores_BC: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """The set C_m: channels (B, K), and which of them (bool) score above the tau-percentile of their video.

    K is known without a look at the scores, so that CUDA need not wait.
    """
    limits_B1 = scores_BC.quantile(tau / 100, dim=1, keepdim=True)
    num_channels = scores_BC.shape[1]
    scores_BK, channels_BK = scores_BC.topk(num_channels - math.floor(tau / 100 * (num_channels - 1)))
    return channels_BK, scores_BK > limits_B1


def _exchange(source_BFKN: Tensor, target_BFKN: Tensor) -> Tensor:
    """The source's course over time with the target's mean and deviation."""
    std_B1KN, mean_B1KN = torch.std_mean(_wide(source_BFKN), dim=1, correction=0, keepdim=True)
    own_std_B1KN, own_mean_B1KN = torch.std_mean(_wide(target_BFKN), dim=1, correction=0, keepdim=True)
    normalised_BFKN = (source_BFKN - mean_B1KN) / (std_B1KN + _EPS)
    return (normalised_BFKN * own_std_B1KN + own_mean_B1KN).to(target_BFKN.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def align_correspondence(
    q_XNC: Tensor, k_XMC: Tensor, swap: Tensor, *, detach_source: bool = False
) -> tuple[Tensor, Tensor]:
    """Queries and keys in which twins have the originals' if `swap`, a bool tensor of no axes.

    The attention weights S of FLASH (arXiv:2503.00276), Eq. 5, are then the originals', as A3.2 does it.
    X counts the frames of [originals, twins].
    """
    return _take(q_XNC, swap, detach_source), _take(k_XMC, swap, detach_source)


def align_first_frame_correspondence(
    q_XNC: Tensor, k_XMC: Tensor, swap: Tensor, num_heads: int, *, detach_source: bool = False
) -> tuple[Tensor, Tensor]:
    """Queries and keys, twice as wide, by which twins take only the scores on the first frame if `swap`.

    Keys are [current frame; first frame]; scores on the current frame stay the twins' own, and one softmax
    runs over both. Not in the paper, whose keys in Eq. 5 are the first frame alone.
    """
    current_XNC, first_XNC = k_XMC.chunk(2, dim=1)
    taken_q_XNC, taken_k_XNC = align_correspondence(q_XNC, first_XNC, swap, detach_source=detach_source)
    none_XNC = torch.zeros_like(first_XNC)
    keys = [_join(none_XNC, current_XNC, num_heads), _join(taken_k_XNC, none_XNC, num_heads)]
    doubled = math.sqrt(2)  # the kernel divides scores by the square root of a head's channels
    return doubled * _join(taken_q_XNC, q_XNC, num_heads), torch.cat(keys, dim=1)


def _take(x: Tensor, swap: Tensor, detach_source: bool) -> Tensor:
    original, twin = x.chunk(2)
    return torch.cat([original, torch.where(swap, original.detach() if detach_source else original, twin)])


def _join(a_XNC: Tensor, b_XNC: Tensor, num_heads: int) -> Tensor:
    """Both side by side within each head."""
    return rearrange([a_XNC, b_XNC], "two x n (heads d) -> x n (heads two d)", heads=num_heads)


def draw_layers(num_layers: int, config: AlignmentConfig, generator: torch.Generator) -> Tensor:
    """The layers of one step that take the original's correspondence: bool (num_layers,).

    "50% of the layers, selected randomly" (A3.2). Not in the paper: exactly so many, drawn anew each step.
    """
    return torch.randperm(num_layers, generator=generator) < math.floor(config.p * num_layers + 0.5)
