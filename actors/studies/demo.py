"""`make demo`: an action is learned from a few clips, pictures perform it; a page with measures."""

import argparse
import html
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from flash_modules.cli import main as product
from flash_modules.evaluation.web import animation, curve, page, table
from flash_modules.files.clip_files import examine, read_frames
from flash_modules.files.video_files import as_picture, write_picture, write_video
from flash_modules.training.losses import read_losses

from ..base import small_base
from ..base.small_base import DETAILS, FOLDER, MOTION, image_size
from ..judge.measures import Scores, gap_closed, mean_looks, read_standard, score
from ..judge.reader import load_reader
from ..world.actions import HELD_OUT_ACTIONS
from ..world.clips import NUM_TRUTHS, Clip, clip_video, true_clips
from ..world.looks import HELD_OUT_STYLE, Look, draw_look
from ..world.motion import FPS, draw_motion
from .learning import POOL, Lesson, write_clip

NUM_CLIPS = Lesson.num_clips
NUM_PICTURES = 3
STEPS = 100
"""Of learning: with all the rest, five minutes on two cores."""
SAMPLER = replace(small_base.SAMPLER, steps=10)
"""Half of its steps, for time: after learning, the joint error was 13.2 % in place of 13.1 %."""
_UNSEEN = 4 * 10**6
"""Seeds from here on are of the pictures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `demo`."""
    parser.description = (
        "Learn an action that the small base has never seen from 8 clips, animate three pictures with it, "
        "and write a page. What is done is kept: the same command goes on."
    )
    parser.set_defaults(run=show)
    parser.add_argument(
        "--action", choices=HELD_OUT_ACTIONS, default=HELD_OUT_ACTIONS[0], help="default %(default)s"
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="default %(default)s")
    parser.add_argument("--steps", type=int, default=STEPS, help="of learning (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other clips and pictures (default %(default)s)")


def show(args: argparse.Namespace) -> None:
    """Do what is not done yet, and write the page."""
    name = args.action.replace(" ", "-")
    demo = Demo(args.out / f"{name}-seed{args.seed}-{args.steps}", args.action, args.steps, args.seed)
    demo.write_inputs()
    for words in tqdm(demo.commands, desc=f"Demo: {args.action}", unit="command"):
        demo.run(words)
    write_video(args.out / "demo.webp", demo.overview(), FPS)
    page_file = args.out / "index.html"
    page_file.write_text(demo.page(), encoding="utf-8")
    print(f"Wrote {page_file}, and its videos side by side as {args.out / 'demo.webp'}")


@dataclass(frozen=True)
class Subject:
    """A picture that is to perform the action, and what it might truly look like then."""

    number: int
    truths: Sequence[Clip]

    @property
    def name(self) -> str:
        return f"picture-{self.number}"


