import os
import random
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flash_pack.flash_modules.files import tensor_file
from flash_pack.flash_modules.files.tensor_file import (
    check_numbers,
    fingerprint,
    read_tensors,
    some,
    write_tensors,
)

Save = Callable[[dict[str, Tensor], Path], None]


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


SAVERS = {"safetensors": save_file, "zip": torch.save, "legacy": save_legacy}
every_format = pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
pickles = pytest.mark.parametrize("save", [torch.save, save_legacy], ids=["zip", "legacy"])


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {"a.weight": torch.randn(3, 5), "b.bias": torch.randn(7).half(), "c": torch.randn(2).bfloat16()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@every_format
def test_a_file_is_read_by_its_content(tmp_path: Path, tensors, save: Save) -> None:
    save(tensors, tmp_path / "model.ckpt")
    found, metadata = read_tensors(tmp_path / "model.ckpt")
    assert_same(found, tensors)
    assert metadata == {}


@pickles
def test_a_pickle_under_the_name_of_a_safe_file_is_refused(tmp_path: Path, tensors, save: Save) -> None:
    save(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"model.safetensors is a PyTorch file under a wrong name: let its name end in"
    ):
        read_tensors(tmp_path / "model.safetensors")


@pickles
@pytest.mark.parametrize(
    ("wrapped", "prefix"),
    [
        (lambda t: {"epoch": 3, "state_dict": t, "note": "text"}, ""),
        (lambda t: {"module": t}, "module."),
        (lambda t: {**t, "config": {"rows": 24}}, ""),
    ],
)
def test_tensors_in_a_dictionary_are_found(tmp_path: Path, tensors, save: Save, wrapped, prefix: str) -> None:
    save(wrapped(tensors), tmp_path / "model.pt")
    found, _ = read_tensors(tmp_path / "model.pt")
    assert_same(found, {prefix + name: tensor for name, tensor in tensors.items()})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which files are mapped")
@pytest.mark.parametrize("save", [save_file, torch.save], ids=["safetensors", "zip"])
def test_weights_stay_in_the_file_until_they_are_used(tmp_path: Path, tensors, save: Save) -> None:
    path = tmp_path / "model.ckpt"
    save(tensors, path)
    found, _ = read_tensors(path)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert_same(found, tensors)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file mm.ckpt in .*: check the name and the folder"):
        read_tensors(tmp_path / "mm.ckpt")
    with pytest.raises(ValueError, match=r"There is no file"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"<!DOCTYPE html><html>", b"version https://git-lfs", b"\x00" * 64]
)
def test_something_else_under_the_name_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mm.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"mm.safetensors is neither a safetensors nor a PyTorch file: it is empty"
    ):
        read_tensors(path)


@every_format
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, save: Save, kept: float) -> None:
    path = tmp_path / "mm.ckpt"
    save({"a": torch.randn(300, 50), "b": torch.randn(300, 50)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"mm.ckpt is damaged or cut short \(.*\): download it again"):
        read_tensors(path)


@every_format
def test_a_flipped_bit_is_a_sentence_or_does_no_harm(tmp_path: Path, tensors, save: Save) -> None:
    path = tmp_path / "mm.ckpt"
    save(tensors, path)
    content, draw = path.read_bytes(), random.Random(0)
    sentences = []
    for _ in range(200):
        place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        try:
            with warnings.catch_warnings(action="ignore"):
                read_tensors(path)
        except ValueError as error:
            sentences.append(str(error))
    assert 20 < len(sentences) < 200
    assert all(sentence.startswith("mm.ckpt ") for sentence in sentences)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pickles
def test_code_in_a_file_is_not_run(tmp_path: Path, tensors, save: Save) -> None:
    path, target = tmp_path / "mm.ckpt", tmp_path / "touched"
    save({"state_dict": tensors, "extra": Malicious(target)}, path)
    with pytest.raises(
        ValueError, match=r"mm.ckpt was not opened: .* could run code.* use a .safetensors version"
    ):
        read_tensors(path)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the trap is a real one


@every_format
def test_a_file_without_tensors_is_refused(tmp_path: Path, save: Save) -> None:
    save({}, tmp_path / "mm.pt")
    with pytest.raises(ValueError, match=r"mm.pt holds no named tensors"):
        read_tensors(tmp_path / "mm.pt")


@pickles
def test_a_bare_tensor_is_refused(tmp_path: Path, save: Save) -> None:
    save(torch.zeros(3), tmp_path / "mm.pt")
    with pytest.raises(ValueError, match=r"mm.pt holds no named tensors"):
        read_tensors(tmp_path / "mm.pt")


def test_written_tensors_are_read_back(tmp_path: Path, tensors) -> None:
    tensors["transposed"] = torch.randn(3, 5).T
    tensors["trained"] = torch.randn(4, requires_grad=True)
    write_tensors(tmp_path / "a.safetensors", tensors, {"format": "pt", "title": "Wave"})
    found, metadata = read_tensors(tmp_path / "a.safetensors")
    assert_same(found, tensors)
    assert metadata == {"format": "pt", "title": "Wave"}
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_what_was_read_can_be_written_over_its_own_file(tmp_path: Path, tensors) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, tensors, {})
    found, _ = read_tensors(path)
    write_tensors(path, {**found, "d": torch.ones(2)}, {})
    assert_same(read_tensors(path)[0], {**tensors, "d": torch.ones(2)})
    assert_same(found, tensors)


