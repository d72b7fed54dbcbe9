"""What is counted of FlexiAct."""

import pytest
import torch

from benchmarks import bench_transfer
from benchmarks.bench_transfer import counted, hollow, prefix_bytes
from benchmarks.learning_rows import SAVINGS, copied_bytes
from benchmarks.rows_transfer import SMALL


def test_a_hollow_transformer_takes_no_memory() -> None:
    transformer = hollow(SMALL, torch.bfloat16)
    assert {weight.untyped_storage().nbytes() for weight in transformer.parameters()} == {2}


def test_rows_are_of_an_action_and_its_boost() -> None:
    plain, acting, boosted = counted(hollow(SMALL, torch.bfloat16), 5)
    assert plain.tflop < acting.tflop < boosted.tflop
    assert plain.gib < acting.gib


def test_prefix_bytes_are_those_of_keys_and_values() -> None:
    assert prefix_bytes(hollow(SMALL, torch.bfloat16), 5) == 2 * 2 * 5 * 32 * 2


def test_the_page_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    bench_transfer.main(["--dry"])
    page = capsys.readouterr().out
    assert page.count("\n| ") == 4 + 2 + 5
    assert "\n| `--checkpointing cpu --offload blocks` |" in page
    assert "A run of 50 steps with guidance, 15 of them boosted" in page


def test_what_waits_is_copied_twice_in_a_step() -> None:
    transformer = hollow(SMALL, torch.bfloat16)
    blocks = 2 * sum(weight.numel() for weight in transformer.transformer_blocks.parameters())
    copied = [
        copied_bytes(transformer, saving, waiting)
        for saving, waiting in zip(SAVINGS, (0, 0, 100, blocks, blocks + 100), strict=True)
    ]
    assert copied == [0, 0, 200, 2 * blocks, 2 * blocks + 200]