@dataclass(frozen=True)
class Demo:
    """One action, learned in one folder."""

    folder: Path
    action: str
    steps: int
    seed: int

    @cached_property
    def size(self) -> int:
        """Pixels on a side of clips and pictures."""
        return image_size(FOLDER)

    @cached_property
    def clips(self) -> list[Clip]:
        """What is learned from."""
        lesson = Lesson(actions=(self.action,), seed=self.seed, num_clips=NUM_CLIPS, size=self.size)
        return [*lesson.clips[self.action]]

    @cached_property
    def subjects(self) -> list[Subject]:
        """Other people elsewhere; the last one in a style that the small base has never seen."""
        seeds = range(_UNSEEN + 1000 * self.seed, _UNSEEN + 1000 * (self.seed + 1))
        looks = [draw_look(seed) for seed in seeds[: NUM_PICTURES - 1]]
        strange = (draw_look(seed, held_out=True) for seed in seeds)
        looks.append(next(look for look in strange if look.style == HELD_OUT_STYLE))
        return [Subject(i, self._truths(seeds[i], look)) for i, look in enumerate(looks)]

    def _truths(self, seed: int, look: Look) -> list[Clip]:
        motion = draw_motion(self.action, seed, close=True)
        return true_clips(motion, look, seed=seed, num=NUM_TRUTHS, size=self.size)

    def write_inputs(self) -> None:
        """Write the clips as videos with their captions, and the pictures."""
        (self.folder / "clips").mkdir(parents=True, exist_ok=True)
        for i, clip in enumerate(self.clips):
            write_clip(self.folder / "clips" / f"{i}.webp", clip)
        for subject in self.subjects:
            picture = as_picture(clip_video(subject.truths[0])[0])
            write_picture(self.folder / f"{subject.name}.png", picture)

    @property
    def commands(self) -> list[list[str]]:
        """Arguments of `python -m flash_modules`: learn, then animate each picture without and with it."""
        action = ["--action", str(self._action), "--decoder", str(DETAILS), "--keep-first-frame"]
        return [
            self._learn(),
            *(self._animate(subject, "before", []) for subject in self.subjects),
            *(self._animate(subject, "after", action) for subject in self.subjects),
        ]

    @property
    def _action(self) -> Path:
        return self.folder / "learned" / "learned.safetensors"

    def _learn(self) -> list[str]:
        words = ["train", "--base", str(FOLDER), "--motion", str(MOTION)]
        words += ["--clips", str(self.folder / "clips")]
        words += ["--size", str(self.size), "--frames", "8", "--sampling", "whole", "--pool", str(POOL)]
        words += ["--steps", str(self.steps), "--lr", str(Lesson.learning_rate)]
        words += ["--cooldown", str(Lesson.cooldown), "--seed", str(self.seed)]
        words.append("--no-exam")  # so short a run takes none, and every clip counts
        return [*words, "--runs", str(self.folder), "--out", "learned"]

    def _animate(self, subject: Subject, when: str, more: Sequence[str]) -> list[str]:
        words = ["animate", "--base", str(FOLDER), "--motion", str(MOTION), *more]
        words += ["--image", str(self.folder / f"{subject.name}.png"), "--prompt", subject.truths[0].caption]
        words += ["--frames", "8", "--steps", str(SAMPLER.steps), "--cfg", str(SAMPLER.cfg)]
        return [*words, "--seed", str(subject.number), "--out", str(self.folder / f"{subject.name}-{when}")]

    def run(self, words: Sequence[str]) -> None:
        """Run a command of the product, unless its result is there. Raises KeyboardInterrupt if stopped."""
        learns = words[0] == "train"
        if self._learned() if learns else Path(words[-1]).is_dir():
            return
        tqdm.write(_shown(words))
        code = product(words)
        if code == 130 or (learns and not code and not self._learned()):
            raise KeyboardInterrupt
        if code:
            raise ValueError(f"The command ended with {code}: see above.")

    def _learned(self) -> bool:
        return self._action.is_file() and (self._action.parent / f"checkpoint-{self.steps}").is_dir()

    @cached_property
    def videos(self) -> Mapping[str, Sequence[Tensor]]:
        """What `animate` has written before and after learning, FHWC in [0, 1], a video for each subject."""
        return {
            when: [_read_video(self.folder / f"{subject.name}-{when}") for subject in self.subjects]
            for when in ("before", "after")
        }

    def overview(self) -> Tensor:
        """Frames of one video: a row for each picture, with it, a truth, before and after learning."""
        rows = []
        for subject, *made in zip(self.subjects, *self.videos.values(), strict=True):
            truth = clip_video(subject.truths[0])
            rows.append(torch.stack([truth[:1].expand_as(truth), truth, *made]))
        return rearrange(torch.stack(rows), "rows columns f h w c -> f (rows h) (columns w) c")

    def page(self) -> str:
        """The page, with everything on it."""
        return page(f"Learned from {NUM_CLIPS} clips: {self.action}", "".join(self._parts()), columns=4)

    def _parts(self) -> Iterator[str]:
        yield "<h2>Three pictures that were not in the clips</h2><div>"
        for subject, before, after in zip(self.subjects, *self.videos.values(), strict=True):
            truth = clip_video(subject.truths[0])
            yield animation(truth[:1], "the picture", FPS)
            yield animation(truth, "one of many true ways to go on", FPS)
            yield animation(before, "before learning", FPS)
            yield animation(after, "after learning", FPS)
        yield f"</div><h2>Measured</h2>{self._measures()}<h2>What it learned from</h2><div>"
        yield from (animation(clip_video(clip), clip.caption, FPS) for clip in self.clips)
        yield f"</div><h2>Learning</h2>{self._losses()}<h2>The commands</h2><pre>"
        yield html.escape("\n".join(map(_shown, self.commands)))
        yield "</pre>"

    def _measures(self) -> str:
        reader = load_reader()
        looks_LE = mean_looks(reader, self.clips)
        standards = [read_standard(subject.truths, reader=reader) for subject in self.subjects]
        scores = {
            when: [
                score(video_FHWC, standard, looks_LE, reader=reader)
                for standard, video_FHWC in zip(standards, videos, strict=True)
            ]
            for when, videos in self.videos.items()
        }
        means = {
            when: {f.name: fmean(getattr(score, f.name) for score in found) for f in fields(Scores)}
            for when, found in scores.items()
        }
        before, after = means["before"], means["after"]
        rows = {
            f.metadata["title"]: [f"{before[f.name]:.3g}", f"{after[f.name]:.3g}"] for f in fields(Scores)
        }
        closed = gap_closed(before["joint_error"], after["joint_error"], before["joint_floor"])
        pictures = [clip_video(subject.truths[0])[0] for subject in self.subjects]
        kept = all(
            torch.equal(*pair) for pair in zip((v[0] for v in self.videos["after"]), pictures, strict=True)
        )
        exactly = "exactly" if kept else "not exactly"
        verdict = (
            f"Learning closes {closed:.0%} of the gap between the joint error before it and the floor, that "
            f"of one true video against others; a still picture has {before['still_error']:.1f} %. Frame 0 "
            f"is {exactly} the picture."
        )
        return f"{table(['before learning', 'after learning'], rows)}<p>{html.escape(verdict)}"

    def _losses(self) -> str:
        losses = read_losses(self._action.parent / "loss.csv")
        part = max(1, len(losses) // 50)
        means = [fmean(losses[i : i + part]) for i in range(0, len(losses) - part + 1, part)]
        return curve(means, f"loss, mean of {part} steps each, over {len(losses)} steps")


def _read_video(folder: Path) -> Tensor:
    footage = examine(folder)
    return read_frames(folder, footage, range(len(footage.times)), None).movedim(1, -1)


def _shown(words: Sequence[str]) -> str:
    return f"python -m flash_modules {shlex.join(words)}"
