"""Files as people have them, through ComfyUI's own loader, and the forward pass on the true grid."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flash_pack.flash_modules.backends.comfy import cogvideox as backend
from flash_pack.flash_modules.backends.comfy.cogvideox.names import core_names
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.tests.backends.flexiact_oracle import oracle, small_inputs
from flash_pack.tests.backends.small_cogvideox import small_action, small_transformer
from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_velocity, difference

TRUE = {
    "attention_head_dim": 64,  # which ComfyUI takes for granted
    "num_layers": 2,
    "sample_frames": 49,
    "sample_height": 60,
    "sample_width": 90,
    "max_text_seq_length": 226,
}
"""49 frames of 720 x 480, 226 + 17,550 tokens: what ComfyUI's loader takes for granted, too."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """By diffusers' names."""
    return dict(small_transformer(**TRUE).state_dict())


def loaded(model) -> dict[str, Tensor]:
    return dict(model.model.diffusion_model.state_dict())


def assert_holds(model, weights: Mapping[str, Tensor]) -> None:
    wanted = core_names(weights)
    found = loaded(model)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name].float(), weight.float()) for name, weight in wanted.items())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "transformer."])
@pytest.mark.parametrize("named_by", ["diffusers", "core"])
def test_names_of_every_kind_are_read(weights, tmp_path, prefix: str, named_by: str) -> None:
    named = weights if named_by == "diffusers" else core_names(weights)
    save_file({prefix + name: weight for name, weight in named.items()}, tmp_path / "model.safetensors")
    assert_holds(backend.load_cogvideox(tmp_path / "model.safetensors"), weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_numbers_of_every_kind_are_read(weights, tmp_path, dtype: torch.dtype) -> None:
    stored = {name: weight.to(dtype) for name, weight in weights.items()}
    save_file(stored, tmp_path / "model.safetensors")
    assert_holds(backend.load_cogvideox(tmp_path / "model.safetensors"), stored)


def write_parts(weights: Mapping[str, Tensor], folder: Path, count: int = 3) -> list[Path]:
    """As diffusers shards a transformer."""
    folder.mkdir(parents=True)
    names, files = sorted(weights), []
    for i in range(count):
        files.append(folder / f"diffusion_pytorch_model-{i + 1:05}-of-{count:05}.safetensors")
        save_file({name: weights[name] for name in names[i::count]}, files[-1])
    (folder / "config.json").write_text(json.dumps({"_class_name": "CogVideoXTransformer3DModel"}))
    return files


@pytest.mark.parametrize("chosen", [0, 2])
def test_the_parts_of_a_diffusers_folder_are_one_model(weights, tmp_path, chosen: int) -> None:
    files = write_parts(weights, tmp_path / "CogVideoX-5b-I2V" / "transformer")
    assert_holds(backend.load_cogvideox(files[chosen]), weights)


def test_a_missing_part_is_named(weights, tmp_path) -> None:
    files = write_parts(weights, tmp_path / "transformer")
    files[1].unlink()
    with pytest.raises(ValueError, match=f"is one of 3 parts, and {files[1].name} is not beside it"):
        backend.load_cogvideox(files[0])


def test_a_list_shows_a_model_in_parts_once(weights, tmp_path, monkeypatch) -> None:
    import folder_paths

    write_parts({"a": torch.zeros(1)}, tmp_path / "models" / "transformer")
    save_file({"a": torch.zeros(1)}, tmp_path / "models" / "one.safetensors")
    folders = ([str(tmp_path / "models")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", folders)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    first = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors"
    assert sorted(backend.cogvideox_files()) == ["one.safetensors", first]
    assert backend.check_cogvideox_file(first) is True


def without(weights: Mapping[str, Tensor], pattern: str) -> dict[str, Tensor]:
    return {name: weight for name, weight in weights.items() if not re.search(pattern, name)}


def spoiled(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    patches = weights["patch_embed.proj.weight"]
    return {
        "1.5": weights | {"patch_embed.proj.weight": torch.zeros(len(patches), 256)},
        "text": weights | {"patch_embed.proj.weight": patches[:, :16].contiguous()},
        "inpaint": weights | {"patch_embed.proj.weight": torch.zeros(len(patches), 48, 2, 2)},
        "control": without(weights, "pos_embedding"),
        "gguf": {n: w.to(torch.uint8) if w.ndim == 2 else w for n, w in weights.items()},
        "another": {"model.diffusion_model.input_blocks.0.0.weight": patches},
        "gap": without(weights, r"blocks\.0\.attn1\.to_k"),
        "no end": without(weights, "proj_out"),
        "no block": {n.replace("blocks.1.", "blocks.2."): w for n, w in weights.items()},
    }[how]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("1.5", "is CogVideoX 1.5, or VOID, which is built on it: FlexiAct was made for CogVideoX-5b-I2V"),
        ("text", "is CogVideoX-5b, which makes videos from text alone: FlexiAct was made for"),
        ("inpaint", r"is a CogVideoX for other inputs \(inpainting, control or poses\): FlexiAct was made"),
        ("control", r"is a CogVideoX for other inputs \(inpainting, control or poses\): FlexiAct was made"),
        (
            "gguf",
            r"is quantised in a way that ComfyUI cannot read \(GGUF inside a safetensors file\)",
        ),
        ("another", "is no CogVideoX model: choose the file of CogVideoX-5b-I2V"),
        ("gap", r"is not the whole model, blocks.0.k.bias, blocks.0.k.weight is missing: download it again"),
        ("no end", "is not the whole model, proj_out.bias, proj_out.weight is missing: download it again"),
        ("no block", "is not the whole model, a whole block is missing: download it again"),
    ],
)
def test_other_files_are_refused(weights, tmp_path, how: str, words: str) -> None:
    save_file(spoiled(weights, how), tmp_path / "file.safetensors")
    with pytest.raises(ValueError, match=f"file.safetensors {words}"):
        backend.load_cogvideox(tmp_path / "file.safetensors")


def test_a_damaged_file_is_refused(weights, tmp_path) -> None:
    save_file(weights, tmp_path / "file.safetensors")
    whole = (tmp_path / "file.safetensors").read_bytes()
    (tmp_path / "file.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"file.safetensors is damaged or cut short"):
        backend.load_cogvideox(tmp_path / "file.safetensors")


def test_a_deep_clone_has_positions_of_its_own(weights, tmp_path) -> None:
    """As ComfyUI makes one for training and for a second GPU."""
    save_file(weights, tmp_path / "model.safetensors")
    model = backend.load_cogvideox(tmp_path / "model.safetensors")
    deep = model.clone(force_deepcopy=True)
    assert deep.model is not model.model
    for m in (model, deep, deep.clone()):
        embed = m.object_patches["diffusion_model.patch_embed.forward"].args[0]
        assert embed is m.model.diffusion_model.patch_embed


def test_the_true_grid_is_diffusers(tmp_path) -> None:
    one_layer = TRUE | {"num_layers": 1}
    save_file(small_transformer(**one_layer).state_dict(), tmp_path / "model.safetensors")
    model = backend.load_cogvideox(tmp_path / "model.safetensors")
    inputs = small_inputs((1, 13, 16, 60, 90), text=226)
    performance = Performance(action=small_action(shape=(1, 226, 192)))
    m = backend.transfer_action(model, performance)
    found = comfyui_velocity(m, inputs, 900)
    assert difference(found, oracle(900, inputs, [performance], **one_layer)) <= 1e-5
    assert difference(found, comfyui_velocity(model, inputs, 900)) > 1e-4
