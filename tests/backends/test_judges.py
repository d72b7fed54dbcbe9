from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from einops import reduce
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, VideoMAEConfig, VideoMAEForVideoClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from flash_pack.flash_modules.evaluation.judges import videomae
from flash_pack.flash_modules.evaluation.judges.clip import (
    ClipJudge,
    image_alignment,
    temporal_consistency,
    text_alignment,
)
from flash_pack.flash_modules.evaluation.judges.find import ALL, CLIP, I3D_RGB, VIDEOMAE, find_judge, missing
from flash_pack.flash_modules.evaluation.judges.i3d import (
    I3d,
    I3dJudge,
    colours,
    cosine,
    flow_values,
)
from flash_pack.flash_modules.evaluation.judges.preprocess import OPENAI, evenly, filled_square, normalised
from flash_pack.flash_modules.evaluation.judges.videomae import VideoMaeJudge, renamed
from flash_pack.tests.backends.small_judges import mae_names, save_clip, save_videomae
from flash_pack.tests.core.made_videos import scene

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(video_FHWC: Tensor) -> list[Image.Image]:
    return [Image.fromarray((frame * 255).round().byte().numpy()) for frame in video_FHWC]


def whole(video_FHWC: Tensor) -> Tensor:
    """The video as a file of 8 bits gives it."""
    return (video_FHWC * 255).round() / 255


# What the judges see


@pytest.mark.parametrize("size", [(64, 96), (300, 230), (512, 512)])
def test_frames_are_seen_as_the_librarys_path_through_pillow_gives_them(size: tuple[int, int]) -> None:
    small_FHWC = whole(scene()[:2])
    enlarged = nnf.interpolate(small_FHWC.permute(0, 3, 1, 2), size=size, mode="bicubic").clamp(0, 1)
    video_FHWC = whole(enlarged.permute(0, 2, 3, 1))
    wanted_FCHW = torch.from_numpy(
        np.stack(CLIPImageProcessorPil()(pictures(video_FHWC), return_tensors="np")["pixel_values"])
    )
    found_FCHW = normalised(filled_square(video_FHWC, 224), OPENAI)
    assert found_FCHW.shape == wanted_FCHW.shape
    levels = (found_FCHW - wanted_FCHW).abs() * 255 * torch.tensor(OPENAI[1])[:, None, None]
    assert levels.max() < 1.01  # Pillow rounds after each direction
    assert levels.mean() < 0.25


def test_indices_go_evenly_from_the_first_to_the_last() -> None:
    assert evenly(16, 16) == list(range(16))
    assert evenly(9, 5) == [0, 2, 4, 6, 8]
    assert evenly(3, 5) == [0, 0, 1, 2, 2]
    assert evenly(7, 1) == [0]


# CLIP


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("small") / "clip")


def test_clip_gives_what_the_library_gives_for_the_same_folder(clip_folder: Path) -> None:
    judge, video_FHWC = ClipJudge(clip_folder, CPU), whole(scene()[:3])
    model = CLIPModel.from_pretrained(clip_folder, local_files_only=True).eval()
    seen = torch.from_numpy(
        np.stack(CLIPImageProcessorPil()(pictures(video_FHWC), return_tensors="np")["pixel_values"])
    )
    tokens = judge._tokenizer("a person is jumping", return_tensors="pt")
    with torch.inference_mode():
        wanted = model(pixel_values=seen, input_ids=tokens.input_ids)
    torch.testing.assert_close(judge.frame_features(video_FHWC), wanted.image_embeds, atol=2e-3, rtol=0)
    torch.testing.assert_close(
        judge.text_features("a person is jumping"), wanted.text_embeds, atol=1e-5, rtol=0
    )
    assert judge.name == "CLIP 32x2, patch 56"


def test_clip_reads_long_texts_up_to_its_end(clip_folder: Path) -> None:
    judge = ClipJudge(clip_folder, CPU)
    assert judge.text_features("a person is jumping " * 50).isfinite().all()


def test_alignments_are_means_of_cosines_in_percent() -> None:
    frames_FC, other_1C = nnf.normalize(torch.randn(5, 7), dim=-1), nnf.normalize(torch.randn(1, 7), dim=-1)
    cosines = [nnf.cosine_similarity(frame, other_1C[0], dim=0).item() for frame in frames_FC]
    steps = [nnf.cosine_similarity(a, b, dim=0).item() for a, b in pairwise(frames_FC)]
    for alignment in (text_alignment, image_alignment):
        assert alignment(frames_FC, other_1C) == pytest.approx(100 * sum(cosines) / 5, abs=1e-4)
    assert temporal_consistency(frames_FC) == pytest.approx(100 * sum(steps) / 4, abs=1e-4)


