"""HDR patches that the standards' formulas make come back in the colours they were made from."""

import math
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from flash_pack.flash_modules.files import colours
from flash_pack.tests.core.odd_clips import encode, only_clip

PQ, HLG = 16, 18
COLOURS = [(48, 95, 191), (200, 60, 40), (90, 180, 70), (224, 172, 140), (128, 128, 128), (20, 20, 20)]
WHITE = (255, 255, 255)

# ITU-R BT.2087, table 2: primaries of BT.709 in those of BT.2020
TO_2020 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]


def hlg(nits: float) -> float:
    """ITU-R BT.2100, table 5: the signal of light on a screen of 1000 cd/m2, its gamma of 1.2 taken back."""
    scene = (nits / 1000) ** (1 / 1.2)
    if scene <= 1 / 12:
        return math.sqrt(3 * scene)
    return 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073


def pq(nits: float) -> float:
    """ITU-R BT.2100, table 4."""
    m1, m2, c1, c2, c3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128
    power = (nits / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


CURVES = {HLG: hlg, PQ: pq}


def patch(curve: int, rgb: tuple[float, ...], white: float) -> tuple[int, ...]:
    """Y, Cb, Cr in 10 bits (BT.2020, table 4) of a colour of BT.709 on a screen with this white in cd/m2."""
    light = [(value / 255) ** 2.4 * white for value in rgb]
    r, g, b = (CURVES[curve](sum(m * c for m, c in zip(row, light, strict=True))) for row in TO_2020)
    luma = 0.2627 * r + 0.6780 * g + 0.0593 * b
    return (
        round(64 + 876 * luma),
        round(512 + 896 * (b - luma) / 1.8814),
        round(512 + 896 * (r - luma) / 1.4746),
    )


def hdr_frame(curve: int, patches: list[tuple[int, ...]]) -> av.VideoFrame:
    """Patches of 32x32 pixels beside each other."""
    frame = av.VideoFrame(32 * len(patches), 32, "yuv420p10le")
    for i, plane in enumerate(frame.planes):
        side = 32 if i == 0 else 16
        row = np.repeat(np.array([one[i] for one in patches], np.uint16), side)
        padded = np.zeros((side, plane.line_size // 2), np.uint16)
        padded[:, : len(row)] = row
        plane.update(padded.tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = curve, 9, 9, 1
    return frame


def tagged(curve: int, primaries: int = 9):
    def prepare(stream) -> None:
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace, context.color_range = (
            curve,
            primaries,
            9,
            1,
        )

    return prepare


def read_patches(folder: Path, curve: int, patches: list[tuple[int, ...]], suffix: str = ".mkv"):
    frames = [hdr_frame(curve, patches) for _ in range(3)]
    codec, options = (
        ("ffv1", {}) if suffix == ".mkv" else ("libx265", {"x265-params": "lossless=1:log-level=none"})
    )
    encode(folder / f"a{suffix}", frames, codec, pixels="yuv420p10le", prepare=tagged(curve), **options)
    found = only_clip(folder)
    read_FCHW = found.read([0, 2]) * 255
    return found, [read_FCHW[1, :, 8:24, 32 * i + 8 : 32 * i + 24].mean((1, 2)) for i in range(len(patches))]


@pytest.mark.parametrize("curve", [HLG, PQ])
@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_hdr_that_was_made_from_sdr_comes_back(tmp_path: Path, curve: int, suffix: str) -> None:
    """Its white is SDR's, 100 cd/m2."""
    found, read = read_patches(tmp_path, curve, [patch(curve, rgb, 100) for rgb in [*COLOURS, WHITE]], suffix)
    for rgb, values in zip([*COLOURS, WHITE], read, strict=True):
        assert torch.allclose(values, torch.tensor(rgb).float(), atol=2.5), rgb
    assert found.notes == (
        f"it is HDR ({'HLG' if curve == HLG else 'PQ'}): its colours are brought to BT.709",
    )


@pytest.mark.parametrize("curve", [HLG, PQ])
def test_hdr_with_highlights_has_white_at_203_and_a_soft_knee(tmp_path: Path, curve: int) -> None:
    """ITU-R BT.2408: what is below three quarters of white's light stays, what is above keeps its order."""
    greys = [(255 * light ** (1 / 2.4),) * 3 for light in (1.0, 2.0, 4.0, 4.9)]
    patches = [patch(curve, rgb, 203) for rgb in (*COLOURS, *greys)]
    _, read = read_patches(tmp_path, curve, patches)
    for rgb, values in zip(COLOURS, read, strict=False):
        assert torch.allclose(values, torch.tensor(rgb).float(), atol=2.5), rgb
    whites = [float(values.mean()) for values in read[len(COLOURS) :]]
    assert whites == sorted(whites)
    assert 235 < whites[0] < 245
    assert whites[-1] == pytest.approx(255, abs=1)


def test_light_keeps_its_hue_where_it_is_compressed() -> None:
    light_HWC = torch.tensor([[[3.0, 1.5, 0.3]]])
    limited = colours._softly_limited(light_HWC, 5.0)
    assert torch.allclose(limited / limited[..., :1], light_HWC / 3)
    assert 0.9 < float(limited.max()) < 1


def test_sdr_of_ten_bits_is_left_as_it_is(tmp_path: Path) -> None:
    frame = hdr_frame(1, [(502, 512, 512), (64, 512, 512)])
    frame.color_primaries, frame.colorspace = 1, 1
    encode(tmp_path / "a.mkv", [frame, frame], "ffv1", pixels="yuv420p10le")
    found = only_clip(tmp_path)
    assert not found.notes
    assert float(found.read([0, 1])[0, 0, 16, 16] * 255) == pytest.approx(255 * 438 / 876, abs=2)


def test_hdr_is_made_smaller_like_other_clips(tmp_path: Path) -> None:
    patches = [patch(HLG, rgb, 100) for rgb in (COLOURS[0], COLOURS[1], WHITE, COLOURS[2])]
    found, _ = read_patches(tmp_path, HLG, patches)
    small_FCHW = found.read([0, 1], short_side=16)
    assert small_FCHW.shape == (2, 3, 16, 64)
    assert torch.allclose(small_FCHW[0, :, 8, 8] * 255, torch.tensor([48.0, 95.0, 191.0]), atol=3)
