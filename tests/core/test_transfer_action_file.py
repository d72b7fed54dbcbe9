"""Action files of FlexiAct: ours and released ones, read without running anything, refused with a reason."""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.files.model_card import card_entry, model_card
from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.flash_modules.flash.action_file import read_action
from flash_pack.flash_modules.flexiact.action_file import (
    TransferAction,
    check_fits,
    is_transfer_action,
    read_transfer_action,
    write_transfer_action,
)

L, M, C = 3, 5, 8
RELEASED = "transformer_blocks.{}.attn1.processor.motion_inversion_tokens"
Save = Callable[..., Path]


@pytest.fixture
def action() -> TransferAction:
    return TransferAction(
        name="crouch",
        tokens_LMC=torch.randn(L, M, C),
        steps=2000,
        prompt="a man crouches",
        clip_sha256="ab" * 32,
        licence="CC-BY-4.0",
        header={"flash.note": "kept"},
    )


@pytest.fixture
def path(tmp_path: Path, action: TransferAction) -> Path:
    write_transfer_action(tmp_path / "crouch.safetensors", action)
    return tmp_path / "crouch.safetensors"


@pytest.fixture
def released(tmp_path: Path) -> Save:
    """Writes a released file, with names or values of one's own."""

    def save(change: Callable[[dict[str, Tensor]], object] = lambda tensors: None) -> Path:
        tensors = OrderedDict((RELEASED.format(i), torch.full((1, M, C), float(i))) for i in range(L))
        change(tensors)
        torch.save(tensors, tmp_path / "dance.pt")
        return tmp_path / "dance.pt"

    return save


def test_a_written_action_is_read_back(path: Path, action: TransferAction) -> None:
    found = read_transfer_action(path)
    assert torch.equal(found.tokens_LMC, action.tokens_LMC)
    entries = {"flash.note": "kept", "modelspec.title": "crouch"}
    assert entries.items() <= found.header.items()
    blank = torch.zeros(0)
    assert replace(found, tokens_LMC=blank, header={}) == replace(action, tokens_LMC=blank, header={})
    assert found.summary == (
        'crouch: "a man crouches" 5 tokens of width 8 for 3 layers of CogVideoX-5b-I2V, after 2000 steps'
    )


def test_its_card_says_what_it_is_for_and_keeps_what_it_was_told(path: Path, action: TransferAction) -> None:
    card = model_card(path)
    assert "Learned from: 1 clip (SHA-256 abababababababab)" in card
    assert "Intended use: Letting pictures that one has the right to use perform the action of the" in card
    assert "\n- It was learned from one clip. Not every action is learned so" in card
    own = card_entry(intended_use="none", limits=["much"])
    write_transfer_action(path, replace(action, header=own))
    write_transfer_action(path, read_transfer_action(path))
    assert "Intended use: none\nLimits:\n- much\n" in model_card(path)


def test_a_released_file_is_read(released: Save) -> None:
    found = read_transfer_action(released())
    assert found.name == "dance"
    assert torch.equal(found.tokens_LMC, torch.arange(L)[:, None, None].expand(L, M, C).float())
    assert found.summary == "dance: 5 tokens of width 8 for 3 layers of CogVideoX-5b-I2V"


