"""Blocks that stay on the CPU until they compute. A second place on the CPU stands in for a GPU."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.cogvideox import add_transfer, keep_blocks_on_cpu, offload
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.tests.backends.flexiact_oracle import small_inputs
from flash_pack.tests.backends.small_cogvideox import LAYERS, small_action, small_adapter, small_transformer


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def second_place(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Memory that stands in for a GPU's: what goes there is a copy."""
    monkeypatch.setattr(offload, "copied", lambda values, device: values.clone())
    return torch.device("cpu")


def test_blocks_are_on_the_device_only_while_they_compute(second_place: torch.device) -> None:
    transformer, inputs = small_transformer(), small_inputs()
    add_transfer(transformer, [Performance(action=small_action())], small_adapter())
    before = inputs.velocity(transformer, 900)
    homes = {name: value.data_ptr() for name, value in transformer.named_parameters()}
    away: list[set[str]] = []

    def look(layer: torch.nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        away.append(
            {name for name, value in transformer.named_parameters() if value.data_ptr() != homes[name]}
        )

    for block in transformer.transformer_blocks:
        block.ff.register_forward_hook(look)
    remove = keep_blocks_on_cpu(transformer, second_place)
    assert torch.equal(inputs.velocity(transformer, 900), before)
    for layer, names in enumerate(away):
        assert names == {name for name in homes if name.startswith(f"transformer_blocks.{layer}.")}
    assert len(away) == LAYERS
    assert homes == {name: value.data_ptr() for name, value in transformer.named_parameters()}
    remove()
    inputs.velocity(transformer, 900)
    assert away[LAYERS:] == [set()] * LAYERS


def test_blocks_are_back_on_the_cpu_after_an_error(second_place: torch.device) -> None:
    transformer = small_transformer()
    homes = [value.data_ptr() for value in transformer.parameters()]
    keep_blocks_on_cpu(transformer, second_place)
    with pytest.raises(RuntimeError):
        transformer.transformer_blocks[0](torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 2))
    assert homes == [value.data_ptr() for value in transformer.parameters()]
