"""Base models that are damaged or wrapped: a sentence that names the file, at once; or read as they are."""

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flash_pack.flash_modules.backends.diffusers.sd15 import find_base, load_base, load_vae
from flash_pack.tests.backends.original_names import checkpoint
from flash_pack.tests.backends.small_models import SD15_WIDTHS, small_text_encoder, small_unet, small_vae
from flash_pack.tests.fuzz.mutations import ODD_VALUES

Tensors = dict[str, Tensor]
PARTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
every_part = pytest.mark.parametrize("part", PARTS)


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base_folder, tmp_path / "base")


def assert_refused(folder: Path, match: str, tokenizer: Path | None = None) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=match) as caught:
        load_base(find_base(folder, tokenizer))
    assert not isinstance(caught.value, UnicodeError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert time.monotonic() - start < 20


def config_of(folder: Path, part: str) -> Path:
    return folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")


@pytest.mark.parametrize("part", [*PARTS, "scheduler"])
@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"5", b"{", b"\xff\xfe", b"[" * 10**5, b"\0" * 50])
def test_a_config_that_is_no_object_is_named(folder: Path, part: str, content: bytes) -> None:
    config_of(folder, part).write_bytes(content)
    assert_refused(folder, rf"{part}/(scheduler_)?config\.json ")


@every_part
def test_odd_values_of_a_config_are_a_sentence_or_do_no_harm(folder: Path, part: str) -> None:
    file = config_of(folder, part)
    config, draw = json.loads(file.read_text()), random.Random(part)
    refused = 0
    for _ in range(24):
        file.write_text(json.dumps({**config, draw.choice(sorted(config)): draw.choice(ODD_VALUES)}))
        try:
            find_base(folder).vae_factor  # noqa: B018
            load_base(find_base(folder))
        except ValueError as error:
            refused += not isinstance(error, UnicodeError)
    assert refused > 5


@every_part
def test_a_config_that_counts_without_end_is_refused_at_once(folder: Path, part: str) -> None:
    key = {"unet": "layers_per_block", "vae": "layers_per_block", "text_encoder": "num_hidden_layers"}[part]
    file = config_of(folder, part)
    file.write_text(json.dumps({**json.loads(file.read_text()), key: 10**6}))
    assert_refused(folder, rf"config\.json is damaged: `{key}` is 1000000, as in no model")


def test_a_config_that_fetches_code_is_not_followed(folder: Path) -> None:
    file = config_of(folder, "text_encoder")
    more = {"attn_implementation": "someone/kernel", "auto_map": {"AutoModel": "x--y.Z"}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **more, "quantization_config": {"a": 1}}))
    load_base(find_base(folder))


@every_part
def test_a_config_with_fewer_layers_than_the_weights_is_refused(folder: Path, part: str) -> None:
    if part == "text_encoder":
        pytest.skip("a text encoder may have more: some are read up to their last layer but one")
    file = config_of(folder, part)
    file.write_text(json.dumps({**json.loads(file.read_text()), "layers_per_block": 1}))
    assert_refused(folder, rf"The weights in .*{part} do not fit its config.json")


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "0-d": lambda t: t.reshape(-1)[0].clone(),
    "1-d": lambda t: t.reshape(-1).clone(),
    "empty": lambda t: t[:0].clone(),
    "absurd": lambda t: torch.empty(2**40, 0),
    "transposed": lambda t: t.transpose(0, -1).contiguous(),
    "whole numbers": lambda t: t.to(torch.int8),
    "complex": lambda t: t.to(torch.complex64),
    "not finite": lambda t: torch.full_like(t, float("nan")),
}
FIRST = {
    "unet": "conv_in.weight",
    "vae": "decoder.conv_in.weight",
    "text_encoder": "encoder.layers.0.mlp.fc1.weight",
}


def change(file: Path, mark: str, how: Callable[[Tensor], Tensor]) -> None:
    weights = load_file(file)
    (name,) = [name for name in weights if name.endswith(mark)]
    save_file({**weights, name: how(weights[name])}, file, {"format": "pt"})


@every_part
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_another_shape_in_a_folder_are_refused(folder: Path, part: str, shape: str) -> None:
    change(folder / part / PARTS[part], FIRST[part], SHAPES[shape])
    assert_refused(
        folder, "do not fit its config.json" if shape != "not finite" else "base is broken: .*finite"
    )


BAD_PICKLES: dict[str, Callable[[Path, Tensors], object]] = {
    "empty": lambda file, weights: file.write_bytes(b""),
    "page": lambda file, weights: file.write_bytes(b"<!DOCTYPE html>"),
    "cut": lambda file, weights: (torch.save(weights, file), file.write_bytes(file.read_bytes()[:5000])),
    "cut legacy": lambda file, weights: (
        torch.save(weights, file, _use_new_zipfile_serialization=False),
        file.write_bytes(file.read_bytes()[:5000]),
    ),
    "list": lambda file, weights: torch.save([1, 2], file),
    "no tensors": lambda file, weights: torch.save({"a": 1}, file),
    "lists": lambda file, weights: torch.save({name: [1] for name in weights}, file),
    "sparse": lambda file, weights: torch.save({name: torch.ones(3).to_sparse() for name in weights}, file),
    "meta": lambda file, weights: torch.save({n: t.to("meta") for n, t in weights.items()}, file),
}


@every_part
@pytest.mark.parametrize("bad", BAD_PICKLES)
def test_bad_pickled_weights_are_refused(folder: Path, part: str, bad: str) -> None:
    BAD_PICKLES[bad](to_bin(folder, part), load_weights(folder, part))
    assert_refused(folder, rf"The weights in .*{part} cannot be read .*download them again")


_kept: dict[str, Tensors] = {}