@pytest.mark.parametrize("prefix", ["module.", "transformer.", "module._orig_mod."])
def test_what_wrappers_put_before_names_is_no_matter(released: Save, prefix: str) -> None:
    def wrap(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    assert read_transfer_action(released(wrap)).tokens_LMC.shape == (L, M, C)


def test_layers_are_in_the_order_of_their_numbers(released: Save) -> None:
    def ten_more(tensors: dict[str, Tensor]) -> None:
        tensors.clear()
        tensors.update({RELEASED.format(i): torch.full((1, M, C), float(i)) for i in reversed(range(12))})

    assert read_transfer_action(released(ten_more)).tokens_LMC[:, 0, 0].tolist() == list(range(12))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (tmp_path / "run").touch, ()

    (tmp_path / "trap.pt").write_bytes(pickle.dumps({RELEASED.format(0): Trap()}))
    with pytest.raises(ValueError, match=r"trap\.pt was not opened"):
        read_transfer_action(tmp_path / "trap.pt")
    assert not (tmp_path / "run").exists()


def test_a_file_says_whether_it_is_such_an_action(path: Path, released: Save, tmp_path: Path) -> None:
    write_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    (tmp_path / "damaged.pt").write_bytes(b"nothing")
    assert is_transfer_action(path)
    assert is_transfer_action(released())
    assert not is_transfer_action(tmp_path / "other.safetensors")
    assert not is_transfer_action(tmp_path / "damaged.pt")


def _drop(layer: int) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(RELEASED.format(layer))


def _set(layer: int, *shape: int, value: float = 0.0) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({RELEASED.format(layer): torch.full(shape, value)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_drop(1), "lacks the tokens of layer 1"),
        (_drop(0), "lacks the tokens of layer 0"),
        (_set(10**9, 1, M, C), "lacks the tokens of layer 3"),
        (_set(1, 1, M, C + 1), "should have one shape"),
        (_set(1, 1, M + 1, C), "should have one shape"),
        (lambda tensors: [_set(i, M * C)(tensors) for i in range(L)], "should have one shape"),
        (lambda tensors: [_set(i, 2, M, C)(tensors) for i in range(L)], "should have one shape"),
        (_set(2, 1, M, C, value=float("nan")), "layer 2 holds values that are not finite"),
        (lambda tensors: tensors.update({RELEASED.format(0): torch.zeros(1, M, C).int()}), "as int32"),
        (
            lambda tensors: [tensors.clear(), tensors.update({"encoder.weight": torch.zeros(2)})],
            "is not an action of FlexiAct .it holds encoder.weight.",
        ),
        (
            lambda tensors: [
                tensors.clear(),
                tensors.update({"a.processor.lora_q.up.weight": torch.zeros(2)}),
            ],
            "is a RefAdapter or a LoRA",
        ),
    ],
)
def test_a_released_file_that_is_not_whole_is_refused(
    released: Save, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=rf"dance\.pt .*{sentence}"):
        read_transfer_action(released(change))


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"layers": "4"}, r"tells of 4 x 5 x 8 .*, and it holds 3 x 5 x 8"),
        ({"width": "3072"}, r"tells of 3 x 5 x 3072"),
        ({"format": "2"}, "of format 2, and this pack reads format 1"),
        ({"base": "CogVideoX1.5-5B-I2V"}, "was learned on CogVideoX1.5-5B-I2V, and this pack"),
        ({"base": ""}, "was learned on a model that it does not name"),
        ({"steps": "many"}, "has a damaged header .steps: many."),
        ({"kind": "compact"}, "is an action of FLASH, learned from several clips"),
        ({"kind": "decoder"}, "is not an action of FlexiAct"),
    ],
)
def test_a_header_that_tells_something_else_is_refused(
    path: Path, entries: dict[str, str], sentence: str
) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {f"flash.{key}": value for key, value in entries.items()})
    with pytest.raises(ValueError, match=rf"crouch\.safetensors .*{sentence}"):
        read_transfer_action(path)


def test_a_file_cut_short_lacks_layers(path: Path) -> None:
    tensors, metadata = read_tensors(path)
    tensors.pop(f"blocks.{L - 1}.tokens")
    write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"tells of 3 x 5 x 8 .*, and it holds 2 x 5 x 8"):
        read_transfer_action(path)


def test_flash_refuses_it_as_an_action_of_its_own(path: Path) -> None:
    with pytest.raises(ValueError, match="FLASH file of the kind 'transfer', not an action"):
        read_action(path)


@pytest.mark.parametrize(("layers", "width"), [(L + 1, C), (L, C + 1)])
def test_an_action_for_another_model_is_refused(action: TransferAction, layers: int, width: int) -> None:
    check_fits(action, num_layers=L, width=C)
    with pytest.raises(
        ValueError, match=f"for 3 layers of width 8, and this model has {layers} of width {width}"
    ):
        check_fits(action, num_layers=layers, width=width)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(ValueError, match="larger than 2 GiB"):
        read_transfer_action(tmp_path / "large.pt")
