"""Training of all stages: until a time is over, with averaged weights, on the run folders of the product.

After kill -9 the same command goes on from the last saved step.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from flash_modules.files.tensor_file import Tensors, read_tensors, write_tensors
from flash_modules.training.loop import check_fits, restore, snapshot
from flash_modules.training.losses import LossTable
from flash_modules.training.run_folder import Progress, RunFolder

LossOfStep = Callable[[int, float], Tensor]
"""``loss_of_step(step, over) -> loss``, the same for the same step and weights; `over` is of the stage."""

_AVERAGE = "averaged.safetensors"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of AdamW and of the averaged weights."""

    lr: float
    parts: tuple[str, ...]
    """Parts of the model to train."""
    warmup: int = 100
    """Steps until the learning rate is at its peak."""
    weight_decay: float = 0.01
    ema: float = 0.999
    max_norm: float = 1.0

    def lr_at(self, step: int, over: float) -> float:
        """The learning rate of a step, when so much of the stage is over."""
        warm = min(1, (step + 1) / self.warmup)
        return self.lr * warm * (1 + math.cos(math.pi * max(0.0, 2 * over - 1))) / 2


@dataclass(frozen=True, kw_only=True)
class Limit:
    """When a stage ends: after seconds of training, summed over all its runs, or else after steps."""

    seconds: float = math.inf
    steps: int | None = None
    save_every: float = 60.0
    """Seconds."""
    clock: Callable[[], float] = time.monotonic

    def over(self, progress: Progress) -> float:
        """How much of the stage is over, from 0 to 1."""
        return min(1.0, progress.seconds / self.seconds if self.steps is None else progress.step / self.steps)


def generator(seed: int, stage: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """All random draws of one step: those of a resumed run are those of an uninterrupted one.

    They are made where the training runs: a GPU would wait for a CPU's.
    """
    return torch.Generator(device).manual_seed(random.Random(f"{seed} {stage} {step}").getrandbits(63))


def train(folder: Path, model: nn.Module, loss_of_step: LossOfStep, recipe: Recipe, limit: Limit) -> None:
    """Train the parts of a model until the limit; the state, and loss.csv, lie in the folder.

    The learning rate warms up, and falls as a cosine in the second half of the time: with a longer limit a
    stage that was over goes on. On a GPU products are in bf16.
    """
    run = RunFolder(folder.parent, folder.name, asdict(recipe))
    weights = {
        f"{part}.{name}": weight
        for part in recipe.parts
        for name, weight in model.get_submodule(part).named_parameters()
    }
    stage = _Stage(run, weights, recipe)
    bar = tqdm(desc=folder.name, unit="step", initial=stage.progress.step, total=limit.steps)
    with bar, closing(LossTable(folder / "loss.csv", stage.progress.step)) as table:
        start = limit.clock() - stage.progress.seconds
        saved = stage.progress.seconds
        while (over := limit.over(stage.progress)) < 1:
            lr = recipe.lr_at(stage.progress.step, over)
            loss = stage.take_step(loss_of_step, over, lr)
            stage.progress = stage.progress.after(loss, limit.clock() - start)
            table.add(stage.progress.step, stage.progress.seconds, loss)
            minutes = f"{stage.progress.seconds / 60:.1f}"
            bar.set_postfix(loss=f"{stage.progress.loss:.4f}", lr=f"{lr:.1e}", minutes=minutes, refresh=False)
            bar.update()
            if stage.progress.seconds - saved >= limit.save_every:
                table.flush()
                stage.save()
                saved = stage.progress.seconds
        table.flush()
        stage.save()


class _Stage:
    """Weights, their average, AdamW, and where the stage is."""

    def __init__(self, run: RunFolder, weights: Mapping[str, nn.Parameter], recipe: Recipe) -> None:
        self.run, self.weights, self.recipe = run, weights, recipe
        self.optimizer = torch.optim.AdamW(
            weights.values(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
        )
        self.device = next(iter(weights.values())).device
        self.average = {name: weight.detach().clone() for name, weight in weights.items()}
        self.progress = Progress()
        averages = {f"average/{name}": average for name, average in self.average.items()}
        checkpoint, _ = run.newest(partial(check_fits, weights={**weights, **averages}))
        if checkpoint:
            restore(checkpoint, weights, self.optimizer)
            self.progress = checkpoint.progress
            for name, average in self.average.items():
                average.copy_(checkpoint.weights[f"average/{name}"])
            for weight, state in self.optimizer.state.items():
                state["step"] = state["step"].to(weight.device)  # where the fused AdamW counts

    def take_step(self, loss_of_step: LossOfStep, over: float, lr: float) -> float:
        """Train on one batch; the result is its loss. Raises RuntimeError if that or its gradient is none."""
        self.optimizer.param_groups[0]["lr"] = lr
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = loss_of_step(self.progress.step, over)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        step = self.progress.step + 1
        decay = min(self.recipe.ema, step / (step + 10))
        live = [weight.detach() for weight in self.weights.values()]
        torch._foreach_lerp_(list(self.average.values()), live, 1 - decay)
        found, size = torch.stack([loss.detach(), norm]).tolist()  # the only time that a GPU is waited for
        if not (math.isfinite(found) and math.isfinite(size)):
            raise RuntimeError(f"The loss of step {step} or its gradient is non-finite: {found}, {size}.")
        return float(found)

    def save(self) -> None:
        """Write a checkpoint, and the averaged weights as what the stage is for."""
        checkpoint = snapshot(self.progress, self.weights, self.optimizer)
        averages = {f"average/{name}": average for name, average in self.average.items()}
        self.run.write(replace(checkpoint, weights={**checkpoint.weights, **averages}), keep=1)
        metadata = {name: str(getattr(self.progress, name)) for name in ("step", "seconds", "loss")}
        write_tensors(self.run.path / _AVERAGE, self.average, metadata)


def where(folder: Path) -> dict[str, float]:
    """Steps, minutes and smoothed loss of a stage."""
    _, metadata = _averages(folder)
    return {
        "steps": int(metadata["step"]),
        "minutes": round(float(metadata["seconds"]) / 60, 2),
        "loss": round(float(metadata["loss"]), 5),
    }


def averaged_weights(folder: Path, part: str) -> Tensors:
    """The averaged weights of a part of a stage's model."""
    tensors, _ = _averages(folder)
    start = f"{part}."
    return {name.removeprefix(start): tensors[name] for name in tensors if name.startswith(start)}


def _averages(folder: Path) -> tuple[Tensors, dict[str, str]]:
    if not (folder / _AVERAGE).is_file():
        raise ValueError(f"There is no {folder / _AVERAGE}: run the stage `{folder.name}` first.")
    return read_tensors(folder / _AVERAGE)
