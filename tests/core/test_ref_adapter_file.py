"""RefAdapter files: the released one and ours, refused with a reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.files.model_card import model_card
from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.flash_modules.flexiact.ref_adapter_file import (
    PARTS,
    LowRank,
    RefAdapter,
    check_adapter_fits,
    read_ref_adapter,
    write_ref_adapter,
)

L, C, R = 3, 8, 2
Save = Callable[..., Path]
Change = Callable[[dict[str, Tensor]], object]


def _name(layer: int, part: str, role: str) -> str:
    return f"transformer_blocks.{layer}.attn1.processor.lora_{part}.{role}.weight"


@pytest.fixture
def adapter() -> RefAdapter:
    parts = {
        (layer, part): LowRank(down_RC=torch.randn(R, C), up_CR=torch.randn(C, R), alpha=16.0)
        for layer in range(L)
        for part in PARTS
    }
    return RefAdapter(name="adapter", parts=parts, licence="Apache-2.0")


@pytest.fixture
def path(tmp_path: Path, adapter: RefAdapter) -> Path:
    write_ref_adapter(tmp_path / "adapter.safetensors", adapter)
    return tmp_path / "adapter.safetensors"


@pytest.fixture
def released(tmp_path: Path) -> Save:
    def save(change: Change = lambda tensors: None) -> Path:
        tensors = {
            _name(layer, part, role): torch.full((R, C) if role == "down" else (C, R), float(10 * layer + i))
            for layer in range(L)
            for i, part in enumerate(["q", "k", "v", "proj"])
            for role in ("down", "up")
        }
        change(tensors)
        torch.save(tensors, tmp_path / "released.pt")
        return tmp_path / "released.pt"

    return save


def test_a_written_adapter_is_read_back(path: Path, adapter: RefAdapter) -> None:
    found = read_ref_adapter(path)
    assert found.parts.keys() == adapter.parts.keys()
    for place, low_rank in adapter.parts.items():
        assert torch.equal(found.parts[place].down_RC, low_rank.down_RC)
        assert torch.equal(found.parts[place].up_CR, low_rank.up_CR)
        assert found.parts[place].alpha == 16.0
    assert found.licence == "Apache-2.0"
    assert found.summary == "adapter: rank 2, width 8, for 3 layers of CogVideoX-5b-I2V"


def test_its_card_says_what_it_is_for(path: Path) -> None:
    card = model_card(path)
    assert "Intended use: Keeping the look of a picture that one has the right to use" in card
    assert "- It holds no action, and works on CogVideoX-5b-I2V alone." in card
    assert "Licence: Apache-2.0" in card


def test_the_released_file_is_read_with_the_alpha_that_it_does_not_hold(released: Save) -> None:
    found = read_ref_adapter(released())
    for i, part in enumerate(PARTS):
        assert found.parts[2, part].down_RC.unique().tolist() == [20.0 + i]
        assert found.parts[2, part].alpha == 32.0


def test_a_change_is_alpha_by_rank_of_up_times_down() -> None:
    low_rank = LowRank(down_RC=torch.randn(R, C), up_CR=torch.randn(C, R), alpha=32.0)
    x_NC = torch.randn(5, C)
    wanted = 0.7 * (x_NC @ low_rank.down_RC.T @ low_rank.up_CR.T) * 32 / R
    torch.testing.assert_close(x_NC @ low_rank.delta(0.7).T, wanted)


def _set(part: str, role: str, *shape: int, value: float = 0.0) -> Change:
    return lambda tensors: tensors.update({_name(1, part, role): torch.full(shape, value)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop(_name(1, "v", "up")), "lacks v of layer 1"),
        (
            lambda tensors: [tensors.pop(_name(1, "proj", role)) for role in ("up", "down")],
            "lacks out of layer 1",
        ),
        (lambda tensors: tensors.update({_name(10**9, "q", "up"): torch.zeros(C, R)}), "lacks q of layer 3"),
        (_set("k", "down", R + 1, C), "shapes of k of layer 1 are .3, 8. and .8, 2."),
        (_set("k", "down", C), "shapes of k of layer 1"),
        (_set("k", "up", C, R, value=float("inf")), "values that are not finite"),
        (
            lambda tensors: [_set("q", "up", C + 1, R)(tensors), _set("q", "down", R, C + 1)(tensors)],
            "layers have the widths 8, 9",
        ),
        (
            lambda tensors: [tensors.clear(), tensors.update({"a.motion_inversion_tokens": torch.zeros(2)})],
            "is not a RefAdapter",
        ),
        (
            lambda tensors: [tensors.clear(), tensors.update({"unet.lora_a.weight": torch.zeros(2)})],
            "lacks q of layer 0",
        ),
    ],
)
def test_a_file_that_is_not_whole_is_refused(released: Save, change: Change, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"released\.pt .*{sentence}"):
        read_ref_adapter(released(change))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"format": "2"}, "is a RefAdapter of format 2"),
        ({"base": "Wan2.2"}, "is a RefAdapter for Wan2.2, and this pack knows CogVideoX-5b-I2V"),
        ({"kind": "transfer"}, "is not a RefAdapter"),
    ],
)
def test_a_header_that_tells_something_else_is_refused(
    path: Path, entries: dict[str, str], sentence: str
) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {f"flash.{key}": value for key, value in entries.items()})
    with pytest.raises(ValueError, match=rf"adapter\.safetensors {sentence}"):
        read_ref_adapter(path)


@pytest.mark.parametrize(("layers", "width"), [(L + 1, C), (L, C + 1)])
def test_an_adapter_for_another_model_is_refused(adapter: RefAdapter, layers: int, width: int) -> None:
    check_adapter_fits(adapter, num_layers=L, width=C)
    with pytest.raises(
        ValueError, match=f"for 3 layers of width 8, and this model has {layers} of width {width}"
    ):
        check_adapter_fits(adapter, num_layers=layers, width=width)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(2**32 + 1)
    with pytest.raises(ValueError, match="larger than 4 GiB"):
        read_ref_adapter(tmp_path / "large.pt")
