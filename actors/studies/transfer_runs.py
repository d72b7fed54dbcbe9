"""Runs of the study of transfer: a lesson, exams on the way, and videos of pictures at its end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from flash_modules.backends.diffusers.sd15 import (
    decode_frames,
    decode_frames_with_details,
    load_vae,
    make_detail_decoder,
)
from flash_modules.backends.diffusers.sd15.train.action import DiffusersHost
from flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_modules.flash.decoder_file import read_detail_decoder
from flash_modules.flash.training.action_training import ActionTraining

from ..base.small_base import SAMPLER, image_size
from ..judge.measures import Scores, Standard, mean_looks, read_standard, score
from ..judge.reader import Reader
from ..world.clips import Clip, clip_video, make_clip, true_clips
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .learning import Lesson, learn, prepare
from .results import kept
from .transfer_arms import ARMS, BEFORE, Arm
from .transfer_exam import UNSEEN, Errors, exam_clips, make_exam

_SAMPLER = replace(SAMPLER, steps=10)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One lesson, in one folder; what is done of it is kept there."""

    arm: str
    action: str
    control: str
    """Another action, whose clips are in the exam and whose pictures are animated too."""
    seed: int
    steps: int
    num_clips: int
    num_pictures: int
    base: Path
    out: Path

    arms: ClassVar[Mapping[str, Arm]] = ARMS

    @property
    def folder(self) -> Path:
        """Of this run alone."""
        name = f"{self.arm} {self.action} {self.seed}"
        return self.out / "".join(letter for letter in name.replace(" ", "-") if letter not in "#,")

    @cached_property
    def lesson(self) -> Lesson:
        """What is learned."""
        size = image_size(self.base)
        return self.arms[self.arm].lesson(self.action, self.seed, self.steps, self.num_clips, size)

    @property
    def settings(self) -> dict[str, Any]:
        """What its results depend on, beside the code."""
        return {
            **self.lesson.settings,
            "arm": self.arm,
            "control": self.control,
            "pictures": self.num_pictures,
        }

    @property
    def exam_steps(self) -> list[int]:
        """After which an exam is held."""
        steps = {self.steps // part for part in (10, 4, 2, 1)} - {0}
        return [0] if self.arm == BEFORE else [0, *sorted(steps)]

    @property
    def done(self) -> bool:
        """Whether all is there that needs the models."""
        return self._videos.is_file()

    @property
    def _videos(self) -> Path:
        return self.folder / "videos.safetensors"

    def do(self, device: torch.device) -> None:
        """Learn, with exams on the way, and animate; what was begun goes on."""
        if self.done:
            return
        training = self.training(device)
        taught = self.lesson.clips[self.action]
        exam = make_exam(training, exam_clips(taught, self.action, self.control, self.lesson.size))

        def examine(step: int) -> None:
            if step in self.exam_steps:
                self._exam(step, lambda: exam.errors(training))

        examine(0)
        if self.arm != BEFORE:
            learn(training, self.folder, examine)
        self.finish(training)

    def training(self, device: torch.device) -> ActionTraining[Any]:
        """Of the lesson, on the model that is studied."""
        return prepare(self.lesson, self.folder, self.base, device)

    def finish(self, training: ActionTraining[Any]) -> None:
        """Keep what of the end needs the models."""
        write_tensors(self._videos, self._animated(training), {})

    def _exam(self, step: int, make: Callable[[], Errors]) -> Errors:
        errors: Errors = kept(self.folder / f"exam-{step:05d}.json", self.settings, make)
        return errors

    def exams(self) -> Mapping[int, Errors]:
        """Results by step, of those that were held."""
        there = [step for step in self.exam_steps if (self.folder / f"exam-{step:05d}.json").is_file()]
        return {step: self._exam(step, dict) for step in there}

    def _animated(self, training: ActionTraining[DiffusersHost]) -> dict[str, Tensor]:
        """Latents of pictures that perform the action, and of such that perform the other one."""
        return {
            f"{action}-{i}": training.animate_latents(clip_video(clip)[:1], clip.caption, i, _SAMPLER).to(
                "cpu", torch.float16
            )
            for action in (self.action, self.control)
            for i, clip in enumerate(pictures(action, self.num_pictures, self.lesson.size))
        }

    def scores(self, judge: "Judge") -> Mapping[str, Sequence[Scores]]:
        """Measures of its videos, by action."""
        actions = {action: (action, "VAE alone") for action in (self.action, self.control)}
        return self._scores(judge, "scores.json", actions)

    def detailed(self, judge: "Judge") -> Mapping[str, Sequence[Scores]]:
        """Measures of the videos of its action, by the way in which their latents are decoded."""
        ways = {way: (self.action, way) for way in judge.decoders}
        return self._scores(judge, "details.json", ways)

    def _scores(
        self, judge: "Judge", file: str, rows: Mapping[str, tuple[str, str]]
    ) -> Mapping[str, Sequence[Scores]]:
        """By the name of a row, which is of an action and a decoder."""

        def make() -> dict[str, list[dict[str, Any]]]:
            videos, _ = read_tensors(self._videos)
            looks_LE = mean_looks(judge.reader, self.lesson.clips[self.action])
            return {
                row: [
                    asdict(judge.score(videos[f"{action}-{i}"], action, i, looks_LE, decoder))
                    for i in range(self.num_pictures)
                ]
                for row, (action, decoder) in rows.items()
            }

        read = kept(self.folder / file, self.settings, make)
        return {row: [Scores(**one) for one in of] for row, of in read.items()}


def pictures(action: str, count: int, size: int) -> list[Clip]:
    """True clips, in looks that the small base has never seen, whose first frames are to be animated."""
    return [make_clip(*_performance(action, i), size=size) for i in range(count)]


def _performance(action: str, number: int) -> tuple[Any, Any]:
    return draw_motion(action, UNSEEN + number, close=True), draw_look(UNSEEN + number, held_out=True)


class Judge:
    """Measures videos of the study's pictures; standards are read once."""

    def __init__(self, reader: Reader, base: Path, details: Path) -> None:
        self.reader, self.size = reader, image_size(base)
        vae = load_vae(base)
        mend = partial(
            decode_frames_with_details, vae, make_detail_decoder(vae, read_detail_decoder(details))
        )
        self.decoders: Mapping[str, Callable[[Tensor, Tensor], Iterator[Tensor]]] = {
            "VAE alone": lambda latents_FCHW, picture_1HWC: decode_frames(vae, latents_FCHW),
            "with details": partial(mend, keep_first=False),
            "with details, frame 0 is the picture": partial(mend, keep_first=True),
        }
        self._standards: dict[tuple[str, int], Standard] = {}

    def score(self, latents_FCHW: Tensor, action: str, number: int, looks_LE: Tensor, decoder: str) -> Scores:
        """The measures of a video whose first frame is that picture."""
        if (action, number) not in self._standards:
            truths = true_clips(*_performance(action, number), seed=number, size=self.size)
            self._standards[action, number] = read_standard(truths, reader=self.reader)
        standard = self._standards[action, number]
        frames = self.decoders[decoder](latents_FCHW.float(), standard.reference_1HWC)
        return score(torch.stack([*frames]), standard, looks_LE, reader=self.reader)