@pytest.mark.parametrize("old", [True, False])
def test_an_interrupted_write_leaves_the_old_file_or_none(
    tmp_path: Path, tensors, monkeypatch, old: bool
) -> None:
    path = tmp_path / "a.safetensors"
    if old:
        write_tensors(path, tensors, {})

    def half(content: dict[str, Tensor], draft: Path, metadata: dict[str, str]) -> None:
        assert draft.parent.parent == path.parent  # on the same disk, where a rename is one step
        draft.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tensor_file, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(path, {"other": torch.ones(3)}, {})
    assert os.listdir(tmp_path) == (["a.safetensors"] if old else [])
    if old:
        assert_same(read_tensors(path)[0], tensors)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_written_file_can_be_read_by_others(tmp_path: Path, tensors) -> None:
    write_tensors(tmp_path / "a.safetensors", tensors, {})
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.safetensors", "plain")]
    assert modes[0] == modes[1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_value_that_is_not_finite_is_refused(bad: float, dtype: torch.dtype) -> None:
    weight = torch.randn(31, 65).to(dtype)
    check_numbers({"a": weight, "empty": torch.zeros(0)}, "mm.ckpt")
    weight[17, 40] = bad
    with pytest.raises(ValueError, match=r"mm.ckpt is broken: b holds values that are not finite"):
        check_numbers({"a": torch.zeros(2), "b": weight}, "mm.ckpt")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64])
def test_other_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(
        ValueError, match=rf"mm.ckpt stores a as {str(dtype)[6:]}, .* take an fp16, bf16 or fp32"
    ):
        check_numbers({"a": torch.zeros(3).to(dtype)}, "mm.ckpt")


def test_fingerprint_is_the_same_for_fp16_and_fp32_of_equal_weights() -> None:
    half = {"a": torch.randn(3, 5).half(), "b": torch.randn(7).half()}
    assert fingerprint(half) == fingerprint({name: tensor.float() for name, tensor in half.items()})
    assert len(fingerprint(half)) == 64


def test_fingerprint_does_not_depend_on_order_or_strides() -> None:
    a, b = torch.randn(3, 5), torch.randn(7)
    assert fingerprint({"a": a, "b": b}) == fingerprint({"b": b, "a": a.T.contiguous().T})


def test_fingerprint_changes_with_a_weight_a_name_and_a_shape() -> None:
    weight = torch.randn(3, 5)
    other = weight.clone()
    other[2, 4] += 0.01
    variants = [
        {"a": weight},
        {"a": other},
        {"b": weight},
        {"a": weight.reshape(5, 3)},
        {"a": weight, "b": weight},
    ]
    assert len({fingerprint(tensors) for tensors in variants}) == len(variants)


def test_some_names_the_first_three() -> None:
    assert some(["b", "a"]) == "a, b"
    assert some("edcba") == "a, b, c and 2 more"
