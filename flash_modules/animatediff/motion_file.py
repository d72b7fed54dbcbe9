"""Motion module files: AnimateDiff v1, v2, v3, AnimateLCM, and diffusers' MotionAdapter."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ..files.tensor_file import Tensors, check_numbers, fingerprint, read_tensors, some
from .motion_layout import NEEDED, POSITIONS, animatediff_names, layout, plain_motion
from .motion_module import MotionConfig, MotionModel, sinusoidal_positions

Version = Literal["v1", "v2", "v3", "AnimateLCM"]
VERSIONS: tuple[Version, ...] = get_args(Version)

_MAX_POSITIONS, _MAX_WIDTH = 1024, 2560
"""More than any motion module has; numbers in a file, from which tensors are made, may be of any size."""
_FRAMES, _LCM_FRAMES = 32, 64
"""Positions of AnimateDiff v2 and v3, and of AnimateLCM's own code, for files that store none."""


@dataclass(frozen=True, kw_only=True)
class MotionWeights:
    """A motion module as read from a file."""

    name: str
    version: Version
    reason: str
    """By which sign the version was decided."""
    config: MotionConfig
    tensors: Tensors
    """AnimateDiff names, without positions: those are computed."""
    note: str = ""
    """Which of several weights in the file were taken, if there were several."""

    @cached_property
    def sha256(self) -> str:
        return fingerprint(self.tensors)

    @property
    def summary(self) -> str:
        dtype, _ = Counter(t.dtype for t in self.tensors.values()).most_common(1)[0]
        modules = sum(1 for _ in self.config.places())
        kind = self.version if self.version == "AnimateLCM" else f"AnimateDiff {self.version}"
        return (
            f"{self.name}: {kind} ({self.reason}), {modules} modules, "
            f"up to {self.config.max_frames} frames, {str(dtype).removeprefix('torch.')}"
            f"{self.note and f'; {self.note}'}"
        )


def read_motion(path: Path, version: str = "auto") -> MotionWeights:
    """Read a motion module file; `version` overrides what is told from the file.

    Raises ValueError, saying what the file is, for anything but a complete module for SD 1.5.
    """
    tensors, metadata = read_tensors(path)
    if "flash.format" in metadata:
        raise ValueError(
            f"{path.name} is a FLASH action, not a motion module: move it to models/flash_actions, and use "
            "Load Action."
        )
    return motion_weights(tensors, path.name, version)


def motion_weights(tensors: Mapping[str, Tensor], file_name: str, version: str = "auto") -> MotionWeights:
    """Tell the version and layout of motion tensors, and check that they are complete and sane."""
    chosen = next((known for known in VERSIONS if known == version), None)
    if chosen is None and version != "auto":
        raise ValueError(f"`version` must be auto or one of {', '.join(VERSIONS)}, but it is '{version}'.")
    plain, has_prefix, note = plain_motion(tensors, file_name)
    motion = animatediff_names(plain, file_name)
    positions = {name: motion.pop(name) for name in list(motion) if name.endswith(POSITIONS)}
    rows = _check_positions(positions, file_name)
    has_mid = any(name.startswith("mid_block.") for name in motion)
    if chosen:
        told, reason = chosen, "chosen by you"
    else:
        told, reason = _tell_version(file_name, rows, has_mid=has_mid, has_prefix=has_prefix)
    max_frames = rows or (_LCM_FRAMES if told == "AnimateLCM" else _FRAMES)
    config = layout(motion, max_frames=max_frames, pool_resnet_norms=told == "v1")
    _check_levels(config, file_name)
    _check_complete(motion, config, file_name)
    check_numbers(motion, file_name)
    name = Path(file_name).stem
    return MotionWeights(name=name, version=told, reason=reason, config=config, tensors=motion, note=note)


def _tell_version(file_name: str, rows: int, *, has_mid: bool, has_prefix: bool) -> tuple[Version, str]:
    """The version and what decided it. Files of AnimateDiff's train.py have a prefix and no positions."""
    mid, stored = "a" if has_mid else "no", rows or "no"
    sign = f"{mid} middle block and {stored} stored positions"
    if "lcm" in file_name.lower():
        return "AnimateLCM", "by the file's name"
    if has_mid:
        return ("v2" if rows or has_prefix else "AnimateLCM"), sign
    if rows != 24:
        return "v3", sign
    if "v3" in file_name.lower():
        return "v3", "by the file's name"
    return "v1", sign


def _check_positions(positions: Mapping[str, Tensor], file_name: str) -> int:
    """The number of positions that a file stores. Raises ValueError unless they are sine waves."""
    for name, stored in positions.items():
        if stored.ndim > 1 and stored.shape[1] > _MAX_POSITIONS:
            raise ValueError(
                f"{file_name} has {stored.shape[1]} positions ({name}): no motion module knows so many "
                f"frames. {NEEDED}"
            )
        if not _have_a_shape_of_positions(stored) or not _are_sine_waves(stored, name, file_name):
            raise ValueError(
                f"{file_name} has positions of its own ({name}) instead of AnimateDiff's sine waves. {NEEDED}"
            )
    return min((stored.shape[1] for stored in positions.values()), default=0)


def _have_a_shape_of_positions(stored: Tensor) -> bool:
    if stored.ndim != 3 or len(stored) != 1 or not stored.numel():
        return False
    return stored.shape[2] <= _MAX_WIDTH and not stored.shape[2] % 2


def _are_sine_waves(stored_1FC: Tensor, name: str, file_name: str) -> bool:
    check_numbers({name: stored_1FC}, file_name)
    return torch.allclose(stored_1FC[0].float(), sinusoidal_positions(*stored_1FC.shape[1:]), atol=1e-2)


def _check_levels(config: MotionConfig, file_name: str) -> None:
    widths = [level[0] for level in config.down]
    if widths == [320, 640, 1280]:
        raise ValueError(f"{file_name} is a motion module for SDXL, whose U-Net has 3 levels. {NEEDED}")
    if not widths or any(width % 32 or not 0 < width <= _MAX_WIDTH for width in widths):
        raise ValueError(
            f"{file_name} does not fit Stable Diffusion 1.5, whose U-Net has levels of 320, 640, 1280 and "
            f"1280 channels: its own have {widths}. {NEEDED}"
        )


def _check_complete(motion: Mapping[str, Tensor], config: MotionConfig, file_name: str) -> None:
    expected = _shapes(config)
    missing, unknown = expected.keys() - motion.keys(), motion.keys() - expected.keys()
    if missing:
        raise ValueError(
            f"{file_name} is incomplete: {len(missing)} of {len(expected)} tensors are missing "
            f"({some(missing)}). Download it again. {NEEDED}"
        )
    if unknown:
        raise ValueError(
            f"{file_name} is a motion module of another kind: {len(unknown)} tensors are unknown "
            f"({some(unknown)}). {NEEDED}"
        )
    for name, shape in expected.items():
        if motion[name].shape != shape:
            raise ValueError(
                f"{file_name} does not fit AnimateDiff's layout: {name} has the shape "
                f"{tuple(motion[name].shape)} instead of {tuple(shape)}. {NEEDED}"
            )


@cache
def _shapes(config: MotionConfig) -> Mapping[str, torch.Size]:
    return {name: weight.shape for name, weight in MotionModel(config, device="meta").state_dict().items()}
