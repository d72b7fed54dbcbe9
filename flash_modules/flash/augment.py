"""The strongly augmented twin of a clip: other looks, same motion (FLASH, arXiv:2503.00276, A2.2, A3.2)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Ranges that the draws of a clip come from. Not in the paper: sizes of the crop, chance of a flip."""

    size: int = 512
    """Height in pixels of both videos, and their width unless there is one."""
    width: int | None = None
    """In pixels; None = squares."""
    zoom: float = 1.15
    """Pictures are scaled so that they cover the crop by 1 to `zoom` before it is cut out."""
    flip: float = 0.5
    """Chance of a horizontal flip."""
    kernels: tuple[int, ...] = (3, 5, 7, 9)
    """Sizes in pixels of the blur: the odd ones of the paper's 3 to 10, for even ones have no centre."""
    kernels_of: int = 512
    """Pixels on a side of the picture that has such kernels; one of another size is blurred in proportion.
    Not in the paper, whose pictures are of 512."""
    colour: float = 0.5
    """Brightness, contrast and saturation are multiplied by 1 - colour to 1 + colour."""
    hue: float = 0.25
    """Hue turns by up to this part of the circle, both ways."""

    def __post_init__(self) -> None:
        for name, pixels in (("size", self.size), ("width", self.shape[1])):
            if pixels < 8 or pixels % 8:
                raise ValueError(
                    f"`{name}` must be a multiple of 8 pixels, but it is {pixels}: 512 is the paper's."
                )
        if not 1.0 <= self.zoom <= 4.0:
            raise ValueError(f"`zoom` must lie between 1 and 4, but it is {self.zoom}: 1 crops the least.")
        if not 0.0 <= self.flip <= 1.0:
            raise ValueError(f"`flip` is a chance between 0 and 1, but it is {self.flip}.")
        limit = 2 * self.kernels_of
        if not self.kernels or any(k < 1 or k % 2 == 0 or k >= limit for k in self.kernels):
            raise ValueError(
                f"`kernels` must be odd numbers of pixels below 2 x `kernels_of` ({limit}), but they are "
                f"{self.kernels}: (3, 5, 7, 9) are the usual ones."
            )
        if not 0.0 <= self.colour <= 1.0:
            raise ValueError(
                f"`colour` must lie between 0 and 1, but it is {self.colour}: 0.5 is the paper's."
            )
        if not 0.0 <= self.hue <= 0.5:
            raise ValueError(f"`hue` must lie between 0 and 0.5, but it is {self.hue}: 0.25 is the paper's.")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of both videos."""
        return self.size, self.width or self.size

    @property
    def short_side(self) -> int:
        """Pixels of a clip's short side from which every crop is made smaller, and none larger."""
        return int(max(self.shape) * self.zoom) + 1

    @property
    def side(self) -> int:
        """Pixels of the square that is as large as the videos."""
        return math.isqrt(math.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What was drawn for one clip; the same for all of its frames."""

    flip: bool
    zoom: float
    top: float
    left: float
    """Where the crop lies: 0 to 1 of the room that there is."""
    kernel: int
    """Pixels, at the crop's own size; 1 is no blur."""
    colours: tuple[tuple[str, float], ...]
    """Names and amounts, in the order in which they are applied."""


def draw_augmentation(config: AugmentConfig, generator: torch.Generator) -> Augmentation:
    """One clip's draws. The same generator state gives the same draws, whatever the ranges are."""
    flip, zoom, top, left, kernel, *amounts = torch.rand(9, generator=generator, dtype=torch.float64).tolist()
    order = torch.randperm(len(_COLOURS), generator=generator).tolist()
    widths = {name: config.hue if name == "hue" else config.colour for name in _COLOURS}
    centres = {name: 0.0 if name == "hue" else 1.0 for name in _COLOURS}
    drawn = [
        (name, centres[name] + widths[name] * (2 * amount - 1))
        for name, amount in zip(_COLOURS, amounts, strict=True)
    ]
    return Augmentation(
        flip=flip < config.flip,
        zoom=1 + (config.zoom - 1) * zoom,
        top=top,
        left=left,
        kernel=kernel_at(config.kernels[int(kernel * len(config.kernels))], config.side, config.kernels_of),
        colours=tuple(drawn[i] for i in order),
    )


def kernel_at(kernel: int, size: int, of: int = 512) -> int:
    """The odd kernel that blurs a picture of that size as `kernel` blurs one of size `of`; 1 is no blur."""
    return max(1, 2 * round((kernel * size / of - 1) / 2) + 1)


def strange_hues(config: AugmentConfig) -> tuple[float, float]:
    """The hues, as parts of the circle, both ways, of looks that training never draws: for an exam."""
    if config.hue >= 0.5:
        raise ValueError(
            f"With a `hue` of {config.hue} every colour is trained on, and none is left for an exam: set it "
            "below 0.5, or take no exam."
        )
    return (config.hue + 0.5) / 2, 0.5


def strange_look(drawn: Augmentation, config: AugmentConfig, generator: torch.Generator) -> Augmentation:
    """The same but for the hue, which is one of `strange_hues`."""
    least, most = strange_hues(config)
    share, sign = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    turn = (least + (most - least) * share) * (1 if sign < 0.5 else -1)
    colours = ((name, turn if name == "hue" else amount) for name, amount in drawn.colours)
    return replace(drawn, colours=tuple(colours))


def augmented_pair(video_FCHW: Tensor, shape: tuple[int, int], drawn: Augmentation) -> tuple[Tensor, Tensor]:
    """The original and its twin, both flipped and cropped alike to (height, width); RGB in [0, 1]."""
    if video_FCHW.ndim != 4 or video_FCHW.shape[1] != 3 or not video_FCHW.is_floating_point():
        raise ValueError(
            "A clip must be RGB frames (frames, 3, height, width) of floats between 0 and 1, but it is "
            f"{tuple(video_FCHW.shape)} of {video_FCHW.dtype}."
        )
    original_FCHW = crop(video_FCHW, shape, drawn)
    return original_FCHW, restyle(original_FCHW, drawn)


def crop(video_FCHW: Tensor, shape: tuple[int, int], drawn: Augmentation) -> Tensor:
    """The drawn window of all frames, of this height and width, flipped if that was drawn.

    Not in the paper: sizes are reached by bilinear scaling that keeps the aspect, without aliases.
    """
    height, width = video_FCHW.shape[-2:]
    rows, columns = shape
    scale = max(rows * drawn.zoom / height, columns * drawn.zoom / width)
    height, width = max(rows, round(height * scale)), max(columns, round(width * scale))
    scaled_FCHW = interpolate(video_FCHW, (height, width), mode="bilinear", antialias=True)
    top, left = int(drawn.top * (height - rows + 1)), int(drawn.left * (width - columns + 1))
    window_FCHW = scaled_FCHW[..., top : top + rows, left : left + columns]
    window_FCHW = window_FCHW.clamp(0, 1)  # rounding of the scaling; and a view would keep all pixels alive
    return window_FCHW.flip(-1) if drawn.flip else window_FCHW


def restyle(video_FCHW: Tensor, drawn: Augmentation) -> Tensor:
    """The twin: blurred, then with other colours, all frames alike."""
    return recolour(blur(video_FCHW, drawn.kernel), drawn.colours)


def blur(video_FCHW: Tensor, kernel: int) -> Tensor:
    """Blurred by a Gaussian kernel of so many pixels.

    Not in the paper: sigma is 0.15 k + 0.35 for a kernel of k pixels, as torchvision and OpenCV have it.
    """
    sigma = 0.15 * kernel + 0.35
    return gaussian_blur2d(video_FCHW, (kernel, kernel), (sigma, sigma)).clamp(0, 1)


def recolour(video_FCHW: Tensor, colours: Sequence[tuple[str, float]]) -> Tensor:
    """With these changes of colour, one after the other, all frames alike."""
    for name, amount in colours:
        video_FCHW = _COLOURS[name](video_FCHW, amount)
    return video_FCHW


def _contrast(video_FCHW: Tensor, factor: float) -> Tensor:
    """Contrast about the grey mean of the clip. ColorJitter's is that of each picture, which flickers."""
    tall_CHW = adjust_contrast_with_mean_subtraction(rearrange(video_FCHW, "f c h w -> c (f h) w"), factor)
    return rearrange(tall_CHW, "c (f h) w -> f c h w", f=video_FCHW.shape[0])


def _hue(video_FCHW: Tensor, turns: float) -> Tensor:
    return adjust_hue(video_FCHW, 2 * math.pi * turns)


_COLOURS: dict[str, Callable[[Tensor, float], Tensor]] = {  # ColorJitter's four, by kornia
    "brightness": adjust_brightness_accumulative,
    "contrast": _contrast,
    "saturation": adjust_saturation_with_gray_subtraction,
    "hue": _hue,
}
