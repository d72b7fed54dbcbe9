"""What RefAdapter learns from: windows of clips, and pictures from anywhere in them, encoded once."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ...files.tensor_file import check_numbers, read_tensors, short, write_tensors
from ...training.clips import Clip, Clips, Skipped
from ...training.sampling import SamplingConfig, is_long_enough, seeded, take_frames
from .encoded import EncodeMoments
from .views import fitted_frames

_STRIDE = 3
"""One frame of so many, at 24 to 30 frames a second: 8 to 10 a second, as the released code takes them."""


@dataclass(frozen=True, kw_only=True)
class RefClipConfig:
    """How much is taken of each clip.

    Deviation: the released code draws window and picture anew in each step, and encodes them there; here each
    window is learned from with each picture of its clip, and the VAE is gone before the first step.
    """

    frames: int = 49
    height: int = 480
    width: int = 720
    windows: int = 4
    """Of so many frames, each from a random start."""
    pictures: int = 16
    """Random frames of the whole clip."""

    def __post_init__(self) -> None:
        for name in ("windows", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more, but it is {getattr(self, name)}.")

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(num_frames=self.frames, stride=_STRIDE)


def long_enough(clips: Clips, config: RefClipConfig) -> Clips:
    """The clips without those that end before a window does, which the released code leaves out, too.

    Raises ValueError if none is left.
    """
    used = tuple(clip for clip in clips.used if is_long_enough(clip, config.sampling))
    seconds = f"{(config.frames - 1) / 8:.3g} s"
    if not used:
        raise ValueError(
            f"None of the {len(clips.used)} clips is long enough: {config.frames} frames are taken, 8 to 10 "
            f"a second, so give clips of {seconds} and more."
        )
    reason = f"it ends before {config.frames} frames are taken, 8 to 10 a second: {seconds} are enough"
    short_ones = tuple(Skipped(clip.path, reason) for clip in clips.used if clip not in used)
    return Clips(used, clips.skipped + short_ones, clips.others)


@dataclass(frozen=True)
class EncodedClip:
    """Means and deviations of a clip's windows (W, F, C, h, w) and pictures (P, 1, C, h, w)."""

    mean_WFCHW: Tensor
    deviation_WFCHW: Tensor
    picture_mean_P1CHW: Tensor
    picture_deviation_P1CHW: Tensor

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (F, C, h, w) of a window, and those (1, C, h, w) of a picture, in fp32."""
        drawn = []
        for mean, deviation in (
            (self.mean_WFCHW, self.deviation_WFCHW),
            (self.picture_mean_P1CHW, self.picture_deviation_P1CHW),
        ):
            number = int(torch.randint(len(mean), (), generator=generator))
            noise = torch.randn(mean.shape[1:], generator=generator)
            drawn.append(mean[number].float() + deviation[number].float() * noise)
        video_FCHW, picture_1CHW = drawn
        return video_FCHW, picture_1CHW


def drawn_windows(clip: Clip, config: RefClipConfig, seed: int, number: int) -> list[tuple[int, ...]]:
    """Frames of the windows of a clip, the so-many-th, by their numbers in it."""
    generator = seeded(seed, "windows", number)
    return [take_frames(clip, config.sampling, generator).indices for _ in range(config.windows)]


def drawn_pictures(clip: Clip, config: RefClipConfig, seed: int, number: int) -> Sequence[int]:
    """Numbers of the frames that are its pictures; a short clip's come again."""
    generator = seeded(seed, "pictures", number)
    order: list[int] = torch.randperm(clip.num_frames, generator=generator).tolist()
    return [order[place % len(order)] for place in range(config.pictures)]


def encoded_bytes(config: RefClipConfig, latents: tuple[int, int, int, int]) -> int:
    """What an encoded clip takes on the disk, whose windows have latents (F, C, h, w)."""
    frames, *picture = latents
    moments, bytes_of_fp16 = 2, 2
    return moments * bytes_of_fp16 * (config.windows * frames + config.pictures) * prod(picture)


def encode_clip(
    clip: Clip, config: RefClipConfig, encode: EncodeMoments, seed: int, number: int
) -> EncodedClip:
    """The windows and pictures of the so-many-th clip, encoded, in fp16 on the CPU."""
    pictures = [(index,) for index in drawn_pictures(clip, config, seed, number)]
    moments = []
    for group in (drawn_windows(clip, config, seed, number), pictures):
        encoded = [encode(fitted_frames(clip, one, config.height, config.width)) for one in group]
        moments += [torch.stack(of).to("cpu", torch.float16) for of in zip(*encoded, strict=True)]
    return EncodedClip(*moments)


def write_encoded_clip(path: Path, encoded: EncodedClip) -> None:
    """Write an encoded clip, whole or not at all."""
    write_tensors(path, vars(encoded), {})


def read_encoded_clip(path: Path) -> EncodedClip:
    """Read an encoded clip back. Raises ValueError if it is damaged."""
    try:
        tensors, _ = read_tensors(path)
        check_numbers(tensors, path.name)
        return EncodedClip(**tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({short(error)}): remove it, and it is made again.") from error
