import math

import pytest
import torch
from torch import Tensor, nn

from flash_pack.flash_modules.animatediff.motion_module import (
    MotionConfig,
    MotionModel,
    MotionModule,
    check_widths,
    pooled_norm,
    sinusoidal_positions,
)
from flash_pack.flash_modules.attention import attend

B, F, H, W, C, HEADS = 2, 5, 2, 3, 64, 4
CONFIG = MotionConfig(down=((C,),), up=(), num_blocks=2, num_attentions=2, num_heads=HEADS, max_frames=7)
SD15 = (320, 640, 1280, 1280)
V1 = MotionConfig(
    down=tuple((n, n) for n in SD15), up=tuple((n, n, n) for n in reversed(SD15)), max_frames=24
)
V2 = MotionConfig(down=V1.down, up=V1.up, mid=(1280,), max_frames=32)


@pytest.fixture
def module() -> MotionModule:
    net = MotionModel(CONFIG, dtype=torch.float64)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.3)
    return net.get_submodule("down_blocks.0.motion_modules.0")


class SlowModule:
    """AnimateDiff's temporal transformer for one video, vector by vector."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = {name.removeprefix("temporal_transformer."): w.double() for name, w in weights.items()}

    def linear(self, name: str, x_C: Tensor) -> Tensor:
        out = (self.weights[f"{name}.weight"] * x_C).sum(1)
        return out + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else out

    def normalised(self, name: str, x: Tensor, channels: Tensor, eps: float) -> Tensor:
        spread = ((x - x.mean()) ** 2).mean()
        shape = (-1, *(1 for _ in x.shape[1:]))
        weight, bias = (
            self.weights[f"{name}.{part}"][channels].reshape(shape) for part in ("weight", "bias")
        )
        return (x - x.mean()) / (spread + eps).sqrt() * weight + bias

    def group_norm(self, frame_CHW: Tensor) -> Tensor:
        groups = torch.arange(C).split(C // 32)
        return torch.cat([self.normalised("norm", frame_CHW[g], g, eps=1e-6) for g in groups])

    def layer_norm(self, name: str, x_C: Tensor) -> Tensor:
        return self.normalised(name, x_C, torch.arange(C), eps=1e-5)

    def attention(self, name: str, frames: list[Tensor]) -> list[Tensor]:
        placed = [x_C + self.position(frame) for frame, x_C in enumerate(frames)]
        q, k, v = ([self.linear(f"{name}.to_{part}", x_C) for x_C in placed] for part in "qkv")
        out = []
        for query_C in q:
            heads = []
            for head in torch.arange(C).split(C // HEADS):
                scores = [math.exp(float(query_C[head] @ key_C[head]) * (C // HEADS) ** -0.5) for key_C in k]
                mixed = sum(score * value_C[head] for score, value_C in zip(scores, v, strict=True))
                heads.append(mixed / sum(scores))
            out.append(self.linear(f"{name}.to_out.0", torch.cat(heads)))
        return out

    def position(self, frame: int) -> Tensor:
        values = []
        for i in range(C // 2):
            angle = frame / 10000 ** (2 * i / C)
            values += [math.sin(angle), math.cos(angle)]
        return torch.tensor(values, dtype=torch.float64)

    def feed_forward(self, name: str, x_C: Tensor) -> Tensor:
        both = self.linear(f"{name}.net.0.proj", x_C)
        gated = [
            value * gate * 0.5 * (1 + math.erf(gate / math.sqrt(2)))
            for value, gate in zip(both[: 4 * C].tolist(), both[4 * C :].tolist(), strict=True)
        ]
        return self.linear(f"{name}.net.2", torch.tensor(gated, dtype=torch.float64))

    def pixel(self, frames: list[Tensor]) -> list[Tensor]:
        tokens = [self.linear("proj_in", x_C) for x_C in frames]
        for b in range(CONFIG.num_blocks):
            block = f"transformer_blocks.{b}"
            for a in range(CONFIG.num_attentions):
                normed = [self.layer_norm(f"{block}.norms.{a}", x_C) for x_C in tokens]
                found = self.attention(f"{block}.attention_blocks.{a}", normed)
                tokens = [x_C + y_C for x_C, y_C in zip(tokens, found, strict=True)]
            tokens = [
                x_C + self.feed_forward(f"{block}.ff", self.layer_norm(f"{block}.ff_norm", x_C))
                for x_C in tokens
            ]
        return [self.linear("proj_out", x_C) for x_C in tokens]

    def __call__(self, video_FCHW: Tensor) -> Tensor:
        normed_FCHW = torch.stack([self.group_norm(frame_CHW) for frame_CHW in video_FCHW])
        out_FCHW = video_FCHW.clone()
        for y in range(H):
            for x in range(W):
                out_FCHW[:, :, y, x] += torch.stack(self.pixel(list(normed_FCHW[:, :, y, x])))
        return out_FCHW


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@torch.no_grad()
def test_motion_module_equals_the_published_arithmetic_in_loops(module: MotionModule) -> None:
    features_XCHW = 3 * torch.randn(B * F, C, H, W, dtype=torch.float64) + 1
    slow = SlowModule(module.state_dict())
    slow_XCHW = torch.cat([slow(video_FCHW) for video_FCHW in features_XCHW.split(F)])
    assert relative(slow_XCHW, features_XCHW) > 0.1
    assert relative(module(features_XCHW, F), slow_XCHW) <= 1e-6


@torch.no_grad()
def test_videos_of_a_batch_do_not_see_each_other(module: MotionModule) -> None:
    features_XCHW = torch.randn(B * F, C, H, W, dtype=torch.float64)
    changed_XCHW = torch.cat([features_XCHW[:F], torch.randn_like(features_XCHW[F:])])
    before_XCHW, after_XCHW = module(features_XCHW, F), module(changed_XCHW, F)
    assert torch.equal(after_XCHW[:F], before_XCHW[:F])
    assert relative(after_XCHW[F:], before_XCHW[F:]) > 0.1


@torch.no_grad()
def test_frames_of_a_video_see_each_other(module: MotionModule) -> None:
    features_XCHW = torch.randn(F, C, H, W, dtype=torch.float64)
    changed_XCHW = torch.cat([features_XCHW[:-1], torch.randn_like(features_XCHW[-1:])])
    assert relative(module(changed_XCHW, F)[:-1], module(features_XCHW, F)[:-1]) > 0.01


@torch.no_grad()
def test_order_of_frames_counts_only_through_positions(module: MotionModule) -> None:
    features_XCHW = torch.randn(F, C, H, W, dtype=torch.float64)
    ordered_XCHW, reversed_XCHW = module(features_XCHW, F), module(features_XCHW.flip(0), F).flip(0)
    assert relative(reversed_XCHW, ordered_XCHW) > 0.01
    for part in module.modules():
        if hasattr(part, "positions_FC"):
            part.positions_FC.zero_()
    assert relative(module(features_XCHW, F), ordered_XCHW) > 0.01
    assert relative(module(features_XCHW.flip(0), F).flip(0), module(features_XCHW, F)) <= 1e-12


@torch.no_grad()
def test_input_is_not_written_to(module: MotionModule) -> None:
    features_XCHW = torch.randn(F, C, H, W, dtype=torch.float64)
    kept_XCHW = features_XCHW.clone()
    module(features_XCHW, F)
    assert torch.equal(features_XCHW, kept_XCHW)


def test_it_is_the_same_with_gradients_bit_for_bit(module: MotionModule) -> None:
    features_XCHW = torch.randn(F, C, H, W, dtype=torch.float64)
    learning_XCHW = module(features_XCHW, F)
    assert learning_XCHW.requires_grad
    with torch.no_grad():
        assert torch.equal(module(features_XCHW, F), learning_XCHW)


def test_layers_and_attention_are_the_given_ones() -> None:
    made, heads = [], []

    class Operations:
        @staticmethod
        def _note(layer: nn.Module) -> nn.Module:
            made.append(layer)
            return layer

        @classmethod
        def Linear(cls, *args: object, **kwargs: object) -> nn.Module:
            return cls._note(nn.Linear(*args, **kwargs))

        @classmethod
        def LayerNorm(cls, *args: object, **kwargs: object) -> nn.Module:
            return cls._note(nn.LayerNorm(*args, **kwargs))

        @classmethod
        def GroupNorm(cls, *args: object, **kwargs: object) -> nn.Module:
            return cls._note(nn.GroupNorm(*args, **kwargs))

    def noted_attend(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, num_heads: int) -> Tensor:
        heads.append(num_heads)
        return attend(q_BNC, k_BMC, v_BMC, num_heads)

    net = MotionModel(CONFIG, operations=Operations, attend=noted_attend)
    assert sum(weight.numel() for layer in made for weight in layer.parameters()) == sum(
        weight.numel() for weight in net.parameters()
    )
    net.get_submodule("down_blocks.0.motion_modules.0")(torch.randn(F, C, H, W), F)
    assert heads == [HEADS] * 4


@torch.no_grad()
def test_pooled_norm_takes_one_mean_and_spread_for_all_frames_of_a_video() -> None:
    norm = nn.GroupNorm(4, 8, eps=1e-5).double()
    for weight in norm.parameters():
        nn.init.normal_(weight)
    features_XCHW = (
        torch.randn(B * F, 8, H, W, dtype=torch.float64) * torch.arange(1, B * F + 1)[:, None, None, None]
    )
    expected_XCHW = torch.empty_like(features_XCHW)
    for video in range(B):
        frames = slice(video * F, (video + 1) * F)
        for group in range(4):
            channels = slice(2 * group, 2 * group + 2)
            values = features_XCHW[frames, channels]
            normed = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
            weight_C11, bias_C11 = (w[channels, None, None] for w in (norm.weight, norm.bias))
            expected_XCHW[frames, channels] = normed * weight_C11 + bias_C11
    torch.testing.assert_close(pooled_norm(norm, features_XCHW, F), expected_XCHW, rtol=1e-10, atol=1e-10)
    assert relative(norm(features_XCHW), expected_XCHW) > 0.1


@pytest.mark.parametrize(("num_frames", "channels"), [(24, 320), (32, 1280), (1, 6)])
def test_positions_are_sine_waves(num_frames: int, channels: int) -> None:
    positions_FC = sinusoidal_positions(num_frames, channels)
    assert positions_FC.dtype == torch.float32
    for frame in range(num_frames):
        for channel in (0, 1, 2, channels // 2, channels - 2, channels - 1):
            angle = frame / 10000 ** (channel // 2 * 2 / channels)
            expected = math.cos(angle) if channel % 2 else math.sin(angle)
            assert float(positions_FC[frame, channel]) == pytest.approx(expected, abs=5e-6)


def test_positions_are_real_on_the_meta_device() -> None:
    net = MotionModel(CONFIG, device="meta")
    module = net.get_submodule("down_blocks.0.motion_modules.0")
    positions = [part.positions_FC for part in module.modules() if hasattr(part, "positions_FC")]
    assert len(positions) == 4
    assert all(torch.equal(p, sinusoidal_positions(7, C)) for p in positions)


@pytest.mark.parametrize(("config", "num_modules", "num_weights"), [(V1, 20, 520), (V2, 21, 546)])
def test_model_has_the_modules_and_weights_of_the_published_files(
    motion_tensors, config: MotionConfig, num_modules: int, num_weights: int
) -> None:
    places = dict(config.places())
    net = MotionModel(config, device="meta")
    names = set(motion_tensors(mid=bool(config.mid), widths=(32, 32, 32, 32)))
    assert len(places) == num_modules
    assert len(net.state_dict()) == num_weights
    assert net.state_dict().keys() == names
    assert places == {
        name.removesuffix(".temporal_transformer.norm.weight"): len(weight)
        for name, weight in net.state_dict().items()
        if name.endswith(".temporal_transformer.norm.weight")
    }
    assert all(isinstance(net.get_submodule(place), MotionModule) for place in places)


def test_model_without_a_middle_block_has_417_million_weights() -> None:
    net = MotionModel(V1, device="meta")
    assert sum(weight.numel() for weight in net.parameters()) == pytest.approx(417.1e6, abs=0.05e6)


@pytest.mark.parametrize("config", [V1, V2])
def test_a_middle_block_of_the_unet_may_stay_without_a_module(config: MotionConfig) -> None:
    check_widths(config, dict(V2.places()))


def test_other_widths_than_the_unets_are_refused() -> None:
    narrow = MotionConfig(down=((32, 32),) * 4, up=((32, 32, 32),) * 4)
    with pytest.raises(
        ValueError, match=r"made for a U-Net with the widths 320, 640, 1280, 1280, and .* has 32, 32, 32, 32"
    ):
        check_widths(V1, dict(narrow.places()))


def test_middle_block_that_the_unet_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not fit the checkpoint"):
        check_widths(V2, dict(V1.places()))
