"""`python -m actors transfer`: does a motion that is learned in one look carry over to others?"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from ..base.small_base import DETAILS, FOLDER
from ..judge.reader import load_reader
from ..world.actions import HELD_OUT_ACTIONS
from .transfer_arms import ARMS, DETAILED
from .transfer_runs import Judge, Run
from .transfer_tables import tables

AnyRun = TypeVar("AnyRun", bound=Run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `transfer`."""
    parser.description = (
        "Learn actions from clips of one person in one place, in several ways, and measure what carries over "
        "to looks that nobody has seen: on figures alone, beside a lesson on another action. What is done is "
        "kept: the same command goes on."
    )
    parser.set_defaults(run=study)
    parser.add_argument("--out", type=Path, default=Path("out/transfer"), help="default %(default)s")
    parser.add_argument(
        "--actions",
        nargs="+",
        choices=HELD_OUT_ACTIONS,
        default=["chopping wood", "soccer shoot"],
        metavar="NAME",
        help="two or more; the lesson on each is the control of the one before (default: %(default)s)",
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS], metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the runs (default %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="of a lesson (default %(default)s)")
    parser.add_argument("--clips", type=int, default=4, help="of a lesson (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=4, help="animated per action (default %(default)s)")
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--decoder", type=Path, default=DETAILS, help="its detail decoder")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="processes (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=720.0, help="begin no run after these (default 720)")
    parser.add_argument("--learn-only", action="store_true", help="measure no videos and print no tables")


def study(args: argparse.Namespace) -> None:
    """Do what is not done yet, as long as time allows; measure and print what is done."""
    runs = plan(args)
    end = time.monotonic() + 60 * args.minutes
    left = [run for run in runs if not run.done]
    with multiprocessing.get_context("spawn").Pool(args.workers, torch.set_num_threads, (1,)) as processes:
        done = processes.imap_unordered(partial(_do, args.device, end), left)
        for said in tqdm(done, desc="Lessons", total=len(left), unit="run"):
            if said:
                tqdm.write(said)
    if args.learn_only:
        return
    judge = Judge(load_reader(), args.base, args.decoder)
    finished = [run for run in runs if run.done]
    for run in tqdm(finished, desc="Videos", unit="run"):
        run.scores(judge)
        if run.arm == DETAILED:
            run.detailed(judge)
    print(tables(runs, judge))
    print(f"{len(finished)} of {len(runs)} runs are done.")


def plan(args: argparse.Namespace) -> Sequence[Run]:
    """All runs of the study."""
    return plan_of(Run, args)


def plan_of(kind: type[AnyRun], args: argparse.Namespace) -> Sequence[AnyRun]:
    """All runs of one kind, seed after seed, so that a break leaves a fair table.

    Raises ValueError for a single action, which has no control.
    """
    if len(args.actions) < 2:
        raise ValueError("Each action is the control of another: give two or more.")
    actions: list[str] = args.actions
    return [
        kind(
            arm=arm,
            action=action,
            control=actions[(i + 1) % len(actions)],
            seed=seed,
            steps=args.steps,
            num_clips=args.clips,
            num_pictures=args.pictures,
            base=args.base,
            out=args.out,
        )
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for arm in args.arms
        for i, action in enumerate(actions)
    ]


def _do(device: torch.device, end: float, run: Run) -> str | None:
    """Do a run unless it is too late; what went wrong, if anything did: the others go on."""
    if time.monotonic() > end:
        return None
    try:
        run.do(device)
    except (ValueError, OSError, RuntimeError) as error:
        return f"{run.folder.name}: {error}"
    return None
