"""Motion module files: AnimateDiff v1, v2, v3, AnimateLCM, and diffusers' MotionAdapter."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..motion_module import MotionConfig, MotionModel, sinusoidal_positions
from .motion_layout import NEEDED, POSITIONS, animatediff_names, layout
from .tensor_file import Tensors, check_finite, fingerprint, read_tensors, some

VERSIONS = ("v1", "v2", "v3", "AnimateLCM")

_SDXL_WIDTHS = ((320, 320), (640, 640), (1280, 1280))
_FRAMES_WITHOUT_POSITIONS = 32


@dataclass(frozen=True, kw_only=True)
class MotionWeights:
    """A motion module as read from a file."""

    name: str
    version: str
    reason: str
    """By which sign the version was decided."""
    config: MotionConfig
    tensors: Tensors
    """AnimateDiff names, without positions: those are computed."""

    @cached_property
    def sha256(self) -> str:
        return fingerprint(self.tensors)

    @property
    def summary(self) -> str:
        dtype, _ = Counter(t.dtype for t in self.tensors.values()).most_common(1)[0]
        modules = sum(1 for _ in self.config.places())
        return (
            f"{self.name}: AnimateDiff {self.version} ({self.reason}), {modules} modules, "
            f"up to {self.config.max_frames} frames, {str(dtype).removeprefix('torch.')}"
        )


def read_motion(path: Path, version: str = "auto") -> MotionWeights:
    """Read a motion module file; `version` overrides what is told from the file.

    Raises ValueError, saying what the file is, for anything but a complete module for SD 1.5.
    """
    tensors, metadata = read_tensors(path)
    if "flash.format" in metadata:
        raise ValueError(
            f"{path.name} is a FLASH action, not a motion module: move it to models/flash_actions and use Load Action."
        )
    return motion_weights(tensors, path.name, version)


def motion_weights(tensors: Mapping[str, Tensor], file_name: str, version: str = "auto") -> MotionWeights:
    """Tell the version and layout of motion tensors, and check that they are complete and sane."""
    motion = animatediff_names(tensors, file_name)
    positions = {name: motion.pop(name) for name in list(motion) if name.endswith(POSITIONS)}
    rows = {p.shape[-2] for p in positions.values()}
    config = layout(motion, max_frames=min(rows, default=_FRAMES_WITHOUT_POSITIONS))
    if config.down == _SDXL_WIDTHS:
        raise ValueError(f"{file_name} is a motion module for SDXL. {NEEDED}")
    _check_complete(motion, config, file_name)
    check_finite(motion, file_name)
    _check_positions(positions, file_name)
    trained_by_animatediff = any(name.startswith("module.") for name in tensors)
    told, reason = _tell_version(config, file_name, rows, trained_by_animatediff)
    if version != "auto":
        told, reason = version, "chosen by you"
    return MotionWeights(name=Path(file_name).stem, version=told, reason=reason, config=config, tensors=motion)


def _tell_version(config: MotionConfig, file_name: str, rows: set[int], prefixed: bool) -> tuple[str, str]:
    if config.mid:
        return "v2", "it has a middle block"
    if "lcm" in file_name.lower():
        return "AnimateLCM", "by the file's name"
    if not rows and not prefixed:
        return "AnimateLCM", "it stores no positions"
    if rows == {24} and "v3" not in file_name.lower():
        return "v1", "24 positions and no middle block"
    return "v3", f"{config.max_frames} positions and no middle block"


def _check_complete(motion: Mapping[str, Tensor], config: MotionConfig, file_name: str) -> None:
    expected = MotionModel(config, device="meta").state_dict()
    missing, unknown = expected.keys() - motion.keys(), motion.keys() - expected.keys()
    if missing:
        raise ValueError(
            f"{file_name} is incomplete: {len(missing)} of {len(expected)} tensors are missing ({some(missing)}). "
            f"Download it again. {NEEDED}"
        )
    if unknown:
        raise ValueError(
            f"{file_name} is a motion module of another kind: {len(unknown)} tensors are unknown ({some(unknown)}). "
            f"{NEEDED}"
        )
    for name, tensor in expected.items():
        if motion[name].shape != tensor.shape:
            raise ValueError(
                f"{file_name} does not fit AnimateDiff's layout: {name} has shape {tuple(motion[name].shape)}, "
                f"expected {tuple(tensor.shape)}. {NEEDED}"
            )


def _check_positions(positions: Mapping[str, Tensor], file_name: str) -> None:
    for name, stored in positions.items():
        computed_FC = sinusoidal_positions(stored.shape[-2], stored.shape[-1])
        if not torch.allclose(stored.float().reshape(computed_FC.shape), computed_FC, atol=1e-2):
            raise ValueError(
                f"{file_name} encodes positions in a way of its own ({name}), not with AnimateDiff's sine waves. {NEEDED}"
            )
