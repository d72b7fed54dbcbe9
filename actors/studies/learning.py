"""Learning actions of the actors by the product's own training, and how it carries over to new looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from flash_modules.animatediff.motion_file import read_motion
from flash_modules.backends.diffusers.sd15 import (
    decode_frames,
    decode_frames_with_details,
    encode_picture,
    find_base,
    load_base,
)
from flash_modules.backends.diffusers.sd15.train.action import DiffusersHost
from flash_modules.backends.diffusers.sd15.train.detail import DiffusersVae
from flash_modules.cli.run import stop_signals
from flash_modules.files.video_files import write_video
from flash_modules.flash.augment import AugmentConfig
from flash_modules.flash.detail_decoder import DetailDecoder
from flash_modules.flash.training.action_training import (
    ActionTraining,
    ActionTrainingConfig,
    Host,
)
from flash_modules.flash.training.detail_training import DetailTraining
from flash_modules.flash.training.exam import ExamConfig
from flash_modules.flash.training.latent_pool import PoolConfig
from flash_modules.flash.training.loss import denoising_losses
from flash_modules.flash.training.method import VARIANTS, MethodConfig
from flash_modules.training.clips import find_clips
from flash_modules.training.loop import LoopConfig
from flash_modules.training.run_folder import Progress, RunFolder
from flash_modules.training.sampling import SamplingConfig, seeded

from ..base.sizes import IMAGE_SIZE
from ..base.small_base import FOLDER, MOTION, SAMPLER
from ..judge.measures import Scores, Standard, mean_looks, read_standard, score
from ..judge.reader import Reader
from ..world.clips import Clip, clip_video, make_clip, true_clips
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .drawn_twins import DrawnTwinTraining

_CPU = torch.device("cpu")
POOL = 4
"""Encoded versions of a clip."""
_UNSEEN = 2 * 10**6
"""Seeds from here on are of clips that nobody learns from."""
_TIMESTEPS = (100, 300, 500, 700, 900)
"""At which the error of the noise is taken."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One run of training on actors."""

    actions: tuple[str, ...]
    """Learned together."""
    method: MethodConfig = VARIANTS[5]
    seed: int = 0
    """Of clips and of training."""
    num_clips: int = 8
    """Of each action."""
    one_look: bool = False
    """Whether the same person does it in all clips, in the same place."""
    drawn_twins: bool = False
    """Whether twins are the same motion drawn in another look, and not the clip with other colours."""
    steps: int = 120
    """For each action."""
    learning_rate: float = 1e-3
    """Far above the paper's, whose 20,000 steps would take hours here."""
    cooldown: float = 0.5
    """Of so few steps half are spent on coming to rest: the loss in new looks falls by another 5 %."""
    accumulation: int = 1
    per_clip: int = POOL
    """Encoded versions of a clip."""
    renew_steps: int = 0
    """After so many an eighth of them is made anew; 0 = never."""
    size: int = IMAGE_SIZE
    """Pixels on a side of the clips; people are filmed from nearby, as the small base saw them."""
    exam: ExamConfig | None = None
    """With one, a clip of each action is kept aside."""
    save_steps: int = LoopConfig.save_steps
    keep: int = 1

    @cached_property
    def clips(self) -> Mapping[str, Sequence[Clip]]:
        """What is learned from, by action."""
        seeds = range(1000 * self.seed, 1000 * self.seed + self.num_clips)
        return {
            action: [
                make_clip(
                    draw_motion(action, seed, close=True),
                    draw_look(seeds[0] if self.one_look else seed),
                    size=self.size,
                )
                for seed in seeds
            ]
            for action in self.actions
        }

    @property
    def settings(self) -> dict[str, Any]:
        """All of it, as plain values, by which results are known.

        What came later is told only where it is not as before, so that results from then are known.
        """
        told = asdict(replace(self, method=self.config.method))
        later = ("exam", "save_steps", "keep")
        return {name: it for name, it in told.items() if name not in later or it != getattr(Lesson, name)}

    @property
    def config(self) -> ActionTrainingConfig:
        """The product's settings for it."""
        num_frames = len(self.clips[self.actions[0]][0].frames_FHW3)
        return ActionTrainingConfig(
            method=replace(self.method, augment=AugmentConfig(size=self.size)),
            sampling=SamplingConfig(num_frames=num_frames, stride=None),
            pool=PoolConfig(per_clip=self.per_clip, renew_micro_batches=self.renew_steps * self.accumulation),
            loop=LoopConfig(
                steps=self.steps * len(self.actions),
                learning_rate=self.learning_rate,
                cooldown=self.cooldown,
                accumulation=self.accumulation,
                save_steps=self.save_steps,
                keep=self.keep,
            ),
            exam=self.exam,
            seed=self.seed,
        )


OneHost = TypeVar("OneHost", bound=Host)


def write_clip(path: Path, clip: Clip) -> None:
    """Write the clip's pictures as a video, and its caption as text.

    As .webp it is the same file each time; H.264 of widths below 128 is not.
    """
    write_video(path, (torch.from_numpy(frame) / 255 for frame in clip.frames_FHW3), clip.fps)
    path.with_suffix(".txt").write_text(clip.caption + "\n", encoding="utf-8")


