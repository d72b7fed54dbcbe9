import colorsys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.flash.augment import (
    Augmentation,
    AugmentConfig,
    augmented_pair,
    crop,
    draw_augmentation,
    restyle,
)

F, C, H, W = 2, 3, 10, 14
SIZE = 8
COLOURS = ("brightness", "contrast", "saturation", "hue")
NEUTRAL = tuple(zip(COLOURS, (1.0, 1.0, 1.0, 0.0), strict=True))
PLAIN = Augmentation(flip=False, zoom=H / SIZE, top=0.0, left=0.0, kernel=1, colours=NEUTRAL)


@pytest.fixture
def video_FCHW() -> Tensor:
    return torch.rand(F, C, H, W, dtype=torch.float64) * torch.tensor([0.7, 1.0]).view(F, 1, 1, 1)


def draws(count: int, config: AugmentConfig) -> list[Augmentation]:
    generator = torch.Generator().manual_seed(0)
    return [draw_augmentation(config, generator) for _ in range(count)]


def mirrored(index: int, size: int) -> int:
    index = abs(index)
    return 2 * (size - 1) - index if index >= size else index


def slow_blur(video_FCHW: Tensor, kernel: int) -> Tensor:
    sigma, half = 0.15 * kernel + 0.35, kernel // 2
    bell = [2.718281828459045 ** (-(i**2) / (2 * sigma**2)) for i in range(-half, half + 1)]
    out = torch.zeros_like(video_FCHW)
    height, width = video_FCHW.shape[-2:]
    for y in range(height):
        for x in range(width):
            for i in range(kernel):
                for j in range(kernel):
                    there = video_FCHW[:, :, mirrored(y + i - half, height), mirrored(x + j - half, width)]
                    out[:, :, y, x] += bell[i] * bell[j] / sum(bell) ** 2 * there
    return out


def grey(rgb: list[float]) -> float:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def slow_colour(video_FCHW: Tensor, name: str, amount: float) -> Tensor:
    """Every pixel by itself, as torchvision's ColorJitter; contrast about the grey mean of the whole clip."""
    pixels = video_FCHW.permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    mean = sum(grey(rgb) for rgb in pixels) / len(pixels)
    changes: dict[str, Callable[[list[float]], list[float]]] = {
        "brightness": lambda rgb: [amount * v for v in rgb],
        "contrast": lambda rgb: [amount * v + (1 - amount) * mean for v in rgb],
        "saturation": lambda rgb: [amount * v + (1 - amount) * grey(rgb) for v in rgb],
        "hue": lambda rgb: turned(rgb, amount),
    }
    new = [[min(max(v, 0.0), 1.0) for v in changes[name](rgb)] for rgb in pixels]
    frames, channels, height, width = video_FCHW.shape
    return torch.tensor(new, dtype=torch.float64).view(frames, height, width, channels).permute(0, 3, 1, 2)


def turned(rgb: list[float], turns: float) -> list[float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    return list(colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value))


@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
def test_blur_equals_a_loop(video_FCHW: Tensor, kernel: int) -> None:
    found_FCHW = restyle(video_FCHW, replace(PLAIN, kernel=kernel))
    torch.testing.assert_close(found_FCHW, slow_blur(video_FCHW, kernel), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        *((name, amount) for name in COLOURS[:3] for amount in (0.5, 0.8, 1.5)),
        *(("hue", amount) for amount in (-0.25, -0.1, 0.2)),
    ],
)
def test_each_colour_equals_a_loop(video_FCHW: Tensor, name: str, amount: float) -> None:
    found_FCHW = restyle(video_FCHW, replace(PLAIN, colours=((name, amount),)))
    expected_FCHW = slow_colour(video_FCHW, name, amount)
    torch.testing.assert_close(found_FCHW, expected_FCHW, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found_FCHW, video_FCHW, atol=0.01)


def test_twin_is_blurred_first_and_then_coloured_in_the_drawn_order(video_FCHW: Tensor) -> None:
    colours = (("contrast", 1.4), ("hue", 0.2), ("saturation", 0.6), ("brightness", 1.3))
    expected_FCHW = slow_blur(video_FCHW, 5)
    for name, amount in colours:
        expected_FCHW = slow_colour(expected_FCHW, name, amount)
    found_FCHW = restyle(video_FCHW, replace(PLAIN, kernel=5, colours=colours))
    torch.testing.assert_close(found_FCHW, expected_FCHW, rtol=1e-6, atol=1e-6)
    other_FCHW = restyle(video_FCHW, replace(PLAIN, kernel=5, colours=colours[::-1]))
    assert not torch.allclose(other_FCHW, expected_FCHW, atol=0.01)


def test_neutral_draws_leave_the_twin_like_the_original(video_FCHW: Tensor) -> None:
    original_FCHW, twin_FCHW = augmented_pair(video_FCHW, (SIZE, SIZE), PLAIN)
    torch.testing.assert_close(twin_FCHW, original_FCHW, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0.0, 0.0), (0.5, 0.99), (0.999999, 0.3)])