def load_weights(folder: Path, part: str) -> Tensors:
    return _kept[part]


def to_bin(folder: Path, part: str) -> Path:
    """Where the part's weights lie as PyTorch's own file, once they are written; the other file is gone."""
    file = folder / part / PARTS[part]
    _kept[part] = load_file(file)
    file.unlink()
    return folder / part / ("pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin")


@every_part
@pytest.mark.parametrize("wrapped", ["plain", "legacy", "wrapped", "averaged", "parts"])
def test_weights_of_pytorchs_own_are_read(folder: Path, part: str, wrapped: str) -> None:
    file = to_bin(folder, part)
    weights = load_weights(folder, part)
    names = sorted(weights)
    if wrapped == "parts":
        for i, chosen in enumerate((names[::2], names[1::2]), 1):
            torch.save({n: weights[n] for n in chosen}, file.with_name(f"{file.stem}-0000{i}-of-00002.bin"))
    else:
        content: Any = weights
        if wrapped in ("wrapped", "averaged") and part != "text_encoder":
            content = {"model_state_dict": {f"_orig_mod.{name}": t for name, t in weights.items()}}
        if wrapped == "averaged" and part != "text_encoder":
            content["ema_state_dict"] = {name: t + 1 for name, t in weights.items()}
        torch.save(content, file, _use_new_zipfile_serialization=wrapped != "legacy")
    model = getattr(load_base(find_base(folder)), part)
    wanted = {"unet": small_unet, "vae": small_vae, "text_encoder": small_text_encoder}[part]()
    assert_same(model, wanted)


def assert_same(model: nn.Module, wanted: nn.Module) -> None:
    weights = wanted.state_dict()
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", ""),
        ("vocab.json", "{}"),
        ("vocab.json", "[]"),
        ("vocab.json", "null"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", '{"a": 1000000000}'),
        ("vocab.json", "[" * 10**5),
        ("merges.txt", "\0"),
        ("merges.txt", "#version: 0.2\na b\n"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"version": "1.0", "model": null}'),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"bos_token": 5, "eos_token": []}'),
        ("special_tokens_map.json", "[1]"),
    ],
)
def test_a_damaged_tokenizer_is_refused_or_does_no_harm(folder: Path, name: str, content: str) -> None:
    (folder / "tokenizer" / name).write_text(content)
    if name in ("vocab.json", "tokenizer_config.json"):
        assert_refused(folder, r"[Tt]he tokenizer in .*tokenizer")
        return
    try:
        load_base(find_base(folder))
    except ValueError as error:
        assert "tokenizer in " in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def original() -> Tensors:
    return checkpoint(small_unet(widths=SD15_WIDTHS), small_vae(), small_text_encoder())


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "model_state_dict.", "module._orig_mod."]
)
def test_a_single_file_under_a_prefix_is_read(
    original: Tensors, tokenizer_folder: Path, tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({prefix + name: tensor for name, tensor in original.items()}, path)
    assert_same(load_base(find_base(path, tokenizer_folder)).unet, small_unet(widths=SD15_WIDTHS))


def test_of_plain_and_averaged_parts_of_a_single_file_the_plain_ones_are_read_and_it_is_said(
    original: Tensors, tokenizer_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.ckpt"
    unet = {name: t + 1 for name, t in original.items() if name.startswith("model.diffusion_model.")}
    torch.save({"state_dict": original, "ema_state_dict": unet}, path)
    base = load_base(find_base(path, tokenizer_folder))
    assert_same(base.unet, small_unet(widths=SD15_WIDTHS))
    assert base.note == "its plain weights; the averaged ones (EMA, under ema_state_dict) are left out"


ORIGINAL = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.1.0.out_layers.3.weight",
    "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    "first_stage_model.encoder.down.0.block.0.conv1.weight",
    "first_stage_model.decoder.conv_in.weight",
    "first_stage_model.decoder.mid.attn_1.q.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
)


@pytest.mark.parametrize("name", ORIGINAL)
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_of_another_shape_in_a_single_file_are_refused(
    original: Tensors, tokenizer_folder: Path, tmp_path: Path, name: str, shape: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({**original, name: SHAPES[shape](original[name])}, path)
    if shape == "transposed" and original[name].shape == original[name].transpose(0, -1).shape:
        pytest.skip("it has the same shape either way")
    assert_refused(path, r"model\.safetensors ", tokenizer_folder)
    with_vae = path if name.startswith("first") else None
    if with_vae:
        with pytest.raises(ValueError, match=r"model\.safetensors "):
            load_vae(with_vae)


def test_a_vae_file_is_built_by_the_config_beside_it(tmp_path: Path) -> None:
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        layers_per_block=1,
        scaling_factor=0.7,
    )
    vae.save_pretrained(tmp_path)
    found = load_vae(tmp_path / PARTS["vae"])
    assert_same(found, vae)
    assert found.config.scaling_factor == 0.7
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        load_vae(tmp_path / PARTS["vae"])


def test_a_vae_file_under_the_names_of_diffusers_is_read(base_folder: Path, tmp_path: Path) -> None:
    assert_same(load_vae(base_folder / "vae" / PARTS["vae"]), small_vae())
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(base_folder / "vae" / PARTS["vae"])
    for new, name in old.items():
        weights = {n.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): t for n, t in weights.items()}
    save_file({f"vae.{name}": tensor for name, tensor in weights.items()}, tmp_path / "vae.safetensors")
    assert_same(load_vae(tmp_path / "vae.safetensors"), small_vae())
    folder = shutil.copytree(base_folder / "vae", tmp_path / "folder")
    save_file(weights, folder / PARTS["vae"])
    assert_same(load_vae(folder), small_vae())
