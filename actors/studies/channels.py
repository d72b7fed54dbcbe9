"""`python -m actors channels`: whether the channels that alignment chooses move, or answer to noise."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from flash_modules.animatediff.motion_module import TemporalAttention
from flash_modules.backends.diffusers.sd15 import encode_picture, encode_prompt
from flash_modules.flash.augment import AugmentConfig, draw_augmentation, restyle
from flash_modules.flash.motion_alignment import AlignmentConfig, motion_channels, motion_scores
from flash_modules.flash.training.noise_law import DiffusionNoise
from flash_modules.training.sampling import seeded

from ..base.small_base import FOLDER, SmallBase, load_small_base
from ..world.actions import HELD_OUT_ACTIONS
from ..world.clips import clip_video, make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion

TIMESTEPS = (100, 300, 500, 700, 900)
_SEED = 7 * 10**6


@dataclass(frozen=True, kw_only=True)
class Found:
    """Of one layer, clip and timestep."""

    as_still: float
    """Share of the chosen channels that a still clip with the same noise has chosen, too."""
    moves: float
    """How many times as much the chosen ones deviate over time as in the still clip; 1 is noise alone."""
    like_twin: float
    """Correlation over time with the twin's, whose noise is another."""
    like_twin_in_its_noise: float
    """The same with the noise of the original."""


CHOICES: Mapping[str, tuple[bool, bool]] = {
    "all frames: the paper's": (False, False),
    "frame 0 left out": (True, False),
    "beyond a still clip": (False, True),
}
"""Whether frame 0 is left out, and whether what a still clip deviates is taken off."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `channels`."""
    parser.description = (
        "Choose motion channels of true clips at several timesteps, and of the same clips standing still in "
        "the same noise: what both choose answers to noise and not to motion."
    )
    parser.set_defaults(run=print_tables)
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--clips", type=int, default=2, help="of each held-out action (default %(default)s)")


def print_tables(args: argparse.Namespace) -> None:
    """A row for each choice, a column for each timestep."""
    base, alignment = load_small_base(args.base), AlignmentConfig()
    found: dict[tuple[str, int], list[Found]] = {}
    clips = [(action, i) for action in HELD_OUT_ACTIONS for i in range(args.clips)]
    for action, i in tqdm(clips, desc="Channels", unit="clip", leave=False):
        for timestep in TIMESTEPS:
            features = _features(base, action, _SEED + i, timestep)
            for choice, (exclude_first, beyond_still) in CHOICES.items():
                of = found.setdefault((choice, timestep), [])
                of += (
                    _found(layer_VFCN[:, int(exclude_first) :], alignment.tau, beyond_still)
                    for layer_VFCN in features
                )
    for name in Found.__dataclass_fields__:
        print(f"| {name} | {' | '.join(map(str, TIMESTEPS))} |\n{'| --- ' * (len(TIMESTEPS) + 1)}|")
        for choice in CHOICES:
            cells = [fmean(getattr(one, name) for one in found[choice, t]) for t in TIMESTEPS]
            print(f"| {choice} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
        print()


@torch.inference_mode()
def _features(base: SmallBase, action: str, seed: int, timestep: int) -> list[Tensor]:
    """What each temporal attention gives (V, F, C, N): of a clip, its still, and its twin in two noises."""
    clip = make_clip(draw_motion(action, seed, close=True), draw_look(seed), size=base.size)
    video_FCHW = rearrange(clip_video(clip), "f h w c -> f c h w")
    drawn = draw_augmentation(AugmentConfig(size=base.size), seeded(seed, "twin"))
    latents_FCHW, twin_FCHW = (
        encode_picture(base.base.vae, rearrange(video, "f c h w -> f h w c"))
        for video in (video_FCHW, restyle(video_FCHW, drawn))
    )
    still_FCHW = latents_FCHW[:1].expand_as(latents_FCHW)
    latents_VFCHW = torch.stack([latents_FCHW, still_FCHW, twin_FCHW, twin_FCHW])
    own, other = torch.randn(2, *latents_FCHW.shape, generator=seeded(seed, "channels", timestep))
    noise_VFCHW = torch.stack([own, own, other, own])
    timestep_V = torch.full((4,), timestep)
    text_embeds_VMC = encode_prompt(base.base, clip.caption).expand(4, -1, -1)
    with _watched(base) as seen:
        noised_VFCHW = DiffusionNoise(base.base.prediction).noised(latents_VFCHW, noise_VFCHW, timestep_V)
        base.model.predict(noised_VFCHW, timestep_V, text_embeds_VMC)
    return [rearrange(tokens_YFC, "(v n) f c -> v f c n", v=4) for tokens_YFC in seen]


@contextmanager
def _watched(base: SmallBase) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    layers = (layer for layer in base.model.motion.modules() if isinstance(layer, TemporalAttention))
    hooks = [layer.register_forward_hook(lambda layer, args, out: seen.append(out)) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _found(features_VFCN: Tensor, tau: float, beyond_still: bool) -> Found:
    clip_FCN, _, twin_FCN, twin_in_its_noise_FCN = features_VFCN
    moving_C, still_C = motion_scores(features_VFCN[:2])
    chosen = _chosen(moving_C - still_C if beyond_still else moving_C, tau)
    return Found(
        as_still=len(chosen & _chosen(still_C, tau)) / len(chosen),
        moves=fmean(float(moving_C[c] / still_C[c]) for c in chosen),
        like_twin=_correlation(clip_FCN, twin_FCN, chosen),
        like_twin_in_its_noise=_correlation(clip_FCN, twin_in_its_noise_FCN, chosen),
    )


def _chosen(scores_C: Tensor, tau: float) -> set[int]:
    (channels_K,), (moves_K,) = motion_channels(scores_C[None], tau)
    return set(channels_K[moves_K].tolist())


def _correlation(a_FCN: Tensor, b_FCN: Tensor, channels: set[int]) -> float:
    """Of their courses over time, the mean over the channels and positions."""
    a, b = (x[:, sorted(channels)] - x[:, sorted(channels)].mean(0) for x in (a_FCN, b_FCN))
    return float(torch.cosine_similarity(a, b, dim=0).mean())
