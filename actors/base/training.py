"""One training loop for all stages. After kill -9 the same command goes on from the last saved step."""

import csv
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from flash_modules.checkpoint.tensor_file import Tensors, read_tensors, write_tensors

LossOfStep = Callable[[int], tuple[Tensor, str]]
"""``loss_of_step(step) -> (loss, kind of step)``, the same for the same step and weights."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of AdamW and of the averaged weights."""

    lr: float
    scales: Mapping[str, float]
    """Parts of the model to train, each with a factor on the learning rate."""
    warmup: int = 100
    """Steps until the learning rate is at its peak."""
    weight_decay: float = 0.01
    ema: float = 0.999
    max_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Limit:
    """When a stage ends: after seconds of training, summed over all its runs, or else after steps."""

    seconds: float = math.inf
    steps: int | None = None
    save_every: float = 60.0
    """Seconds."""
    clock: Callable[[], float] = time.monotonic

    def progress(self, step: int, seconds: float) -> float:
        """How much of the stage is over, from 0 to 1."""
        return min(1.0, seconds / self.seconds if self.steps is None else step / self.steps)


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """All random draws of one step: those of a resumed run are those of an uninterrupted one."""
    return torch.Generator().manual_seed(random.Random(f"{seed} {stage} {step}").getrandbits(63))


def train(folder: Path, model: nn.Module, loss_of_step: LossOfStep, recipe: Recipe, limit: Limit) -> None:
    """Train the parts of a model until the limit; the state, and loss.csv, lie in the folder.

    The learning rate warms up, then falls as a cosine of the whole time: with a longer limit a stage that
    was over goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(".flash-*"):  # of a killed run
        shutil.rmtree(draft)
    run = _Run(model, recipe)
    run.read(folder)
    _cut_table(folder / "loss.csv", run.step)
    bar = tqdm(desc=folder.name, unit="step", initial=run.step, total=limit.steps)
    with bar, (folder / "loss.csv").open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        start = limit.clock() - run.seconds
        saved = run.seconds
        while (progress := limit.progress(run.step, run.seconds)) < 1:
            lr = recipe.lr * min(1, (run.step + 1) / recipe.warmup) * (1 + math.cos(math.pi * progress)) / 2
            loss, kind = run.take_step(loss_of_step, lr)
            run.seconds = limit.clock() - start
            table.writerow([run.step, f"{run.seconds:.2f}", f"{lr:.3e}", f"{loss:.6g}", kind])
            bar.set_postfix(loss=f"{run.loss:.4f}", lr=f"{lr:.1e}", minutes=f"{run.seconds / 60:.1f}")
            bar.update()
            if run.seconds - saved >= limit.save_every:
                file.flush()
                run.write(folder)
                saved = run.seconds
    run.write(folder)


class _Run:
    """Weights, their average, AdamW's state, and where the run is."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        self.weights: dict[str, nn.Parameter] = {}
        groups = []
        for part, scale in recipe.scales.items():
            named = {f"{part}.{name}": p for name, p in model.get_submodule(part).named_parameters()}
            self.weights |= named
            groups.append({"params": list(named.values()), "scale": scale})
        self.optimizer = torch.optim.AdamW(
            groups, lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
        )
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.step, self.seconds, self.loss = 0, 0.0, math.nan

    def take_step(self, loss_of_step: LossOfStep, lr: float) -> tuple[float, str]:
        """Train on one batch; the result is its loss and kind."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        loss, kind = loss_of_step(self.step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.max_norm, error_if_nonfinite=True)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        decay = min(self.recipe.ema, self.step / (self.step + 10))
        weights = [weight.detach() for weight in self.weights.values()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)
        value = loss.item()
        self.loss = value if math.isnan(self.loss) else 0.98 * self.loss + 0.02 * value
        return value, kind

    def write(self, folder: Path) -> None:
        metadata = {"step": str(self.step), "seconds": str(self.seconds), "loss": str(self.loss)}
        write_tensors(folder / "state.safetensors", dict(self._tensors()), metadata)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.weights.items():
            yield f"weight/{name}", weight
            yield f"average/{name}", self.average[name]
            for key, value in self.optimizer.state.get(weight, {}).items():
                yield f"{key}/{name}", value

    @torch.no_grad()
    def read(self, folder: Path) -> None:
        """Go on from the state in the folder, if there is one."""
        if not (folder / "state.safetensors").is_file():
            return
        tensors, metadata = read_tensors(folder / "state.safetensors")
        self.step, self.seconds = int(metadata["step"]), float(metadata["seconds"])
        self.loss = float(metadata["loss"])
        for name, weight in self.weights.items():
            weight.copy_(tensors[f"weight/{name}"])
            self.average[name].copy_(tensors[f"average/{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{key}/{name}" in tensors:
                    # laid out as the weight, or AdamW would add them in another order
                    held = torch.empty_like(weight) if key != "step" else torch.empty(())
                    self.optimizer.state[weight][key] = held.copy_(tensors[f"{key}/{name}"])


def _cut_table(path: Path, step: int) -> None:
    """Drop the rows after a step: that part is trained again. A new table gets its header."""
    rows = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in list(csv.reader(file))[1:] if len(row) == 5 and int(row[0]) <= step]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["step", "seconds", "lr", "loss", "kind"], *rows])


def where(folder: Path) -> dict[str, float]:
    """Steps, minutes and smoothed loss of a stage."""
    _, metadata = _state(folder)
    return {
        "steps": int(metadata["step"]),
        "minutes": round(float(metadata["seconds"]) / 60, 2),
        "loss": round(float(metadata["loss"]), 5),
    }


def averaged_weights(folder: Path, part: str) -> Tensors:
    """The averaged weights of a part of a stage's model."""
    tensors, _ = _state(folder)
    start = f"average/{part}."
    return {name.removeprefix(start): tensors[name] for name in tensors if name.startswith(start)}


def _state(folder: Path) -> tuple[Tensors, dict[str, str]]:
    path = folder / "state.safetensors"
    if not path.is_file():
        raise ValueError(f"There is no {path}: run the stage `{folder.name}` first.")
    return read_tensors(path)
