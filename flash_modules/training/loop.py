"""The training loop, without a host and without a model: steps, checkpoints, stopping, going on."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..files.tensor_file import some
from .exam import Exam, ExamRecord, Marks
from .losses import Diverged as Diverged  # raised here
from .losses import LossTable
from .run_folder import Checkpoint, Progress, RunFolder

Shield = Callable[[], AbstractContextManager[object]]
"""Holds back, as long as it lasts, what else would break in: a second Ctrl-C."""

MicroBatchLoss = Callable[[int], Tensor]
"""``micro_batch_loss(number) -> loss``: a function of the micro-batch's number and of the weights alone."""


class Processes(Protocol):
    """The processes that train together; accelerate's in the command line, else the single one."""

    count: int
    index: int

    def backward(self, loss: Tensor) -> None: ...

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Put the mean over all processes into each tensor."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""


class SingleProcess:
    """One process, alone."""

    count, index = 1, 0

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def average_(self, tensors: Iterable[Tensor]) -> None:
        pass

    def any(self, flag: bool) -> bool:
        return flag


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Settings of AdamW and of the run. Not in the paper: all but rate and number of steps."""

    steps: int = 20_000
    learning_rate: float = 5e-5
    cooldown: float = 0.0
    """Share of the steps, the last ones, in which the rate falls linearly to 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's averages of the gradient and of its square."""
    eps: float = 1e-8
    """Added by AdamW where it divides."""
    weight_decay: float = 1e-2
    max_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    accumulation: int = 1
    """Micro-batches of a step in each process; their gradients are averaged."""
    save_steps: int = 500
    """Steps between checkpoints."""
    save_seconds: float = 600.0
    """Time after which a checkpoint is written in any case."""
    keep: int = 3
    """Checkpoints that are kept, beside the best."""

    def __post_init__(self) -> None:
        for name in ("steps", "accumulation", "save_steps", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more, but it is {getattr(self, name)}.")
        if not 0 < self.learning_rate < 1:
            raise ValueError(
                f"`learning_rate` must lie between 0 and 1, but it is {self.learning_rate}: 5e-5 "
                "is the paper's."
            )
        if not 0.0 <= self.cooldown <= 1.0:
            raise ValueError(
                f"`cooldown` is a share of the steps between 0 and 1, but it is {self.cooldown}."
            )
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"`betas` must lie between 0 and 1, but they are {self.betas}.")
        if not 0.0 < self.eps < math.inf:
            raise ValueError(f"`eps` must be above 0, but it is {self.eps}.")
        for name in ("weight_decay", "max_norm", "save_seconds"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be 0 or more, but it is {getattr(self, name)}.")

    def learning_rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        cooling = self.cooldown * self.steps
        return self.learning_rate * min(1.0, (self.steps - step) / cooling if cooling else 1.0)

    @property
    def settings(self) -> dict[str, Any]:
        """What may not change while a run goes on.

        Settings that came later are told only where they are not the default, which they were before: so
        runs from then go on.
        """
        names = ["learning_rate", "cooldown", "weight_decay"]
        names += [name for name in ("betas", "eps") if getattr(self, name) != getattr(LoopConfig, name)]
        return {name: getattr(self, name) for name in names}


def train(
    run: RunFolder,
    weights: Mapping[str, nn.Parameter],
    micro_batch_loss: MicroBatchLoss,
    config: LoopConfig,
    *,
    processes: Processes | None = None,
    stopped: Callable[[], bool] = lambda: False,
    shield: Shield = nullcontext,
    exam: Exam | None = None,
    on_step: Callable[[Progress], object] = lambda progress: None,
    on_marks: Callable[[Marks], object] = lambda marks: None,
    on_note: Callable[[str], object] = lambda note: None,
) -> Progress:
    """Train the weights (fp32) until the last step, a stop file, or `stopped`, asked after each step.

    The result says where that was. The run goes on from its newest checkpoint, exactly: micro-batch k of
    step s has the number s * (micro-batches of a step) + k, so that two processes do what one does with twice
    the accumulation. Raises ValueError if another process trains in the folder.

    Whatever ends it, a checkpoint of the last whole step is written: also where a callback or a step raises,
    be it no Exception (KeyboardInterrupt, or the cancel of a host from within the U-Net). `shield` is held
    over what must not be broken off: the change of the weights, and the writing. Two cases leave the
    checkpoint before: an error while the optimizer changes the weights, and Diverged, which is raised if the
    loss is NaN or infinite.

    The first process takes the exam, if there is one, where it is due; one that was broken off is taken when
    the run goes on.
    """
    processes = processes or SingleProcess()
    with run.held() if processes.index == 0 else nullcontext():
        session = _Session(run, weights, micro_batch_loss, config, processes, shield, exam, on_marks)
        for note in session.resume():
            on_note(note)
        if processes.index == 0:
            run.stop_file.unlink(missing_ok=True)
        with session.tables():
            try:
                session.examine()
                while session.progress.step < config.steps:
                    session.step()
                    session.examine()
                    on_step(session.progress)
                    if processes.any(stopped() or run.stop_file.exists()):
                        break
                    if session.is_due():
                        session.save()
            except Diverged:
                raise
            except BaseException:
                session.abandon_step()
                raise
            session.save()
        return session.progress


class _Session:
    """Weights and optimizer of one sitting, and where the run is."""

    def __init__(
        self,
        run: RunFolder,
        weights: Mapping[str, nn.Parameter],
        micro_batch_loss: MicroBatchLoss,
        config: LoopConfig,
        processes: Processes,
        shield: Shield,
        exam: Exam | None,
        on_marks: Callable[[Marks], object],
    ) -> None:
        self.run, self.weights, self.micro_batch_loss = run, dict(weights), micro_batch_loss
        self.config, self.processes, self.shield = config, processes, shield
        self.exam, self.on_marks = exam, on_marks
        self.optimizer = torch.optim.AdamW(
            self.weights.values(),
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        self.progress = Progress()
        self._is_whole = True
        """Whether the weights are those of `progress`: not while the optimizer changes them."""
        self._saved = Progress(step=-1)
        self._start = time.monotonic()
        self._table: LossTable
        self._exams: ExamRecord | None = None

    def resume(self) -> list[str]:
        """Go on from the newest checkpoint, if there is one; the result is what the user should know."""
        checkpoint, notes = self.run.newest(partial(check_fits, weights=self.weights))
        if checkpoint is None:
            return notes
        restore(checkpoint, self.weights, self.optimizer)
        self.progress = self._saved = checkpoint.progress
        self._start = time.monotonic() - self.progress.seconds
        return [*notes, f"Going on from step {self.progress.step}."]

    @contextmanager
    def tables(self) -> Iterator[None]:
        """Holds open this process's table of losses, to which each step adds its row, and that of exams."""
        index, step = self.processes.index, self.progress.step
        table_file = self.run.path / (f"loss-{index}.csv" if index else "loss.csv")
        with ExitStack() as opened:
            self._table = opened.enter_context(closing(LossTable(table_file, step)))
            if self.exam is not None and index == 0:
                record = ExamRecord(self.exam, self.run.path, step, self.config.steps)
                self._exams = opened.enter_context(closing(record))
            yield

    def examine(self) -> None:
        """Take the exam if it is due after this step, and was not taken."""
        marks = self._exams and self._exams.take_if_due(self.progress.step, self.progress.seconds)
        if marks:
            self.on_marks(marks)

    def step(self) -> None:
        """One step of the optimizer; its loss, the mean over all micro-batches, goes into the table."""
        count = self.config.accumulation
        first = (self.progress.step * self.processes.count + self.processes.index) * count
        total = torch.zeros(())
        for number in range(first, first + count):
            share = self.micro_batch_loss(number) / count
            self.processes.backward(share)
            total += share.detach().float().cpu()
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        self.processes.average_([*gradients, total])
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.config.max_norm)
        loss = float(total)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            self.optimizer.zero_grad()
            raise Diverged(self._what_diverged(loss))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.progress.step)
        with self.shield():
            self._is_whole = False
            self.optimizer.step()
            self.progress = self.progress.after(loss, time.monotonic() - self._start)
            self._is_whole = True
            self.optimizer.zero_grad()
            self._table.add(self.progress.step, self.progress.seconds, loss)

    def abandon_step(self) -> None:
        """Give up what is left of a step that was broken off, and save the last whole one."""
        self.optimizer.zero_grad()
        if self._is_whole:
            self.save()

    def _what_diverged(self, loss: float) -> str:
        kept = self.run.checkpoints()
        good = f"checkpoint {kept[0]} is kept" if kept else "there is no checkpoint yet"
        return (
            f"Training broke off at step {self.progress.step + 1}: the loss is {loss}, or its gradient is no "
            f"number; {good}. Use a lower learning rate, or bf16 in place of fp16, and start again."
        )

    def is_due(self) -> bool:
        """Whether a checkpoint is to be written now: the same in all processes."""
        late = self.progress.seconds - max(self._saved.seconds, 0.0) >= self.config.save_seconds
        return self.processes.any(late) or self.progress.step % self.config.save_steps == 0

    def save(self) -> None:
        """Write a checkpoint, unless there is one of this step, after the losses that led to it."""
        if self.progress.step in (self._saved.step, 0):
            return
        with self.shield():
            best = self.progress.best
            if self.progress.loss is not None and (best is None or self.progress.loss < best):
                self.progress = replace(self.progress, best=self.progress.loss)
            try:
                self._table.flush()
            finally:  # a disk that is too full for a row may have room where an old draft was
                if self.processes.index == 0:
                    self.run.write(snapshot(self.progress, self.weights, self.optimizer), self.config.keep)
            self._saved = self.progress


