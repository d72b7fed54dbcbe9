"""Every supported layout of a motion module file."""

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from flash_pack.flash_modules.animatediff import motion_file as motion
from flash_pack.flash_modules.animatediff.motion_file import MotionWeights, motion_weights, read_motion
from flash_pack.flash_modules.animatediff.motion_module import MotionModel

SD15 = (320, 640, 1280, 1280)
SMALL = (32, 64, 96, 96)

PLAIN_V1 = ("mm_sd_v15.ckpt", {"rows": 24}, "v1", 24)
PLAIN_V2 = ("mm_sd_v15_v2.ckpt", {"rows": 32, "mid": True}, "v2", 32)
PLAIN_V3 = ("v3_sd15_mm.ckpt", {"rows": 32}, "v3", 32)
LCM = ("animation.ckpt", {"rows": 0, "mid": True}, "AnimateLCM", 64)


def first_row(shape: tuple[int, ...]) -> Tensor:
    """Zeros of any size that take next to no room in memory and in a file."""
    return torch.zeros(shape[-1]).expand(shape)


@pytest.fixture
def numbers_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """417 million of them take a second; small files show the same."""
    monkeypatch.setattr(motion, "check_numbers", lambda tensors, file_name: None)


def after_train_py(tensors: dict[str, Tensor]) -> dict[str, object]:
    """AnimateDiff's train.py saves the whole U-Net as its parallel wrapper holds it, with counters."""
    unet = {
        "conv_in.weight": torch.zeros(32, 4, 3, 3),
        "down_blocks.0.resnets.0.norm1.weight": torch.zeros(32),
    }
    return {
        "epoch": 3,
        "global_step": 700,
        "state_dict": {f"module.{name}": tensor for name, tensor in {**unet, **tensors}.items()},
    }


def assert_complete(found: MotionWeights, tensors: dict[str, Tensor]) -> None:
    stored = {name: tensor for name, tensor in tensors.items() if not name.endswith("pos_encoder.pe")}
    assert found.tensors.keys() == stored.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in stored.items())
    with torch.device("meta"):
        MotionModel(found.config).load_state_dict(found.tensors, assign=True)


@pytest.mark.usefixtures("numbers_are_not_checked")
@pytest.mark.parametrize(("name", "options", "version", "frames"), [PLAIN_V1, PLAIN_V2, PLAIN_V3, LCM])
def test_published_sizes_are_read(tmp_path, motion_tensors, name, options, version, frames) -> None:
    tensors = motion_tensors(**options, widths=SD15, fill=first_row)
    assert len(tensors) == (588 if options.get("mid") else 560) - (42 if not options["rows"] else 0)
    torch.save({"state_dict": tensors} if version == "v3" else tensors, tmp_path / name)
    found = read_motion(tmp_path / name)
    assert (found.version, found.config.max_frames, found.config.num_heads) == (version, frames, 8)
    assert found.config.down == ((320, 320), (640, 640), (1280, 1280), (1280, 1280))
    assert found.config.up == ((1280,) * 3, (1280,) * 3, (640,) * 3, (320,) * 3)
    assert found.config.mid == ((1280,) if options.get("mid") else ())
    assert (found.config.num_blocks, found.config.num_attentions) == (1, 2)
    assert sum(tensor.numel() for tensor in found.tensors.values()) > 417e6


@pytest.mark.parametrize(
    ("name", "options", "version", "frames", "dtype"),
    [
        (*PLAIN_V1, torch.float32),
        (*PLAIN_V2, torch.float16),
        (*PLAIN_V3, torch.bfloat16),
        (*LCM, torch.float16),
    ],
)
def test_weights_of_every_version_are_read_as_they_are(
    tmp_path, motion_tensors, name, options, version, frames, dtype
) -> None:
    tensors = motion_tensors(**options, dtype=dtype)
    path = (tmp_path / name).with_suffix(".safetensors")
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path)
    found = read_motion(path)
    assert (found.version, found.config.max_frames) == (version, frames)
    assert_complete(found, tensors)
    modules = 21 if options.get("mid") else 20
    assert found.name == path.stem
    kind = version if version == "AnimateLCM" else f"AnimateDiff {version}"
    assert found.summary.startswith(f"{path.stem}: {kind} (")
    assert found.summary.endswith(f", {modules} modules, up to {frames} frames, {str(dtype)[6:]}")


@pytest.mark.parametrize(("mid", "version"), [(False, "v3"), (True, "v2")])
def test_files_of_animatediffs_trainer_are_neither_lcm_nor_v1(tmp_path, motion_tensors, mid, version) -> None:
    tensors = motion_tensors(mid=mid)
    torch.save(after_train_py(tensors), tmp_path / "checkpoint.ckpt")
    found = read_motion(tmp_path / "checkpoint.ckpt")
    assert (found.version, found.config.max_frames) == (version, 32)
    assert f"({'a' if mid else 'no'} middle block and no stored positions)" in found.summary
    assert_complete(found, tensors)


@pytest.mark.usefixtures("numbers_are_not_checked")
def test_trainer_files_of_published_size_are_read(tmp_path, motion_tensors) -> None:
    torch.save(after_train_py(motion_tensors(widths=SD15, fill=first_row)), tmp_path / "checkpoint.ckpt")
    assert len(read_motion(tmp_path / "checkpoint.ckpt").tensors) == 520


