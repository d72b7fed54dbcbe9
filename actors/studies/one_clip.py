"""`python -m actors one-clip`: what FlexiAct's tokens, learned from one clip, carry to other looks."""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from flash_modules.backends.diffusers.cogvideox.train import LearningTokens
from flash_modules.flexiact.training.encoded import encode_views
from flash_modules.flexiact.training.lesson import Lesson
from flash_modules.flexiact.training.saving import Saving
from flash_modules.flexiact.training.source import one_clip
from flash_modules.flexiact.training.token_training import TokenTraining, TokenTrainingConfig, run_settings
from flash_modules.flexiact.training.views import ViewConfig
from flash_modules.training.loop import LoopConfig
from flash_modules.training.run_folder import RunFolder

from ..base.patch_code import encode
from ..base.sizes import IMAGE_SIZE
from ..base.training import Limit, where
from ..base.video_base import BASE, NUM_FRAMES, make_clips, pretrain, read_transformer, text_embeds
from ..world.actions import HELD_OUT_ACTIONS
from ..world.clips import Clip, make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .learning import write_clip
from .one_clip_exam import Errors, exam_clips, make_exam
from .one_clip_tables import tables
from .results import kept

_CLIP_SIZE = 128
"""Pixels of the clip: its crops of 0.8 are as large as the base's pictures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `one-clip`."""
    parser.description = (
        "Pretrain a tiny CogVideoX on drawn clips, have it learn held-out actions from one clip by "
        "FlexiAct's tokens, and measure what that brings in looks that nobody has seen: for the clip's own "
        "motion, for other performances of its action, and for another action. What is done is kept: the "
        "same command goes on."
    )
    parser.set_defaults(run=study)
    parser.add_argument("--out", type=Path, default=Path("out/one-clip"), help="default %(default)s")
    parser.add_argument("--clips", type=int, default=4000, help="that the base sees (default %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=17, help="of one core, for the base (default %(default)s)"
    )
    parser.add_argument("--base-steps", type=int, help="of the base, in place of minutes: for a trial")
    parser.add_argument("--batch", type=int, default=8, help="of the base's steps (default %(default)s)")
    parser.add_argument(
        "--actions",
        nargs="+",
        choices=HELD_OUT_ACTIONS,
        default=["chopping wood", "soccer shoot"],
        metavar="NAME",
        help="two or more; each is the control of the one before (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="clips of each (default %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="of a lesson (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of each layer (default %(default)s)")
    parser.add_argument("--looks", type=int, default=8, help="of the exam (default %(default)s)")


def study(args: argparse.Namespace) -> None:
    """Do what is not done yet, and print the tables."""
    if len(args.actions) < 2:
        raise ValueError("Each action is the control of another: give two or more.")
    torch.set_num_threads(1)
    limit = Limit(seconds=60 * args.minutes, steps=args.base_steps, clock=time.process_time)
    if not _is_over(args.out, limit):
        pretrain(args.out, make_clips(args.out, args.clips, seed=0), limit, seed=0, batch=args.batch)
    runs = plan(args)
    for run in tqdm(runs, desc="Lessons", unit="run"):
        run.do()
    print(tables(runs, where(args.out / BASE)))


def _is_over(out: Path, limit: Limit) -> bool:
    """Whether the base was trained as long as is asked."""
    try:
        done = where(out / BASE)
    except ValueError:
        return False
    return done["steps"] >= limit.steps if limit.steps else 60 * done["minutes"] >= limit.seconds - 1


def plan(args: argparse.Namespace) -> Sequence["Run"]:
    """All lessons, seed after seed."""
    actions: list[str] = args.actions
    return [
        Run(
            action=action,
            control=actions[(i + 1) % len(actions)],
            seed=seed,
            steps=args.steps,
            tokens=args.tokens,
            looks=args.looks,
            out=args.out,
        )
        for seed in range(args.seeds)
        for i, action in enumerate(actions)
    ]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A lesson on one clip, with exams before it, on the way and after it."""

    action: str
    control: str
    """Another action, whose clips are in the exam, too."""
    seed: int
    """Of the clip and of training."""
    steps: int
    tokens: int
    looks: int
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "lessons" / f"{self.action.replace(' ', '-')}-{self.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """What its results depend on, beside the code."""
        told = {name: value for name, value in asdict(self).items() if name != "out"}
        return {**told, "base": where(self.out / BASE)}

    @property
    def exam_steps(self) -> list[int]:
        """After which an exam is held; 0 is the base without tokens."""
        return [0, *sorted({self.steps // part for part in (6, 3, 1)} - {0})]

    @cached_property
    def clip(self) -> Clip:
        """What is learned from."""
        motion, look = draw_motion(self.action, self.seed, close=True), draw_look(self.seed)
        return make_clip(motion, look, num_frames=NUM_FRAMES, size=_CLIP_SIZE)

    @property
    def config(self) -> TokenTrainingConfig:
        """FlexiAct's settings; the rate falls to 0 over the last half of so few steps."""
        loop = LoopConfig(
            steps=self.steps, learning_rate=3e-3, betas=(0.9, 0.95), weight_decay=1e-4, cooldown=0.5, keep=1
        )
        return TokenTrainingConfig(loop=loop, seed=self.seed)

    def exams(self) -> Mapping[int, Errors]:
        """Results by step."""
        return {step: self._exam(step, dict) for step in self.exam_steps}

    def _exam(self, step: int, make: Any) -> Errors:
        errors: Errors = kept(self.folder / f"exam-{step:05d}.json", self.settings, make)
        return errors

    def do(self) -> None:
        """Learn by the product's training, with the exams; what was begun goes on."""
        if (self.folder / f"exam-{self.steps:05d}.json").is_file():
            return
        exam = make_exam(exam_clips(self.clip.motion, self.control, self.looks))
        transformer = read_transformer(self.out)
        host = LearningTokens(transformer, self.tokens, Saving(checkpointing="none"))
        host.remove()
        self._exam(0, lambda: exam.errors(host.predict))
        host.add()
        lesson, view = self._lesson(), self._view
        training = TokenTraining(host, lesson, self.config)
        settings = run_settings(
            self.config,
            clip_sha256=lesson.clip_sha256,
            caption=lesson.caption,
            view=view,
            num_tokens=self.tokens,
            base=host.fingerprint,
            micro_batches=1,
        )

        def examine(step: int) -> None:
            if step in self.exam_steps:
                self._exam(step, lambda: exam.errors(host.predict))

        training.run(RunFolder(self.folder, "run", settings), on_step=lambda progress: examine(progress.step))
        examine(self.steps)

    @property
    def _view(self) -> ViewConfig:
        return ViewConfig(frames=NUM_FRAMES, height=IMAGE_SIZE, width=IMAGE_SIZE)

    def _lesson(self) -> Lesson:
        """The clip as a file, and its twelve crops in the fixed code, which has no deviation."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "clip.webp"
        if not path.is_file():
            write_clip(path, self.clip)
        source = one_clip(path, self.clip.caption, self._view)

        def moments(video_FCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean_FCHW = encode(video_FCHW)
            return mean_FCHW, torch.zeros_like(mean_FCHW)

        return Lesson(
            views=encode_views(source.videos(), moments),
            caption=self.clip.caption,
            text_embeds=text_embeds(self.clip.caption),
            empty_embeds=torch.zeros_like(text_embeds("")),
            clip_sha256=source.sha256,
        )
