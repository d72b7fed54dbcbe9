"""Runs of training: checkpoints, going on, stopping, several processes; on a model of a few numbers."""

import json
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flash_pack.flash_modules.training import loop, run_folder
from flash_pack.flash_modules.training.loop import Diverged, LoopConfig, Processes, SingleProcess, train
from flash_pack.flash_modules.training.run_folder import Progress, RunFolder

SETTINGS = {"clips": ["a", "b"], "seed": 3}
QUICK = LoopConfig(steps=12, learning_rate=1e-2, save_steps=4, keep=2)


def new_weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        "first": nn.Parameter(torch.randn(3, 4, generator=generator)),
        "second": nn.Parameter(torch.randn(5, generator=generator)),
    }


def loss_on(weights: dict[str, nn.Parameter]) -> Callable[[int], Tensor]:
    def loss(part: int) -> Tensor:
        target = torch.randn(3, 4, generator=torch.Generator().manual_seed(part))
        return (weights["first"] - target).square().mean() + weights["second"].square().sum()

    return loss


def run_at(tmp_path: Path, name: str = "run") -> RunFolder:
    return RunFolder(tmp_path, name, SETTINGS)


def trained(run: RunFolder, config: LoopConfig = QUICK, **more) -> dict[str, nn.Parameter]:
    weights = new_weights()
    train(run, weights, more.pop("loss", None) or loss_on(weights), config, **more)
    return weights


def assert_equal(weights: dict[str, nn.Parameter], others: dict[str, nn.Parameter]) -> None:
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