@pytest.mark.parametrize(
    ("name", "options", "version", "reason"),
    [
        ("mm.ckpt", {"rows": 24}, "v1", "no middle block and 24 stored positions"),
        ("v3_sd15_mm_fp16.ckpt", {"rows": 24}, "v3", "by the file's name"),
        ("long_mm_64.ckpt", {"rows": 64}, "v3", "no middle block and 64 stored positions"),
        ("mm.ckpt", {"rows": 32, "mid": True}, "v2", "a middle block and 32 stored positions"),
        ("mm.ckpt", {"rows": 0, "mid": True}, "AnimateLCM", "a middle block and no stored positions"),
        ("AnimateLCM_sd15_t2v.ckpt", {"rows": 32, "mid": True}, "AnimateLCM", "by the file's name"),
        ("mm.ckpt", {"rows": 0}, "v3", "no middle block and no stored positions"),
    ],
)
def test_version_and_its_sign_are_told(motion_tensors, name, options, version, reason) -> None:
    found = motion_weights(motion_tensors(**options), name)
    assert (found.version, found.reason) == (version, reason)
    assert found.config.max_frames == (options["rows"] or (64 if version == "AnimateLCM" else 32))
    assert found.config.pool_resnet_norms == (version == "v1")


def test_version_can_be_chosen(motion_tensors) -> None:
    found = motion_weights(motion_tensors(), "mm.ckpt", "AnimateLCM")
    assert (found.version, found.reason, found.config.max_frames) == ("AnimateLCM", "chosen by you", 64)


def test_a_version_that_does_not_exist_is_refused(motion_tensors) -> None:
    with pytest.raises(
        ValueError, match=r"`version` must be auto or one of v1, v2, v3, AnimateLCM, but it is 'v4'"
    ):
        motion_weights(motion_tensors(24), "mm.ckpt", "v4")


def test_widths_come_from_the_tensors(motion_tensors) -> None:
    found = motion_weights(motion_tensors(32, mid=True, widths=(96, 32, 64, 160)), "mm.ckpt")
    assert found.config.down == ((96, 96), (32, 32), (64, 64), (160, 160))
    assert found.config.up == ((160,) * 3, (64,) * 3, (32,) * 3, (96,) * 3)
    assert found.config.mid == (160,)


def test_fingerprint_does_not_depend_on_layout_or_stored_positions(motion_tensors) -> None:
    half = motion_tensors(24, dtype=torch.float16)
    whole = {f"module.{name}": tensor.float() for name, tensor in half.items() if "pos_encoder" not in name}
    assert motion_weights(half, "a.ckpt").sha256 == motion_weights(whole, "b.ckpt").sha256
    half["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"][0] += 1
    assert motion_weights(half, "a.ckpt").sha256 != motion_weights(whole, "b.ckpt").sha256


class PerFrame(nn.Module):
    """Group norm for each frame, as in the published code; diffusers takes all frames together."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, video_BCFHW: Tensor) -> Tensor:
        return torch.stack([self.norm(frame_BCHW) for frame_BCHW in video_BCFHW.unbind(2)], dim=2)


@pytest.fixture
def adapter() -> MotionAdapter:
    adapter = MotionAdapter(block_out_channels=SMALL, use_motion_mid_block=True, motion_max_seq_length=32)
    for weight in adapter.parameters():
        nn.init.normal_(weight, std=0.2)
    return adapter


@torch.no_grad()
def test_a_motion_adapter_of_diffusers_computes_the_same(tmp_path, adapter) -> None:
    num_frames = 5
    adapter.save_pretrained(tmp_path)
    found = read_motion(tmp_path / "diffusion_pytorch_model.safetensors")
    assert (found.version, found.config.max_frames) == ("v2", 32)
    net = MotionModel(found.config)
    net.load_state_dict(found.tensors)
    for place, channels in found.config.places():
        theirs = adapter.get_submodule(place)
        theirs.norm = PerFrame(theirs.norm)
        features_XCHW = torch.randn(2 * num_frames, channels, 2, 3)
        expected_XCHW = theirs(features_XCHW, num_frames=num_frames)
        torch.testing.assert_close(
            net.get_submodule(place)(features_XCHW, num_frames), expected_XCHW, rtol=1e-5, atol=1e-4
        )


def test_a_motion_adapter_without_middle_block_and_in_half_precision_is_read(tmp_path) -> None:
    adapter = MotionAdapter(
        block_out_channels=SMALL, use_motion_mid_block=False, motion_max_seq_length=24
    ).half()
    torch.save(adapter.state_dict(), tmp_path / "diffusion_pytorch_model.fp16.bin")
    found = read_motion(tmp_path / "diffusion_pytorch_model.fp16.bin")
    assert (found.version, found.config.max_frames, len(found.tensors)) == ("v1", 24, 520)
    assert found.summary.endswith("float16")


def test_file_for_one_layer_a_block_is_told_by_its_modules(tmp_path, motion_tensors) -> None:
    tensors = motion_tensors(rows=24, widths=(32, 64, 96))
    last = ("down_blocks.0", "down_blocks.1", "down_blocks.2"), ("up_blocks.0", "up_blocks.1", "up_blocks.2")
    gone = [f"{level}.motion_modules.{i + 1}." for i, levels in enumerate(last) for level in levels]
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(gone))}
    torch.save(kept, tmp_path / "small.ckpt")
    found = read_motion(tmp_path / "small.ckpt")
    assert found.config.down == ((32,), (64,), (96,))
    assert found.config.up == ((96, 96), (64, 64), (32, 32))
    assert_complete(found, kept)