def test_crop_is_a_window_of_the_clip(video_FCHW: Tensor, top: float, left: float, flip: bool) -> None:
    found_FCHW = crop(video_FCHW, (SIZE, SIZE), replace(PLAIN, flip=flip, top=top, left=left))
    y, x = int(top * 3), int(left * 7)  # scale 1: 10 - 8 + 1 rows to begin at, 14 - 8 + 1 columns
    for f in range(F):
        for i in range(SIZE):
            for j in range(SIZE):
                j_there = x + (SIZE - 1 - j if flip else j)
                assert torch.equal(found_FCHW[f, :, i, j], video_FCHW[f, :, y + i, j_there])


def slow_scale(line: list[float], size: int) -> list[float]:
    """One line in a new length: a triangle as wide as the longer of both steps, centred on each new pixel."""
    step = len(line) / size
    width = max(step, 1.0)
    new = []
    for i in range(size):
        weights = [max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * step) / width) for j in range(len(line))]
        new.append(sum(w * v for w, v in zip(weights, line, strict=True)) / sum(weights))
    return new


@pytest.mark.parametrize(("height", "width"), [(6, 9), (20, 16), (31, 47)])
def test_short_side_is_scaled_to_zoom_times_size_before_the_crop(height: int, width: int) -> None:
    line_W = torch.rand(width, dtype=torch.float64)
    video_FCHW = line_W.expand(1, 3, height, width)
    found_FCHW = crop(video_FCHW, (SIZE, SIZE), replace(PLAIN, zoom=1.125, left=0.7))
    scaled = slow_scale(line_W.tolist(), round(width * 9 / min(height, width)))
    left = int(0.7 * (len(scaled) - SIZE + 1))
    expected = torch.tensor(scaled[left : left + SIZE], dtype=torch.float64)
    torch.testing.assert_close(found_FCHW, expected.expand(1, 3, SIZE, SIZE), rtol=1e-6, atol=1e-6)


def test_both_videos_are_flipped_and_cropped_alike() -> None:
    video_FCHW = torch.rand(F, C, H, W)
    for drawn in draws(5, AugmentConfig(size=SIZE)):
        original_FCHW, twin_FCHW = augmented_pair(video_FCHW, (SIZE, SIZE), drawn)
        assert original_FCHW.shape == twin_FCHW.shape == (F, C, SIZE, SIZE)
        assert torch.equal(original_FCHW, crop(video_FCHW, (SIZE, SIZE), drawn))
        assert torch.equal(twin_FCHW, restyle(original_FCHW, drawn))
        assert not torch.allclose(twin_FCHW, original_FCHW, atol=0.05)


def test_a_still_clip_stays_still() -> None:
    video_FCHW = torch.rand(1, C, 40, 50).expand(16, -1, -1, -1)
    for drawn in draws(10, AugmentConfig(size=24)):
        for video in augmented_pair(video_FCHW, (24, 24), drawn):
            assert torch.equal(video, video[:1].expand_as(video))


def test_a_light_that_goes_on_stays_the_same_step_for_the_twin() -> None:
    """Contrast about each frame's own mean would shrink or swell the step between dark and light frames."""
    video_FCHW = torch.tensor([0.2, 0.5]).view(2, 1, 1, 1).expand(2, 3, SIZE, SIZE)
    twin_FCHW = restyle(video_FCHW, replace(PLAIN, colours=(("contrast", 1.5),)))
    torch.testing.assert_close(twin_FCHW[1] - twin_FCHW[0], torch.full((3, SIZE, SIZE), 0.45))


def test_pixels_stay_in_range_and_the_clip_is_not_written_to() -> None:
    video_FCHW = torch.rand(F, C, 40, 50).round()  # extremes
    kept_FCHW = video_FCHW.clone()
    for drawn in draws(20, AugmentConfig(size=24)):
        for video in augmented_pair(video_FCHW, (24, 24), drawn):
            assert 0.0 <= video.min() <= video.max() <= 1.0
    assert torch.equal(video_FCHW, kept_FCHW)


def test_draws_fill_the_papers_ranges_evenly() -> None:
    drawn = draws(3000, AugmentConfig())
    amounts = {name: [dict(d.colours)[name] for d in drawn] for name in COLOURS}
    for name, values in amounts.items():
        low, high = (-0.25, 0.25) if name == "hue" else (0.5, 1.5)
        assert low <= min(values) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < max(values) <= high
        assert abs(sum(values) / 3000 - (low + high) / 2) < 0.03 * (high - low)
    kernels = [d.kernel for d in drawn]
    assert all(abs(kernels.count(k) / 3000 - 0.25) < 0.04 for k in (3, 5, 7, 9))
    assert abs(sum(d.flip for d in drawn) / 3000 - 0.5) < 0.04
    assert 1.0 <= min(d.zoom for d in drawn) < 1.01
    assert 1.14 < max(d.zoom for d in drawn) <= 1.15
    orders = [tuple(name for name, _ in d.colours) for d in drawn]
    assert len(set(orders)) == 24
    assert max(orders.count(order) for order in set(orders)) < 2 * 3000 / 24


