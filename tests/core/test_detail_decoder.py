"""The Detail Enhancement Decoder's layers: identity at the start; each branch equals a slow float64 one."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, silu

from flash_pack.flash_modules.flash.detail_decoder import (
    DetailDecoder,
    DetailDecoderConfig,
    PatchAttentionBranch,
    WarpingBranch,
    warp,
)

F, C, H, W = 3, 4, 6, 10
CONFIG = DetailDecoderConfig(channels=(C,), width=5)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data = 0.4 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return module


def features(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(config: DetailDecoderConfig = CONFIG) -> DetailDecoder:
    return randomise(DetailDecoder(config).double())


@pytest.fixture
def h_FCHW() -> Tensor:
    return features(F, C, H, W)


@pytest.fixture
def g_1CHW() -> Tensor:
    return features(1, C, H, W, seed=2)


@pytest.mark.parametrize("warping", [True, False])
def test_untrained_it_adds_nothing_bit_for_bit(warping: bool) -> None:
    decoder = DetailDecoder(DetailDecoderConfig(channels=(C, 2 * C), warping=warping))
    for level, channels in enumerate((C, 2 * C)):
        h, g = torch.randn(F, channels, H, W), torch.randn(1, channels, H, W)
        assert torch.equal(decoder.enhance(level, h, g), h)


def test_off_is_off(h_FCHW: Tensor, g_1CHW: Tensor) -> None:
    assert made().enhance(0, h_FCHW, g_1CHW, strength=0.0) is h_FCHW
    neither = made(DetailDecoderConfig(channels=(C,), warping=False, attention=False))
    assert neither.enhance(0, h_FCHW, g_1CHW) is h_FCHW


def test_strength_scales_what_is_added(h_FCHW: Tensor, g_1CHW: Tensor) -> None:
    decoder = made()
    whole, half = (decoder.enhance(0, h_FCHW, g_1CHW, strength) - h_FCHW for strength in (1.0, 0.5))
    assert whole.abs().max() > 0.1
    torch.testing.assert_close(half, whole / 2)


# The equations, slowly


def slow_pair_conv(layer: nn.Module, h_CHW: Tensor, g_CHW: Tensor) -> Tensor:
    """One convolution of the concatenation [h, g]."""
    weight = torch.cat([layer.frame.weight, layer.reference.weight], dim=1)
    return conv2d(torch.cat([h_CHW, g_CHW])[None], weight, layer.frame.bias, padding=1)[0]


def slow_warp(features_CHW: Tensor, displacements_2HW: Tensor) -> Tensor:
    """Bilinear interpolation, pixel by pixel, with places clamped into the picture."""
    _, height, width = features_CHW.shape
    out = torch.zeros_like(features_CHW)
    for y, x in product(range(height), range(width)):
        u = min(max(x + float(displacements_2HW[0, y, x]), 0.0), width - 1.0)
        v = min(max(y + float(displacements_2HW[1, y, x]), 0.0), height - 1.0)
        left, top = int(u), int(v)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        a, b = u - left, v - top
        out[:, y, x] = (1 - b) * ((1 - a) * features_CHW[:, top, left] + a * features_CHW[:, top, right])
        out[:, y, x] += b * ((1 - a) * features_CHW[:, bottom, left] + a * features_CHW[:, bottom, right])
    return out


def slow_warping(branch: WarpingBranch, h_CHW: Tensor, g_CHW: Tensor) -> Tensor:
    found = slow_pair_conv(branch.pair, h_CHW, g_CHW)
    for conv in branch.convs:
        found = conv2d(silu(found)[None], conv.weight, conv.bias, padding=1)[0]
    return slow_warp(g_CHW, found)


def slow_attention(branch: PatchAttentionBranch, h_CHW: Tensor, g_CHW: Tensor) -> Tensor:
    """Patch by patch, a softmax over all patches of the reference."""

    def patches(features_CHW: Tensor) -> list[Tensor]:
        _, height, width = features_CHW.shape
        places = product(range(0, height, 2), range(0, width, 2))
        return [features_CHW[:, y : y + 2, x : x + 2].flatten() for y, x in places]

    keys = [branch.to_k(patch) for patch in patches(g_CHW)]
    values = [branch.to_v(patch) for patch in patches(g_CHW)]
    out = torch.zeros_like(h_CHW)
    _, height, width = h_CHW.shape
    for (y, x), patch in zip(product(range(0, height, 2), range(0, width, 2)), patches(h_CHW), strict=True):
        query = branch.to_q(patch)
        weights = torch.stack([query @ key for key in keys]).div(len(query) ** 0.5).softmax(0)
        got = sum(weight * value for weight, value in zip(weights, values, strict=True))
        out[:, y : y + 2, x : x + 2] = branch.to_out(got).view(-1, 2, 2)
    return out


def slow_level(decoder: DetailDecoder, h_CHW: Tensor, g_CHW: Tensor) -> Tensor:
    level = decoder.levels[0]
    g_CHW = torch.einsum("oc,chw->ohw", level.proj.weight, g_CHW) + level.proj.bias[:, None, None]
    details = torch.zeros_like(h_CHW)
    if level.warp is not None:
        details += slow_warping(level.warp, h_CHW, g_CHW)
    if level.attn is not None:
        details += slow_attention(level.attn, h_CHW, g_CHW)
    weights = silu(slow_pair_conv(level.fuse.pair, h_CHW, g_CHW))[None]
    weights = conv2d(weights, level.fuse.conv.weight, level.fuse.conv.bias, padding=1)[0]
    return h_CHW + weights * details


@pytest.mark.parametrize("branches", [(True, True), (True, False), (False, True)])
def test_it_equals_the_equation_frame_by_frame(
    h_FCHW: Tensor, g_1CHW: Tensor, branches: tuple[bool, bool]
) -> None:
    warping, attention = branches
    config = DetailDecoderConfig(channels=(C,), width=5, warping=warping, attention=attention)
    decoder = made(config)
    found = decoder.enhance(0, h_FCHW, g_1CHW)
    with torch.no_grad():
        wanted = torch.stack([slow_level(decoder, h_CHW, g_1CHW[0]) for h_CHW in h_FCHW])
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


# Warping


def test_warping_looks_as_far_away_as_it_is_told() -> None:
    features_1CHW = features(1, C, H, W)
    moved = warp(features_1CHW, torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, H, W))
    torch.testing.assert_close(moved[..., 1:, :-2], features_1CHW[..., :-1, 2:], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(moved[..., 1:, -1], features_1CHW[..., :-1, -1], rtol=1e-6, atol=1e-6)


def test_no_displacement_gives_the_same_features() -> None:
    features_FCHW = features(F, C, H, W).float()
    torch.testing.assert_close(warp(features_FCHW, torch.zeros(F, 2, H, W)), features_FCHW)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_places_are_exact_in_half_precision(dtype: torch.dtype) -> None:
    """Pixel 1000 of a wide picture is still pixel 1000."""
    row_11HW = torch.arange(1024).remainder(7).to(dtype).view(1, 1, 1, 1024)
    still = warp(row_11HW, torch.zeros(1, 2, 1, 1024, dtype=dtype))
    assert still.dtype == dtype
    torch.testing.assert_close(still, row_11HW, rtol=0, atol=0.01)


def test_displacements_start_at_zero() -> None:
    branch = DetailDecoder(CONFIG).levels[0].warp
    assert not branch.displacements(torch.randn(F, C, H, W), torch.randn(1, C, H, W)).any()


def test_the_warping_branch_finds_a_known_displacement() -> None:
    """Frames show the reference moved by up to 2 pixels; trained on some, it finds the way of others."""
    torch.manual_seed(0)
    side, reach = 24, 2
    reference_1CHW = torch.nn.functional.interpolate(torch.randn(1, C, 8, 8), (side, side), mode="bicubic")

    def frames(count: int) -> tuple[Tensor, Tensor]:
        ways_F211 = (2 * torch.rand(count, 2, 1, 1) - 1) * reach
        ways_F2HW = ways_F211.expand(-1, -1, side, side)
        return warp(reference_1CHW.expand(count, -1, -1, -1), ways_F2HW), ways_F2HW

    branch = DetailDecoder(DetailDecoderConfig(channels=(C,), width=32)).levels[0].warp
    optimizer = torch.optim.Adam(branch.parameters(), lr=5e-3)
    for _ in range(250):
        frames_FCHW, _ = frames(8)
        loss = (branch(frames_FCHW, reference_1CHW) - frames_FCHW).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    frames_FCHW, ways_F2HW = frames(16)
    inside = slice(reach + 2, -reach - 2)
    with torch.no_grad():
        found = branch.displacements(frames_FCHW, reference_1CHW)
        off = (found - ways_F2HW)[..., inside, inside].norm(dim=1).mean()
    assert off < 0.25 * ways_F2HW.norm(dim=1).mean()


# Attention


@pytest.mark.parametrize("size", [(6, 10), (5, 9), (1, 1)])
def test_every_size_keeps_its_size(size: tuple[int, int]) -> None:
    decoder = made()
    h, g = features(F, C, *size), features(1, C, *size, seed=2)
    assert decoder.enhance(0, h, g).shape == h.shape


def test_large_references_are_averaged_down_to_the_keys_that_are_allowed() -> None:
    asked = []

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        asked.append((q.shape[1], k.shape[1]))
        return q

    config = DetailDecoderConfig(channels=(C,), width=5, max_keys=4)
    decoder = DetailDecoder(config, attend=attend)
    decoder.enhance(0, torch.randn(F, C, 32, 12), torch.randn(1, C, 32, 12))
    assert asked == [(16 * 6, 4 * 4)]
    decoder.enhance(0, torch.randn(F, C, 8, 6), torch.randn(1, C, 8, 6))
    assert asked[1] == (4 * 3, 4 * 3)


def test_averaged_keys_are_means_of_the_reference(h_FCHW: Tensor) -> None:
    config = DetailDecoderConfig(channels=(C,), width=5, warping=False, max_keys=4)
    decoder = made(config)
    g_1CHW = features(1, C, 16, 16, seed=2)
    halved = torch.nn.functional.avg_pool2d(g_1CHW, 2)
    branch = decoder.levels[0].attn
    torch.testing.assert_close(branch(h_FCHW, g_1CHW), branch(h_FCHW, halved))


# Shapes and gradients


def test_a_reference_of_another_size_is_interpolated(h_FCHW: Tensor) -> None:
    decoder = made()
    constant = torch.ones(1, C, 13, 7, dtype=torch.float64)
    wanted = decoder.enhance(0, h_FCHW, torch.ones(1, C, H, W, dtype=torch.float64))
    torch.testing.assert_close(decoder.enhance(0, h_FCHW, constant), wanted)


def test_frames_do_not_know_of_each_other(h_FCHW: Tensor, g_1CHW: Tensor) -> None:
    decoder = made()
    together = decoder.enhance(0, h_FCHW, g_1CHW)
    alone = torch.cat([decoder.enhance(0, frame, g_1CHW) for frame in h_FCHW.split(1)])
    torch.testing.assert_close(together, alone)


def test_it_starts_with_the_reference_itself_as_details(h_FCHW: Tensor, g_1CHW: Tensor) -> None:
    decoder = DetailDecoder(CONFIG).double()
    decoder.levels[0].fuse.conv.bias.data.fill_(0.5)
    torch.testing.assert_close(decoder.enhance(0, h_FCHW, g_1CHW), h_FCHW + 0.5 * g_1CHW)


def test_after_two_steps_all_layers_learn(h_FCHW: Tensor, g_1CHW: Tensor) -> None:
    decoder = DetailDecoder(CONFIG).double()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=1e-4)

    def learned() -> set[str]:
        optimizer.zero_grad()
        decoder.enhance(0, h_FCHW, g_1CHW).square().sum().backward()
        return {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.any()}

    assert learned() == {"levels.0.fuse.conv.weight", "levels.0.fuse.conv.bias"}
    optimizer.step()
    names = {name for name, _ in decoder.named_parameters()}
    before_displacements = {name for name in names if ".warp." in name and ".convs.2." not in name}
    before_patches = {name for name in names if ".attn." in name and ".to_out." not in name}
    assert learned() == names - before_displacements - before_patches
    optimizer.step()
    assert learned() == names


@pytest.mark.parametrize(("warping", "attention"), [(True, False), (False, True)])
def test_a_branch_learns_without_the_other(
    h_FCHW: Tensor, g_1CHW: Tensor, warping: bool, attention: bool
) -> None:
    config = DetailDecoderConfig(channels=(C,), width=5, warping=warping, attention=attention)
    decoder = DetailDecoder(config).double()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=1e-4)
    for _ in range(3):
        optimizer.zero_grad()
        decoder.enhance(0, h_FCHW, g_1CHW).square().sum().backward()
        optimizer.step()
    silent = [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_names_of_weights_are_those_of_the_file_format() -> None:
    names = {name.split(".")[2] for name, _ in DetailDecoder(CONFIG).named_parameters()}
    assert names == {"proj", "warp", "attn", "fuse"}


def test_layers_come_from_the_host() -> None:
    made_layers: list[str] = []

    class Operations:
        def __getattr__(self, name: str) -> Callable[..., nn.Module]:
            made_layers.append(name)
            return getattr(nn, name)

    DetailDecoder(CONFIG, operations=Operations(), dtype=torch.float16)
    assert set(made_layers) == {"Linear", "Conv2d"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ()}, "`channels` must be 1 to 4096 for each of 1 to 8 levels"),
        ({"channels": (0,)}, "`channels` must be 1 to 4096"),
        ({"width": 0}, "`width` must lie between 1 and 1024"),
        ({"patch_size": 9}, "`patch_size` must lie between 1 and 8"),
        ({"max_keys": 0}, "`max_keys` must lie between 1 and 1024"),
    ],
)
def test_bad_layouts_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetailDecoderConfig(**{"channels": (C,), **settings})