def test_a_folder_that_is_no_clip_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"holds no CLIP, as its config.json tells"):
        ClipJudge(tmp_path, CPU)
    (tmp_path / "config.json").write_text((clip_folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"There is no file model.safetensors"):
        ClipJudge(tmp_path, CPU)
    save_file({"logit_scale": torch.ones(())}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"is no file of this judge: .* weights are missing or have another"):
        ClipJudge(tmp_path, CPU)
    (tmp_path / "model.safetensors").write_bytes((clip_folder / "model.safetensors").read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"The tokenizer in .* cannot be read .* put back its vocab.json"):
        ClipJudge(tmp_path, CPU)


# VideoMAE


def mae_by_hand(weights: Mapping[str, Tensor], video_FHWC: Tensor, depth: int, heads: int) -> Tensor:
    """VideoMAE as its paper has it, by the published names: features (C)."""
    video_CFHW = video_FHWC.permute(3, 0, 1, 2)
    conv = weights["patch_embed.proj.weight"]
    tokens_CN = nnf.conv3d(video_CFHW[None], conv, weights["patch_embed.proj.bias"], conv.shape[2:])[0]
    x = tokens_CN.flatten(1).T
    n, c = x.shape
    angles = torch.arange(n).double()[:, None] / 10000 ** (2 * (torch.arange(c) // 2) / c).double()
    x = x + torch.where(torch.arange(c) % 2 == 0, angles.sin(), angles.cos()).float()

    def norm(values: Tensor, name: str) -> Tensor:
        return nnf.layer_norm(values, (c,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    for i in range(depth):
        w = {name.removeprefix(f"blocks.{i}."): value for name, value in weights.items()}
        bias = torch.cat([w["attn.q_bias"], torch.zeros(c), w["attn.v_bias"]])
        q, k, v = (norm(x, f"blocks.{i}.norm1") @ w["attn.qkv.weight"].T + bias).chunk(3, dim=-1)
        parts = []
        for h in range(heads):
            own = slice(h * c // heads, (h + 1) * c // heads)
            scores = q[:, own] @ k[:, own].T / (c // heads) ** 0.5
            parts.append(scores.softmax(dim=-1) @ v[:, own])
        x = x + torch.cat(parts, dim=-1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
        hidden = nnf.gelu(norm(x, f"blocks.{i}.norm2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
        x = x + hidden @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    return norm(x.mean(dim=0), "fc_norm")


@pytest.fixture(scope="module")
def mae(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("mae") / "vit_small.pth"
    return path, save_videomae(path)


def test_videomae_equals_its_paper_by_hand(mae: tuple[Path, dict[str, Tensor]]) -> None:
    path, weights = mae
    judge = VideoMaeJudge(path, CPU)
    video_FHWC = nnf.interpolate(scene().permute(0, 3, 1, 2), size=(224, 224)).permute(0, 2, 3, 1)
    sixteen_FHWC = torch.cat([video_FHWC, video_FHWC.flip(0)])
    wanted_C = mae_by_hand(weights, sixteen_FHWC, depth=2, heads=3)
    torch.testing.assert_close(judge.features(sixteen_FHWC), wanted_C, atol=1e-4, rtol=1e-4)
    assert judge.name == "VideoMAE 264x2, patch 56, 7 classes"
    assert not judge.is_cd_fvd


def test_videomae_sees_videos_of_other_sizes_and_lengths(mae: tuple[Path, dict[str, Tensor]]) -> None:
    judge = VideoMaeJudge(mae[0], CPU)
    assert judge.features(scene()).shape == judge.features(scene()[:3, :, :40]).shape == (264,)


def test_videomae_sees_sixteen_frames_from_the_first_to_the_last(mae: tuple[Path, dict[str, Tensor]]) -> None:
    judge = VideoMaeJudge(mae[0], CPU)
    video_FHWC = torch.rand(46, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(judge.features(video_FHWC), judge.features(video_FHWC[::3]))


def test_videomae_shrinks_without_antialiasing(mae: tuple[Path, dict[str, Tensor]]) -> None:
    """At half the size each new pixel lies in the middle of four."""
    judge = VideoMaeJudge(mae[0], CPU)
    video_FHWC = torch.rand(16, 448, 448, 3, generator=torch.Generator().manual_seed(0))
    half_FHWC = reduce(video_FHWC, "f (h y) (w x) c -> f h w c", "mean", y=2, x=2)
    torch.testing.assert_close(judge.features(video_FHWC), judge.features(half_FHWC), atol=1e-4, rtol=1e-4)


def test_cd_fvd_is_vit_giant_of_something_something(
    mae: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert videomae._GIANT == (1408, 40, 14, 174)  # width, layers, patch, classes
    monkeypatch.setattr(videomae, "_GIANT", (264, 2, 56, 7))
    assert VideoMaeJudge(mae[0], CPU).is_cd_fvd


def test_the_names_of_vit_giant_are_those_of_the_library() -> None:
    published = mae_names(width=1408, depth=40, inner=6144, patch=14, classes=174)
    config = VideoMAEConfig(
        patch_size=14,
        hidden_size=1408,
        num_hidden_layers=40,
        num_attention_heads=16,
        intermediate_size=6144,
        num_labels=174,
    )
    with torch.device("meta"):
        library = VideoMAEForVideoClassification(config).state_dict()
        found = renamed({name: torch.empty(shape) for name, shape in published.items()})
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in library.items()}


def test_files_that_are_no_videomae_are_refused(mae: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"patch_embed.proj.weight": torch.ones(3)}, path)
    with pytest.raises(ValueError, match=r"other.pth holds no VideoMAE that tells actions"):
        VideoMaeJudge(path, CPU)
    torch.save({name: value for name, value in mae[1].items() if "head" not in name}, path)
    with pytest.raises(ValueError, match=r"holds no VideoMAE that tells actions \(it has no patches"):
        VideoMaeJudge(path, CPU)
    torch.save({name: value for name, value in mae[1].items() if "blocks.1.mlp" not in name}, path)
    with pytest.raises(ValueError, match="is no file of this judge: 4 of its"):
        VideoMaeJudge(path, CPU)


# I3D

_MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def i3d_shapes(channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the published weights, without the classes' own."""
    units = [("Conv3d_1a_7x7", channels, 64, 7), ("Conv3d_2b_1x1", 64, 64, 1), ("Conv3d_2c_3x3", 64, 192, 3)]
    for name, (inner, b0, b1a, b1b, b2a, b2b, b3b) in _MIXED.items():
        for branch, start, end, kernel in (
            ("b0", inner, b0, 1),
            ("b1a", inner, b1a, 1),
            ("b1b", b1a, b1b, 3),
            ("b2a", inner, b2a, 1),
            ("b2b", b2a, b2b, 3),
            ("b3b", inner, b3b, 1),
        ):
            units.append((f"Mixed_{name}.{branch}", start, end, kernel))
    for name, start, end, kernel in units:
        yield f"{name}.conv3d.weight", (end, start, kernel, kernel, kernel)
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.bn.{part}", (end,)


def i3d_weights(channels: int) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, shape in i3d_shapes(channels):
        if name.endswith("conv3d.weight"):
            weights[name] = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5
        else:
            weights[name] = (
                0.9 + 0.2 * torch.rand(shape) if not name.endswith("mean") else 0.1 * torch.randn(shape)
            )
    return weights


def i3d_by_hand(weights: Mapping[str, Tensor], video: Tensor) -> Tensor:
    """The network by its weights alone, as TensorFlow pads it."""

    def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        for dim, (k, s) in enumerate(zip(kernel, stride, strict=True), start=2):
            size = x.shape[dim]
            total = max(0, k - (s if size % s == 0 else size % s))
            shape = list(x.shape)
            for count, is_front in ((total // 2, True), (total - total // 2, False)):
                shape[dim] = count
                zeros = torch.zeros(shape)
                x = torch.cat([zeros, x] if is_front else [x, zeros], dim=dim)
        return x

    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        w = weights[f"{name}.conv3d.weight"]
        x = nnf.conv3d(same(x, w.shape[2:], (stride,) * 3), w, stride=stride)
        mean, var = (weights[f"{name}.bn.running_{part}"].view(1, -1, 1, 1, 1) for part in ("mean", "var"))
        gain, bias = (weights[f"{name}.bn.{part}"].view(1, -1, 1, 1, 1) for part in ("weight", "bias"))
        return ((x - mean) / (var + 0.001).sqrt() * gain + bias).clamp(min=0)

    def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        return nnf.max_pool3d(same(x, kernel, stride), kernel, stride)

    def mixed(x: Tensor, name: str) -> Tensor:
        name = f"Mixed_{name}."
        return torch.cat(
            [
                unit(x, f"{name}b0"),
                unit(unit(x, f"{name}b1a"), f"{name}b1b"),
                unit(unit(x, f"{name}b2a"), f"{name}b2b"),
                unit(pool(x, (3, 3, 3), (1, 1, 1)), f"{name}b3b"),
            ],
            dim=1,
        )

    x = pool(unit(video, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
    x = pool(unit(unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3"), (1, 3, 3), (1, 2, 2))
    x = pool(mixed(mixed(x, "3b"), "3c"), (3, 3, 3), (2, 2, 2))
    for name in ("4b", "4c", "4d", "4e", "4f"):
        x = mixed(x, name)
    x = mixed(mixed(pool(x, (2, 2, 2), (2, 2, 2)), "5b"), "5c")
    return x.mean(dim=(2, 3, 4))


def test_i3d_has_the_published_names_and_equals_its_layers_by_hand(tmp_path: Path) -> None:
    weights, video_FCHW = i3d_weights(3), torch.rand(9, 3, 40, 56) * 2 - 1
    path = tmp_path / "rgb_imagenet.pt"
    logits = {"logits.conv3d.weight": torch.zeros(400, 1024, 1, 1, 1), "logits.conv3d.bias": torch.zeros(400)}
    torch.save({**weights, **logits}, path, _use_new_zipfile_serialization=False)
    wanted_C = i3d_by_hand(weights, video_FCHW.permute(1, 0, 2, 3)[None])[0]
    found_C = I3dJudge(path, "rgb", CPU).features(video_FCHW)
    assert wanted_C.std() > 1e-3
    torch.testing.assert_close(found_C, wanted_C, atol=1e-4, rtol=1e-3)


def test_i3d_of_flow_has_two_channels_and_the_published_number_of_weights() -> None:
    for channels, count in ((3, 12_287_264), (2, 12_265_312)):
        with torch.device("meta"):
            network = I3d(channels)
        named = {n: tuple(v.shape) for n, v in network.state_dict().items() if "num_batches" not in n}
        assert named == dict(i3d_shapes(channels))
        assert sum(p.numel() for p in network.parameters()) == count


def test_i3d_sees_colours_and_flow_from_minus_1_to_1() -> None:
    seen_FCHW = colours(scene()[:2])
    assert seen_FCHW.shape == (2, 3, 224, 224)
    assert -1 <= seen_FCHW.min() < -0.5 < 0.5 < seen_FCHW.max() <= 1
    assert flow_values(torch.tensor([-30.0, -20.0, 5.0, 40.0])).tolist() == [-1.0, -1.0, 0.25, 1.0]
    assert cosine(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])) == pytest.approx(0.96)


def test_weights_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "flow_imagenet.pt"
    torch.save(i3d_weights(2), path)
    with pytest.raises(ValueError, match=r"flow_imagenet.pt is no file of this judge: 1 of .*Conv3d_1a"):
        I3dJudge(path, "rgb", CPU)


# Where they lie


def test_judges_are_found_in_the_folder_and_in_the_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "flash_pack.flash_modules.evaluation.judges.find"
    monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for judge in ALL:
        assert find_judge(judge, tmp_path) is None
        assert judge.names[0] in missing(judge)
        assert "https://" in missing(judge)
    snapshot = tmp_path / "hub" / "models--openai--clip-vit-large-patch14" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    giant = tmp_path / "hub" / "models--OpenGVLab--InternVideoMAE_models" / "snapshots" / "1" / "mae-g"
    giant.mkdir(parents=True)
    (giant / VIDEOMAE.names[0]).touch()
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "hub" / "checkpoints" / "rgb_imagenet.pt").touch()
    assert find_judge(CLIP, None) == snapshot
    assert find_judge(VIDEOMAE, None) == giant / VIDEOMAE.names[0]
    assert find_judge(I3D_RGB, None) == tmp_path / "torch" / "hub" / "checkpoints" / "rgb_imagenet.pt"
    (tmp_path / "rgb_imagenet.pt").touch()
    assert find_judge(I3D_RGB, tmp_path) == tmp_path / "rgb_imagenet.pt"