def test_the_blur_of_smaller_pictures_is_in_proportion() -> None:
    for size, expected in ((512, {3, 5, 7, 9}), (256, {1, 3, 5}), (96, {1})):
        assert {d.kernel for d in draws(100, AugmentConfig(size=size))} == expected
    unscaled = draws(100, AugmentConfig(size=96, kernels_of=96))
    assert [d.kernel for d in unscaled] == [d.kernel for d in draws(100, AugmentConfig())]


def test_amounts_are_independent() -> None:
    rows = [
        [dict(d.colours)[name] for name in COLOURS] + [d.zoom, d.top, d.left, float(d.kernel), float(d.flip)]
        for d in draws(3000, AugmentConfig())
    ]
    correlations = torch.tensor(rows, dtype=torch.float64).T.corrcoef()
    assert (correlations - torch.eye(len(correlations))).abs().max() < 0.08


def test_same_generator_same_draws_whatever_the_ranges() -> None:
    def drawn(**settings: Any) -> Augmentation:
        return draw_augmentation(AugmentConfig(**settings), torch.Generator().manual_seed(7))

    assert drawn() == drawn()
    assert drawn(size=256, kernels_of=256, colour=0.3) == replace(drawn(), colours=drawn(colour=0.3).colours)
    assert draw_augmentation(AugmentConfig(), torch.Generator().manual_seed(8)) != drawn()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"`size` must be a multiple of 8 pixels, but it is 0"),
        ({"size": 100}, r"`size` must be a multiple of 8 pixels, but it is 100"),
        ({"zoom": 0.9}, r"`zoom` must lie between 1 and 4, but it is 0.9"),
        ({"zoom": float("nan")}, r"`zoom` must lie"),
        ({"flip": 1.5}, r"`flip` is a chance between 0 and 1, but it is 1.5"),
        ({"kernels": (3, 4)}, r"`kernels` must be odd numbers .* but they are \(3, 4\)"),
        ({"kernels": ()}, r"`kernels` must be odd numbers"),
        ({"kernels": (65,), "kernels_of": 32}, r"`kernels` must be odd .* below 2 x `kernels_of` \(64\)"),
        ({"colour": 1.5}, r"`colour` must lie between 0 and 1, but it is 1.5"),
        ({"hue": 0.6}, r"`hue` must lie between 0 and 0.5, but it is 0.6"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**settings)


@pytest.mark.parametrize(
    "video", [torch.rand(2, 4, 9, 9), torch.rand(3, 9, 9), torch.zeros(2, 3, 9, 9, dtype=torch.uint8)]
)
def test_other_than_rgb_frames_are_refused(video: Tensor) -> None:
    with pytest.raises(ValueError, match="A clip must be RGB frames"):
        augmented_pair(video, (SIZE, SIZE), PLAIN)


def ramp(height: int, width: int) -> Tensor:
    """Two frames whose red is the row and green the column, 0 at one end and 1 at the other."""
    rows, columns = torch.linspace(0, 1, height), torch.linspace(0, 1, width)
    red, green = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([red, green, torch.zeros_like(red)]).expand(2, -1, -1, -1)


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (200, 200), (50, 60)])
@pytest.mark.parametrize("shape", [(32, 64), (64, 32), (40, 40)])
def test_oblong_crops_cover_the_window_and_keep_the_aspect(
    height: int, width: int, shape: tuple[int, int]
) -> None:
    found = crop(ramp(height, width), shape, replace(PLAIN, zoom=1.0, top=0.5, left=0.5))
    assert found.shape[-2:] == shape
    spans = [float(found[0, c].max() - found[0, c].min()) for c in range(2)]
    seen = spans[0] * height, spans[1] * width  # pixels of the clip
    assert seen[0] / seen[1] == pytest.approx(shape[0] / shape[1], rel=0.07)
    assert max(spans) > 0.95  # of the side that limits it, all is seen


def test_oblong_crops_come_from_anywhere() -> None:
    window = [
        crop(ramp(100, 300), (32, 64), replace(PLAIN, zoom=1.0, left=left))[0, 1] for left in (0.0, 0.99)
    ]
    assert float(window[0].min()) < 0.01
    assert float(window[1].max()) > 0.99


def test_width_is_the_sizes_unless_it_is_given() -> None:
    square, oblong = AugmentConfig(size=64), AugmentConfig(size=32, width=128)
    assert (square.shape, oblong.shape) == ((64, 64), (32, 128))
    assert (square.side, oblong.side) == (64, 64)
    assert oblong.short_side == int(128 * 1.15) + 1
    with pytest.raises(ValueError, match="`width` must be a multiple of 8 pixels, but it is 60"):
        AugmentConfig(width=60)


def test_blur_is_in_proportion_to_the_area() -> None:
    drawn = [
        draw_augmentation(config, torch.Generator().manual_seed(seed)).kernel
        for seed in range(8)
        for config in (AugmentConfig(size=256), AugmentConfig(size=128, width=512))
    ]
    assert drawn[::2] == drawn[1::2]
