"""Our motion modules in diffusers' U-Net against diffusers' own AnimateDiff."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from einops import rearrange, repeat
from torch import Tensor, nn

from flash_pack.flash_modules.animatediff.motion_file import MotionWeights, read_motion
from flash_pack.flash_modules.backends.diffusers.sd15 import AnimatedUNet, add_motion
from flash_pack.tests.backends.small_models import TEXT_WIDTH, per_frame, randomise, small_motion, small_unet

B, M, H, W = 2, 5, 4, 8
WIDTHS = (32, 64, 96)


class AllFrames(nn.Module):
    """A norm over all frames of a video together, where diffusers' ResNets run one over each frame."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, features_XCHW: Tensor) -> Tensor:
        videos = self.norm(rearrange(features_XCHW, "(b f) c h w -> b c f h w", b=B))
        return rearrange(videos, "b c f h w -> (b f) c h w")


def inputs(num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    latents_BFCHW = torch.randn(B, num_frames, 4, H, W, generator=generator)
    return latents_BFCHW, torch.tensor([961, 41]), torch.randn(B, M, TEXT_WIDTH, generator=generator)


def difference(out: Tensor, expected: Tensor) -> float:
    return float((out - expected).norm() / expected.norm())


@torch.inference_mode()
def run(model: AnimatedUNet, num_frames: int = 8) -> Tensor:
    return model.predict(*inputs(num_frames))


@torch.inference_mode()
def run_diffusers(model: UNetMotionModel, num_frames: int) -> Tensor:
    latents_BFCHW, timestep_B, text_BMC = inputs(num_frames)
    text_XMC = repeat(text_BMC, "b m c -> (b f) m c", f=num_frames)
    out = model(rearrange(latents_BFCHW, "b f c h w -> b c f h w"), timestep_B, text_XMC).sample
    return rearrange(out, "b c f h w -> b f c h w")


def three_level_unet() -> UNet2DConditionModel:
    return small_unet(widths=WIDTHS)


@pytest.fixture(scope="module", params=["v2", "v3"])
def adapter(request: pytest.FixtureRequest) -> MotionAdapter:
    adapter = MotionAdapter(
        block_out_channels=WIDTHS,
        motion_num_attention_heads=8,
        use_motion_mid_block=request.param == "v2",
    )
    return randomise(adapter, seed=1)


@pytest.fixture(scope="module")
def motion(adapter: MotionAdapter, tmp_path_factory: pytest.TempPathFactory) -> MotionWeights:
    """The same weights, as our code reads them from diffusers' file."""
    folder = tmp_path_factory.mktemp("adapter")
    adapter.save_pretrained(folder)
    return read_motion(folder / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("num_frames", [8, 16])
def test_equals_diffusers_with_its_motion_norm_per_frame(
    adapter: MotionAdapter, motion: MotionWeights, num_frames: int
) -> None:
    oracle = UNetMotionModel.from_unet2d(three_level_unet(), adapter).eval()
    ours = run(add_motion(three_level_unet(), motion), num_frames)
    uncorrected = run_diffusers(oracle, num_frames)
    assert difference(ours, run_diffusers(per_frame(oracle), num_frames)) <= 1e-5
    assert difference(ours, uncorrected) > 1e-2


@pytest.mark.parametrize("adapter", ["v3"], indirect=True)
def test_v1_pools_resnet_norms_over_the_frames_of_each_video(
    adapter: MotionAdapter, motion: MotionWeights
) -> None:
    pooled = replace(motion, config=replace(motion.config, pool_resnet_norms=True))
    oracle = per_frame(UNetMotionModel.from_unet2d(three_level_unet(), adapter).eval())
    for resnet in [module for module in oracle.modules() if isinstance(module, ResnetBlock2D)]:
        resnet.norm1, resnet.norm2 = AllFrames(resnet.norm1), AllFrames(resnet.norm2)
    oracle.conv_norm_out = AllFrames(oracle.conv_norm_out)
    ours = run(add_motion(three_level_unet(), pooled))
    assert difference(ours, run_diffusers(oracle, 8)) <= 1e-5
    assert difference(ours, run(add_motion(three_level_unet(), motion))) > 1e-2


@pytest.fixture(scope="module")
def model() -> AnimatedUNet:
    return add_motion(three_level_unet(), small_motion(widths=WIDTHS, mid=True))


@contextmanager
def silenced(weights: Iterable[tuple[str, Tensor]], name_part: str) -> Iterator[None]:
    """Some of a model's weights set to zero."""
    kept = {weight: weight.clone() for name, weight in weights if name_part in name}
    assert kept
    for weight in kept:
        weight.data.zero_()
    yield
    for weight, value in kept.items():
        weight.data.copy_(value)


@pytest.mark.parametrize(
    "part",
    ["proj_out", "attention_blocks.0.", "attention_blocks.1.", "ff.net", "transformer.norm", "positions_FC"],
)
def test_every_part_of_the_motion_counts(model: AnimatedUNet, part: str) -> None:
    whole = run(model)
    with silenced([*model.motion.named_parameters(), *model.motion.named_buffers()], part):
        assert difference(run(model), whole) > 0.1


def test_motion_counts_at_every_place(model: AnimatedUNet) -> None:
    whole = run(model, num_frames=2)
    for name, _ in model.motion.config.places():
        with silenced(model.motion.named_parameters(), f"{name}.temporal_transformer.proj_out"):
            assert difference(run(model, num_frames=2), whole) > 1e-3, name


def test_silent_motion_equals_the_plain_unet() -> None:
    model = add_motion(small_unet(), small_motion())
    latents_BFCHW, timestep_B, text_BMC = inputs(8)
    with torch.inference_mode():
        plain = small_unet()(
            rearrange(latents_BFCHW, "b f c h w -> (b f) c h w"),
            repeat(timestep_B, "b -> (b f)", f=8),
            repeat(text_BMC, "b m c -> (b f) m c", f=8),
        ).sample
    with silenced(model.motion.named_parameters(), "proj_out"):
        out = run(model)
    assert torch.equal(out, rearrange(plain, "(b f) c h w -> b f c h w", f=8))


def test_videos_of_a_batch_do_not_mix(model: AnimatedUNet) -> None:
    latents_BFCHW, timestep_B, text_BMC = inputs(8)
    with torch.inference_mode():
        alone = model.predict(latents_BFCHW[1:], timestep_B[1:], text_BMC[1:])
    assert difference(alone, run(model)[1:]) <= 1e-5


def test_one_prompt_per_frame(model: AnimatedUNet) -> None:
    latents_BFCHW, timestep_B, text_BMC = inputs(8)
    with torch.inference_mode():
        per_frame = model.predict(latents_BFCHW, timestep_B, repeat(text_BMC, "b m c -> b f m c", f=8))
        text_BFMC = torch.randn(B, 8, M, TEXT_WIDTH)
        other = model.predict(latents_BFCHW, timestep_B, text_BFMC)
    assert torch.equal(per_frame, run(model))
    assert not torch.allclose(other, per_frame)


def test_a_copy_of_the_model_stands_alone() -> None:
    model = add_motion(small_unet(), small_motion())
    twin = copy.deepcopy(model)
    expected = run(model, num_frames=8)
    with torch.no_grad():
        for weight in model.motion.parameters():
            weight.zero_()
    run(model, num_frames=4)
    assert torch.equal(run(twin, num_frames=8), expected)


def test_weights_as_read_are_never_written_to() -> None:
    motion = small_motion()
    model = add_motion(small_unet(), motion)
    with torch.no_grad():
        for weight in model.motion.parameters():
            weight.zero_()
    assert all(torch.equal(motion.tensors[name], tensor) for name, tensor in small_motion().tensors.items())


def test_motion_follows_the_unet_to_its_dtype() -> None:
    model = add_motion(small_unet().to(torch.bfloat16), small_motion())
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert run(model, num_frames=4).dtype == torch.float32


def test_gradients_reach_unet_and_motion() -> None:
    model = add_motion(small_unet(), small_motion()).requires_grad_(True)
    model(*inputs(4)).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.parameters())


def test_two_motions_are_refused() -> None:
    unet = small_unet()
    add_motion(unet, small_motion())
    with pytest.raises(ValueError, match="already has a motion, and two cannot run together"):
        add_motion(unet, small_motion())


def test_other_widths_are_refused() -> None:
    wide = UNet2DConditionModel(block_out_channels=(32, 64, 64, 96), cross_attention_dim=TEXT_WIDTH)
    with pytest.raises(
        ValueError, match=r"made for a U-Net with the widths 32, 64, and .* has 32, 64, 64, 96"
    ):
        add_motion(wide, small_motion())


def test_more_frames_than_the_motion_knows_are_refused(model: AnimatedUNet) -> None:
    with pytest.raises(
        ValueError, match="The video has 33 frames, but this motion was trained with up to 32"
    ):
        run(model, num_frames=33)
