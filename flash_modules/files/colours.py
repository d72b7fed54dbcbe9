"""HDR video (HLG and PQ) in the colours of BT.709, in which pictures and models are.

ITU-R BT.2100 (curves), BT.2087 (primaries), BT.2408 (diffuse white at 203 cd/m²), BT.1886 (a screen's gamma
of 2.4). Deviation: HLG's system gamma of 1.2 acts on each channel and not on luminance, as it does in cameras
for BT.709 and in zimg; else a blue of (48, 95, 191) that became HLG there comes back as (59, 98, 176).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .footage import Size

NAMES = {16: "PQ", 18: "HLG"}
"""Of HDR curves, by FFmpeg's numbers."""

_UNSAID, _BT2020 = 2, 9
"""FFmpeg's numbers of primaries and matrices."""
_BT2020_TO_709 = torch.tensor(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
_SDR_WHITE, _HDR_WHITE = 100.0, 203.0
"""cd/m². A clip without anything brighter than SDR's white was SDR once, and keeps its brightness."""
_KNEE = 0.75
"""Of white; in a clip that is brighter than white, what lies above is compressed."""


def peak(frame: Any) -> float:
    """The brightest part of an HDR frame, in cd/m²; single pixels do not count."""
    shrink = min(1.0, 96 / min(frame.width, frame.height))
    size = max(1, round(frame.width * shrink)), max(1, round(frame.height * shrink))
    return float(_light(_signal(frame, size, "AREA").max(), frame.color_trc))


def to_bt709(frame: Any, size: Size, brightest: float) -> Tensor:
    """A picture (H, W, 3) in [0, 1] of an HDR frame, scaled to the size.

    `brightest` is the clip's peak, so that all of its frames get one curve.
    """
    light_HWC = _light(_signal(frame, size, "LANCZOS"), frame.color_trc)
    if frame.color_primaries in (_UNSAID, _BT2020):
        light_HWC = light_HWC @ _BT2020_TO_709.T
    white = min(max(brightest, _SDR_WHITE), _HDR_WHITE)
    return _softly_limited(light_HWC.clamp(min=0) / white, max(1.0, brightest / white)) ** (1 / 2.4)


def _signal(frame: Any, size: Size, interpolation: str) -> Tensor:
    """The frame's R'G'B' (H, W, 3) in [0, 1], in the colours that it is stored in."""
    matrix = _BT2020 if frame.colorspace == _UNSAID else None
    deep = frame.reformat(*size, format="rgb48le", interpolation=interpolation, src_colorspace=matrix)
    return torch.from_numpy(deep.to_ndarray().astype(np.float32) / 65535)


def _light(signal: Tensor, curve: int) -> Tensor:
    """Light of a screen in cd/m²; a peak of 1000 for HLG."""
    if NAMES[curve] == "PQ":
        root = signal ** (1 / 78.84375)
        return 10000 * ((root - 0.8359375).clamp(min=0) / (18.8515625 - 18.6875 * root)) ** (
            1 / 0.1593017578125
        )
    scene = torch.where(
        signal <= 0.5, signal**2 / 3, (((signal - 0.55991073) / 0.17883277).exp() + 0.28466892) / 12
    )
    return 1000 * scene**1.2


def _softly_limited(light_HWC: Tensor, brightest: float) -> Tensor:
    """Light up to `brightest` times white, in [0, 1]: compressed above the knee, in the same hue."""
    largest_HW1 = light_HWC.amax(dim=-1, keepdim=True).clamp(min=1e-6)
    above = ((largest_HW1 - _KNEE) / (1 - _KNEE)).clamp(min=0)
    most = (brightest - _KNEE) / (1 - _KNEE)
    limited = _KNEE + (1 - _KNEE) * above * (1 + above / most**2) / (
        1 + above
    )  # Reinhard's, with a white point
    return (light_HWC * torch.where(above > 0, limited, largest_HW1) / largest_HW1).clamp(max=1)
