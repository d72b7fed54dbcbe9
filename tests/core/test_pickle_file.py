"""PyTorch's own files: read as torch.load reads them, and refused at once where they claim too much."""

import io
import resource
import time
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flash_pack.flash_modules.files.pickle_file import read_pickle
from flash_pack.flash_modules.files.pickle_storages import Damaged, Unsafe
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.tests.fuzz.mutations import pickle_attacks

forms = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def module_state() -> dict[str, Tensor]:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 8)).sum().backward()
    optimizer.step()
    return {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def tensors() -> dict[str, Tensor]:
    row = torch.randn(1000)
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int8,
        torch.bool,
        torch.complex64,
    )
    return {
        "parameter": nn.Parameter(torch.randn(3)),
        "transposed": torch.randn(4, 5).T,
        "part": row[10:20],
        "steps": row[15:100:3],
        "none": torch.zeros(0, 3),
        "one": torch.tensor(3.0),
        "expanded": torch.randn(1, 3).expand(4, 3),
        **{str(kind): torch.arange(5).to(kind) for kind in kinds},
    }


VALUES = {
    "epoch": 3,
    "rate": 1e-3,
    "none": None,
    "row": (1, 2.5, "a", True),
    "large": 2**70,
    "small": -5,
    "bytes": b"abc",
    "set": {1, 2},
    "size": torch.Size([2, 3]),
    "counted": Counter([1, 1, 2]),
    "ordered": OrderedDict(a=1),
    "lists": [1, [2, [3]], "\N{PARTY POPPER}", "x" * 300],
    5: "five",
}


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return found.dtype == wanted.dtype and found.shape == wanted.shape and torch.equal(found, wanted)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return found == wanted


@forms
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "content", [module_state, tensors, lambda: VALUES], ids=["state", "tensors", "values"]
)
def test_a_file_is_read_as_torch_reads_it(tmp_path: Path, is_zip: bool, protocol: int, content) -> None:
    made = content()
    path = tmp_path / "a.pt"
    torch.save(made, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    assert same(read_pickle(path), made)
    with warnings.catch_warnings(action="ignore"):
        assert same(read_pickle(path), torch.load(path, weights_only=False))


def test_tensors_of_8_bits_are_read(tmp_path: Path) -> None:
    made = {"a": torch.randn(7).to(torch.float8_e4m3fn)}
    torch.save(made, tmp_path / "a.pt")
    found = read_pickle(tmp_path / "a.pt")["a"]
    assert found.dtype == torch.float8_e4m3fn
    assert torch.equal(found.float(), made["a"].float())


@forms
def test_a_tensor_that_is_changed_leaves_the_file(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=is_zip)
    before = path.read_bytes()
    read_pickle(path)["a"].zero_()
    assert path.read_bytes() == before
    assert torch.equal(read_pickle(path)["a"], torch.ones(3))


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    trap = tmp_path_factory.mktemp("trap") / "trap"
    with warnings.catch_warnings(action="ignore"):
        return list(pickle_attacks({"a": torch.ones(3)}, trap, large=10**7))


def test_what_claims_more_than_it_holds_is_refused_at_once_and_without_memory(
    tmp_path: Path, attacks: list[bytes]
) -> None:
    path, refused = tmp_path / "a.ckpt", []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for attack in attacks:
        path.write_bytes(attack)
        start = time.monotonic()
        try:
            read_tensors(path)
        except ValueError as error:
            refused.append(str(error))
        assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    assert len(refused) > 40
    assert all(sentence.startswith("a.ckpt ") and len(sentence) < 600 for sentence in refused)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (lambda: torch.ones(3).to_sparse(), "sparse tensor"),
        (lambda: torch.empty(10**6, 10**6, device="meta"), "meta tensor"),
        (lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(5)]), "nested tensor"),
    ],
    ids=["sparse", "meta", "nested"],
)
def test_tensors_of_another_kind_are_named(tmp_path: Path, content, kind: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.save({"a": content()}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"a.ckpt is damaged .*it holds a {kind}"):
        read_tensors(tmp_path / "a.ckpt")


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    with (
        zipfile.ZipFile(buffer) as archive,
        zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as squeezed,
    ):
        for name in archive.namelist():
            squeezed.writestr(name, archive.read(name))
    with pytest.raises(ValueError, match=r"its entries are compressed, as PyTorch never does"):
        read_tensors(tmp_path / "a.ckpt")


def test_a_program_of_torchscript_is_not_opened(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"a.ckpt was not opened: .*TorchScript program"):
        read_tensors(tmp_path / "a.ckpt")


@forms
def test_every_cut_is_a_sentence(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.ones(3), "b": {"c": 5}}, path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    for length in range(16, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises((Damaged, Unsafe)):
            read_pickle(path)


def test_names_of_any_length_are_said_short(tmp_path: Path) -> None:
    torch.save({"x" * 10**6: torch.ones(1)}, tmp_path / "a.ckpt")
    (name,) = read_tensors(tmp_path / "a.ckpt")[0]
    assert len(name) == 500
