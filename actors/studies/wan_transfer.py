"""`python -m actors wan-transfer`: does a LoRA of Wan carry a motion to looks that nobody has seen?

The small Wan learns by the product's own training: plain LoRA, twins, alignment, and twins that no
augmentation reaches, each beside a lesson on another action.
"""

import argparse
import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from tqdm import tqdm

from flash_modules.flash.training.action_training import ActionTraining
from flash_modules.flash.training.method import VARIANTS, MethodConfig

from ..base.small_base import FOLDER
from ..base.training import Limit
from ..base.wan_base import TIMESTEPS, export, pretrain
from ..world.actions import HELD_OUT_ACTIONS
from .learning import training_on
from .transfer import plan_of
from .transfer_arms import BEFORE, Arm
from .transfer_runs import Run
from .transfer_tables import lesson_tables
from .wan_host import SmallWanHost


def _method(variant: int) -> MethodConfig:
    """As the node for Wan has it: the sampler's timesteps, frame 0 left out of alignment."""
    method = VARIANTS[variant]
    return replace(method, timesteps=TIMESTEPS, alignment=replace(method.alignment, exclude_first=True))


_arm = partial(Arm, per_clip=6, renew_steps=0, learning_rate=2e-3)
WAN_ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        BEFORE: _arm(method=_method(2)),
        "#2": _arm(method=_method(2)),
        "#1, two at a time": _arm(method=_method(1), accumulation=2),
        "#5": _arm(method=_method(5)),
        "perfect twins": _arm(method=_method(2), drawn_twins=True),
        "#5, perfect twins": _arm(method=_method(5), drawn_twins=True),
    }
)
"""In the order in which they are run, seed after seed; plain LoRA is #1, of as many videos as the others."""


@dataclass(frozen=True, kw_only=True)
class WanRun(Run):
    """One lesson of the small Wan, with exams alone."""

    arms: ClassVar[Mapping[str, Arm]] = WAN_ARMS

    @property
    def exam_steps(self) -> list[int]:
        """At the end; before learning for all arms in one run of its own."""
        return [0] if self.arm == BEFORE else [self.steps]

    @property
    def done(self) -> bool:
        """Whether its last exam is there."""
        return (self.folder / f"exam-{self.exam_steps[-1]:05d}.json").is_file()

    def training(self, device: torch.device) -> ActionTraining[Any]:
        """On the small Wan."""
        return training_on(SmallWanHost(self.lesson.config, self.base, device), self.lesson, self.folder)

    def finish(self, training: ActionTraining[Any]) -> None:
        """Nothing more is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wan-transfer`."""
    parser.description = (
        "The small Wan learns actions as LoRAs from clips of one person in one place, in several ways; what "
        "carries over to looks that nobody has seen is measured on figures alone, beside a lesson on another "
        "action. What is done is kept: the same command goes on."
    )
    parser.set_defaults(run=study)
    parser.add_argument("--out", type=Path, default=Path("out/wan-transfer"), help="default %(default)s")
    parser.add_argument(
        "--actions",
        nargs="+",
        choices=HELD_OUT_ACTIONS,
        default=["chopping wood", "soccer shoot"],
        metavar="NAME",
        help="two or more; the lesson on each is the control of the one before (default: %(default)s)",
    )
    parser.add_argument("--arms", nargs="+", choices=WAN_ARMS, default=[*WAN_ARMS], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the runs (default %(default)s)")
    parser.add_argument("--steps", type=int, default=80, help="of a lesson (default %(default)s)")
    parser.add_argument("--clips", type=int, default=4, help="of a lesson (default %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="processes (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=720.0, help="begin no run after these (default 720)")
    parser.set_defaults(base=FOLDER, pictures=0)


def study(args: argparse.Namespace) -> None:
    """Do what is not done yet, as long as time allows, and print what is done."""
    runs = plan_of(WanRun, args)
    end = time.monotonic() + 60 * args.minutes
    left = [run for run in runs if not run.done]
    with multiprocessing.get_context("spawn").Pool(args.workers, torch.set_num_threads, (1,)) as processes:
        for _ in tqdm(
            processes.imap_unordered(partial(_do, args.device, end), left), total=len(left), unit="run"
        ):
            pass
    print(lesson_tables(runs))


def _do(device: torch.device, end: float, run: WanRun) -> None:
    if time.monotonic() <= end:
        run.do(device)


def add_base_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `wan-base`."""
    parser.description = "Pretrain the small Wan on drawn clips, as long as it may take."
    parser.set_defaults(run=make_base)
    parser.add_argument("--out", type=Path, default=Path("out/wan-base"), help="default %(default)s")
    parser.add_argument(
        "--weights", type=Path, help="where to write the weights; default: OUT/wan.safetensors"
    )
    parser.add_argument("--clips", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--minutes", type=float, default=120, help="of training (default %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="clips of a step (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="that draw clips (default %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")


def make_base(args: argparse.Namespace) -> None:
    """Pretrain, and write the weights."""
    pretrain(
        args.out,
        args.clips,
        Limit(seconds=60 * args.minutes),
        seed=args.seed,
        batch=args.batch,
        device=args.device,
        workers=args.workers,
    )
    export(args.out, args.weights or args.out / "wan.safetensors")