def test_training_lowers_the_loss_and_leaves_a_table(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    seen: list[Progress] = []
    trained(run, LoopConfig(steps=12, learning_rate=0.2), on_step=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    rows = [line.split(",") for line in (run.path / "loss.csv").read_text().splitlines()]
    assert rows[0] == ["step", "seconds", "loss"]
    assert [int(row[0]) for row in rows[1:]] == list(range(1, 13))
    assert float(rows[-1][2]) < float(rows[1][2])


def test_a_run_that_was_cut_off_goes_on_exactly(tmp_path: Path) -> None:
    whole = trained(run_at(tmp_path, "whole"))
    run = run_at(tmp_path, "cut")
    weights = new_weights()
    loss = loss_on(weights)

    def cut_off(part: int) -> Tensor:
        if part == 7:
            raise RuntimeError("the power is gone")
        return loss(part)

    with pytest.raises(RuntimeError, match="power"):
        train(run, weights, cut_off, QUICK)
    assert run.checkpoints() == [7, 4]
    notes: list[str] = []
    assert_equal(trained(run, on_note=notes.append), whole)
    assert notes == ["Going on from step 7."]
    tables = [(tmp_path / name / "loss.csv").read_text().splitlines() for name in ("whole", "cut")]
    without_seconds = [[(row.split(",")[0], row.split(",")[2]) for row in table] for table in tables]
    assert without_seconds[0] == without_seconds[1]


def _endless(parent: str, steps: int) -> None:
    torch.set_num_threads(1)
    weights = new_weights()
    loss = loss_on(weights)

    def slow(part: int) -> Tensor:
        time.sleep(0.002)
        return loss(part)

    config = LoopConfig(steps=steps, learning_rate=1e-2, save_steps=2, keep=2)
    train(RunFolder(Path(parent), "killed", SETTINGS), weights, slow, config)


def test_kill_9_at_any_moment_loses_nothing_but_time(tmp_path: Path) -> None:
    """Twelve kills at random moments; at each, every checkpoint to be seen is whole."""
    steps, draws = 60, random.Random(5)
    processes = multiprocessing.get_context("fork")
    for _ in range(12):
        child = processes.Process(target=_endless, args=(str(tmp_path), steps))
        child.start()
        time.sleep(draws.uniform(0.02, 0.12))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        if (tmp_path / "killed").is_dir():
            run = run_at(tmp_path, "killed")
            for step in run.checkpoints():
                assert run.read(step).progress.step == step
            assert not list(run.path.glob(".flash-*"))
    config = LoopConfig(steps=steps, learning_rate=1e-2, save_steps=2, keep=2)
    assert_equal(trained(run_at(tmp_path, "killed"), config), trained(run_at(tmp_path, "whole"), config))


@pytest.mark.parametrize("damage", ["trainable.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    run = run_at(tmp_path)
    trained(run)
    (run.path / "checkpoint-12" / damage).write_bytes(b"{")
    notes: list[str] = []
    again = trained(run, on_note=notes.append)
    assert "Checkpoint 12 is damaged and was passed over" in notes[0]
    assert notes[1] == "Going on from step 8."
    assert_equal(again, trained(run_at(tmp_path, "whole")))


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_at(tmp_path)
    trained(run, LoopConfig(steps=4, learning_rate=1e-2))
    kept = run.read(4)

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        trained(run)
    assert run.checkpoints() == [4]
    assert torch.equal(run.read(4).weights["first"], kept.weights["first"])
    assert not list(run.path.glob(".flash-*"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, bad: float) -> None:
    run = run_at(tmp_path)
    weights = new_weights()
    loss = loss_on(weights)
    with pytest.raises(Diverged, match=r"broke off at step 7: .* checkpoint 4 is kept.*lower learning rate"):
        train(run, weights, lambda part: loss(part) * (bad if part == 6 else 1), QUICK)
    assert run.checkpoints() == [4]
    assert all(weight.isfinite().all() for weight in weights.values())


def test_a_stop_file_saves_and_ends(tmp_path: Path) -> None:
    run = run_at(tmp_path)

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            run.stop_file.touch()

    trained(run, on_step=stop)
    assert run.checkpoints() == [3]
    assert_equal(trained(run), trained(run_at(tmp_path, "whole")))


def test_a_run_is_stopped_from_outside_after_its_step(tmp_path: Path) -> None:
    run, asked = run_at(tmp_path), []

    def stopped() -> bool:
        asked.append(None)
        return len(asked) == 5

    trained(run, stopped=stopped)
    assert run.checkpoints()[0] == len(asked) == 5
    assert_equal(trained(run), trained(run_at(tmp_path, "whole")))


class Cancelled(BaseException):
    """No Exception, as the cancel of a host."""


class Backward(torch.autograd.Function):
    """Gives its input, and raises in the backward pass."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        raise Cancelled


@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt, torch.OutOfMemoryError, SystemExit])
def test_whatever_a_callback_raises_the_last_whole_step_is_saved(
    tmp_path: Path, error: type[BaseException]
) -> None:
    run = run_at(tmp_path)

    def raise_at_5(progress: Progress) -> None:
        if progress.step == 5:
            raise error

    with pytest.raises(error):
        trained(run, on_step=raise_at_5)
    assert run.checkpoints() == [5, 4]
    assert_equal(trained(run), trained(run_at(tmp_path, "whole")))


@pytest.mark.parametrize("backward", [False, True])
def test_a_cancel_from_within_a_step_leaves_the_last_whole_one(tmp_path: Path, backward: bool) -> None:
    """The second of two parts raises, so gradients of the first are there already."""
    config = LoopConfig(steps=12, learning_rate=1e-2, save_steps=50, accumulation=2)
    run, weights = run_at(tmp_path), new_weights()
    loss = loss_on(weights)

    def cancelled(part: int) -> Tensor:
        if part < 2 * 6 + 1:
            return loss(part)
        if not backward:
            raise Cancelled
        return Backward.apply(loss(part))

    with pytest.raises(Cancelled):
        train(run, weights, cancelled, config)
    assert run.checkpoints() == [6]
    assert all(weight.grad is None for weight in weights.values())
    kept = run.read(6).weights
    assert all(torch.equal(weight, kept[name]) for name, weight in weights.items())
    rows = (run.path / "loss.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 7)]
    assert_equal(trained(run, config), trained(run_at(tmp_path, "whole"), config))


def test_weights_that_are_half_changed_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, step = run_at(tmp_path), torch.optim.AdamW.step

    def break_off(optimizer, *args, **kwargs):
        step(optimizer, *args, **kwargs)
        if int(optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]) == 7:
            raise Cancelled

    monkeypatch.setattr(loop.torch.optim.AdamW, "step", break_off)
    with pytest.raises(Cancelled):
        trained(run)
    assert run.checkpoints() == [4]
    monkeypatch.undo()
    assert_equal(trained(run), trained(run_at(tmp_path, "whole")))


class Pair:
    """Two processes as two threads that wait for each other."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)  # seconds: the other one may have failed
        self.shared: dict[int, object] = {}

    def meet(self, index: int, value: object) -> list[object]:
        self.shared[index] = value
        self.barrier.wait()
        both = [self.shared[0], self.shared[1]]
        self.barrier.wait()
        return both


class OneOfTwo(SingleProcess):
    def __init__(self, pair: Pair, index: int) -> None:
        self.pair, self.index, self.count = pair, index, 2

    def average_(self, tensors: Iterable[Tensor]) -> None:
        own = list(tensors)
        both = self.pair.meet(self.index, [tensor.clone() for tensor in own])
        for tensor, *values in zip(own, *both, strict=True):
            tensor.copy_((values[0] + values[1]) / 2)

    def any(self, flag: bool) -> bool:
        return any(self.pair.meet(self.index, flag))


def test_two_processes_do_what_one_does_with_twice_the_accumulation(tmp_path: Path) -> None:
    alone = trained(run_at(tmp_path, "alone"), LoopConfig(steps=6, learning_rate=1e-2, accumulation=2))
    pair, results = Pair(), {}

    def work(index: int) -> None:
        processes: Processes = OneOfTwo(pair, index)
        run = RunFolder(tmp_path, "both", SETTINGS, first=False)
        config = LoopConfig(steps=6, learning_rate=1e-2)
        results[index] = trained(run, config, processes=processes)

    run_at(tmp_path, "both")
    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, weight in alone.items():
        assert torch.equal(results[0][name], results[1][name])
        torch.testing.assert_close(weight, results[0][name], rtol=1e-6, atol=1e-7)
    state = json.loads((tmp_path / "both" / "checkpoint-6" / "state.json").read_text())
    assert state["step"] == 6


@pytest.mark.parametrize("name", ["steps", "accumulation", "save_steps", "keep"])
def test_settings_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be 1 or more, but it is 0"):
        LoopConfig(**{name: 0})


@pytest.mark.parametrize("wrong", [{"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"eps": 0.0}])
def test_settings_of_adamw_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must "):
        LoopConfig(**wrong)


def test_the_optimizer_takes_betas_and_eps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, optimizer = [], torch.optim.AdamW

    def watched(*args, **settings):
        made.append(settings)
        return optimizer(*args, **settings)

    monkeypatch.setattr(loop.torch.optim, "AdamW", watched)
    trained(run_at(tmp_path), LoopConfig(steps=1, betas=(0.9, 0.95), eps=1e-6))
    assert (made[0]["betas"], made[0]["eps"]) == ((0.9, 0.95), 1e-6)


def test_settings_that_came_later_are_told_where_they_are_not_the_default() -> None:
    assert LoopConfig().settings.keys() == {"learning_rate", "cooldown", "weight_decay"}
    told = LoopConfig(betas=(0.9, 0.95), eps=1e-6).settings
    assert (told["betas"], told["eps"]) == ((0.9, 0.95), 1e-6)


def test_a_learning_rate_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="`learning_rate` must lie between 0 and 1"):
        LoopConfig(learning_rate=0.0)


def test_the_rate_falls_to_zero_in_the_last_steps() -> None:
    config = LoopConfig(steps=10, learning_rate=0.1, cooldown=0.4)
    rates = [config.learning_rate_at(step) for step in range(10)]
    assert rates == pytest.approx([*[0.1] * 7, 0.075, 0.05, 0.025])
    assert LoopConfig(steps=10, learning_rate=0.1).learning_rate_at(9) == 0.1


def test_the_optimizer_takes_the_rate_of_its_step(tmp_path: Path) -> None:
    ends = {}
    for cooldown in (0.0, 0.5):
        run, seen = run_at(tmp_path, f"cooled-{cooldown}"), [new_weights()["second"].detach()]
        weights = new_weights()
        config = LoopConfig(steps=4, learning_rate=0.1, cooldown=cooldown, weight_decay=0.0)
        train(
            run,
            weights,
            lambda part: weights["second"].sum(),  # noqa: B023  the same gradient in each step
            config,
            on_step=lambda progress: seen.append(weights["second"].detach().clone()),  # noqa: B023
        )
        ends[cooldown] = [float((a - b).mean()) for a, b in pairwise(seen)]
    assert ends[0.0] == pytest.approx([0.1] * 4, rel=1e-4)  # AdamW's steps are as long as the rate
    assert ends[0.5] == pytest.approx([0.1, 0.1, 0.1, 0.05], rel=1e-4)


def test_a_cooldown_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="`cooldown` is a share of the steps between 0 and 1, but it is 20"):
        LoopConfig(cooldown=20)


def test_gradients_are_scaled_down_to_the_largest_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *args, **kwargs):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.cat(gradients).norm()))
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(loop.torch.optim.AdamW, "step", watched)
    weights = new_weights()
    loss = loss_on(weights)
    train(run_at(tmp_path), weights, lambda part: 100 * loss(part), LoopConfig(steps=2, max_norm=0.5))
    assert norms == pytest.approx([0.5, 0.5])