def prepare(
    lesson: Lesson, folder: Path, base: Path = FOLDER, device: torch.device = _CPU
) -> ActionTraining[DiffusersHost]:
    """A training of the small base on the lesson's clips, which are written into the folder as videos."""
    motion, parts = read_motion(base / MOTION.name), load_base(find_base(base))
    return training_on(DiffusersHost(parts, "small base", motion, lesson.config, device), lesson, folder)


def training_on(host: OneHost, lesson: Lesson, folder: Path) -> ActionTraining[OneHost]:
    """A training of any host on the lesson's clips, which are written into the folder as videos."""
    folders = [folder / action for action in lesson.actions]
    for where, taught in zip(folders, lesson.clips.values(), strict=True):
        where.mkdir(parents=True, exist_ok=True)
        for i, clip in enumerate(taught):
            write_clip(where / f"{i:02d}.webp", clip)
    clips = find_clips(folders).used
    if not lesson.drawn_twins:
        return ActionTraining(host, clips, lesson.config)
    performed = [clip.motion for taught in lesson.clips.values() for clip in taught]
    return DrawnTwinTraining(host, clips, lesson.config, performed)


def learn(
    training: ActionTraining[Host] | DetailTraining[DiffusersVae],
    folder: Path,
    on_progress: Callable[[int], object] = lambda step: None,
) -> None:
    """Train until the end, with a bar; what was begun in this folder goes on. Raises KeyboardInterrupt."""
    steps = training.config.loop.steps
    run = RunFolder(folder, "run", training.settings(training.config.loop.accumulation))
    with tqdm(total=steps, unit="step", leave=False) as bar:

        def on_step(progress: Progress) -> None:
            bar.update(progress.step - bar.n)
            bar.set_postfix(loss=f"{progress.loss:.4f}", refresh=False)
            on_progress(progress.step)

        with stop_signals() as stopped:
            end = training.run(run, stopped=stopped, on_step=on_step)
    if end.step < steps:  # by a signal; what comes after would take it for finished
        raise KeyboardInterrupt


class Evaluation:
    """What a learned action is tried on: other performances, in looks that the small base has never seen."""

    def __init__(
        self,
        action: str,
        reader: Reader,
        *,
        size: int = IMAGE_SIZE,
        num_clips: int = 6,
        num_pictures: int = 3,
    ) -> None:
        self.reader, self.size, self.num_pictures = reader, size, num_pictures
        self.performances = [
            (draw_motion(action, seed, close=True), draw_look(seed, held_out=True))
            for seed in range(_UNSEEN, _UNSEEN + max(num_clips, num_pictures))
        ]
        self.clips = [make_clip(*performance, size=size) for performance in self.performances[:num_clips]]

    @torch.inference_mode()
    def denoising_error(self, training: ActionTraining[DiffusersHost]) -> float:
        """Mean loss of the clips, without twins; each time of the same noise."""
        errors, device = [], training.host.device
        for i, clip in enumerate(self.clips):
            latents_1FCHW = encode_picture(training.host.base.vae, clip_video(clip))[None]
            for timestep in _TIMESTEPS:
                noise = torch.randn(latents_1FCHW.shape, generator=seeded(i, "exam", timestep))
                where = torch.tensor([timestep])
                text_embeds = training.embeds(clip.caption)
                loss = denoising_losses(
                    training.host.predict,
                    latents_1FCHW.to(device),
                    noise.to(device),
                    where.to(device),
                    text_embeds,
                    None,
                    law=training.host.noise,
                )
                errors.append(loss.item())
        return fmean(errors)

    @cached_property
    def standards(self) -> Sequence[Standard]:
        """True continuations of the pictures, one after the other."""
        return [
            read_standard(true_clips(motion, look, seed=i, size=self.size), reader=self.reader)
            for i, (motion, look) in enumerate(self.performances[: self.num_pictures])
        ]

    def scores(
        self,
        training: ActionTraining[DiffusersHost],
        taught: Sequence[Clip],
        decoder: DetailDecoder | None = None,
    ) -> tuple[list[Scores], list[Scores]]:
        """The measures of videos of pictures in those looks, decoded by the VAE alone and with details.

        `taught` is what was learned from; without a decoder there is nothing with details.
        """
        looks_LE = mean_looks(self.reader, taught)
        plain: list[Scores] = []
        detailed: list[Scores] = []
        vae = training.host.base.vae
        for i, standard in enumerate(self.standards):
            picture_1HWC, caption = standard.reference_1HWC, standard.truths[0].caption
            latents_FCHW = training.animate_latents(picture_1HWC, caption, i, SAMPLER).cpu()
            decoded = [(decode_frames(vae, latents_FCHW), plain)]
            if decoder is not None:
                frames = decode_frames_with_details(vae, decoder, latents_FCHW, picture_1HWC, keep_first=True)
                decoded.append((frames, detailed))
            for frames, scores in decoded:
                scores.append(score(torch.stack([*frames]), standard, looks_LE, reader=self.reader))
        return plain, detailed