def snapshot(
    progress: Progress, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> Checkpoint:
    """A checkpoint of weights and of AdamW's state; the tensors are the live ones."""
    state = {f"{key}/{name}": v for name, w in weights.items() for key, v in optimizer.state[w].items()}
    return Checkpoint(progress, {name: weight.detach() for name, weight in weights.items()}, state)


def check_fits(checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless it holds these weights, and AdamW's state of them after that many steps."""
    _check_shapes(checkpoint.weights, {name: weight.shape for name, weight in weights.items()}, "weights")
    names = {name.partition("/")[2] for name in checkpoint.optimizer}
    scalar = torch.Size(())
    wanted = {
        f"{key}/{name}": scalar if key == "step" else weights[name].shape
        for name in names & weights.keys()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    _check_shapes(checkpoint.optimizer, wanted, "the optimizer's state")
    steps = [float(value) for name, value in checkpoint.optimizer.items() if name.startswith("step/")]
    if not all(1 <= step <= checkpoint.progress.step for step in steps) or (
        steps and max(steps) != checkpoint.progress.step
    ):
        raise ValueError(f"its optimizer is of step {max(steps):g}")


def _check_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], what: str) -> None:
    if missing := wanted.keys() - found.keys():
        raise ValueError(f"{what}: {some(missing)} are missing")
    if unknown := found.keys() - wanted.keys():
        raise ValueError(f"{what}: {some(unknown)} do not belong to it")
    for name, shape in wanted.items():
        if found[name].shape != shape:
            raise ValueError(f"{what}: {name} has the shape {tuple(found[name].shape)}, not {tuple(shape)}")


@torch.no_grad()
def restore(
    checkpoint: Checkpoint, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW
) -> None:
    """Put a checkpoint's weights and AdamW's state back, each as its weight lies in memory.

    Laid out otherwise, AdamW would add them up in another order. The count of steps stays on the CPU.
    """
    for name, weight in weights.items():
        weight.copy_(checkpoint.weights[name])
        optimizer.state[weight] = {
            key: value.clone() if value.ndim == 0 else torch.empty_like(weight).copy_(value)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if (value := checkpoint.optimizer.get(f"{key}/{name}")) is not None
        }
