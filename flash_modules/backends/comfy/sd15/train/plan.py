"""A training from a node, with all that is known of it before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import Input
from torch import Tensor

from .....animatediff.motion_module import check_num_frames
from .....files.json_file import read_json
from .....flash.action_file import Action
from .....flash.training.method_settings import as_begun
from .....flash.training.settings import ActionTrainingConfig, kept_aside, parted, run_settings
from .....flash.training.start import source_of
from .....training.clips import Clip, Clips, clip_hashes
from .....training.exam import begun_without_exam
from .....training.run_folder import SETTINGS, RunFolder
from ...folders import ACTIONS, RUNS, written_path
from ...learning.encoders import check_encoders
from ...learning.result import Result, check_places, run_id
from ...video_clips import given_clips
from ..motion import LoadedMotion
from .encode import check_clip, check_vae, encoder_fingerprints
from .options import TrainingOptions
from .own_weights import base_fingerprint, check_learnable


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the node is asked to learn."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    motion: LoadedMotion
    folder: Path
    """With clips of one action."""
    prompt: str
    """Of clips without a text; empty = the folder's name."""
    preset: str
    steps: int
    run_name: str
    options: TrainingOptions | None = None
    image: Tensor | None = None
    """A picture (1, H, W, 3) in [0, 1] that performs the action on the way."""
    videos: Sequence[Input.Video] = ()
    """Clips from other nodes, in place of the folder's."""
    texts: Sequence[str] = ()
    """Theirs."""
    start: Action | None = None
    """What was learned before, to begin with."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A lesson with all that is known of it before a model is loaded."""

    lesson: Lesson
    options: TrainingOptions
    config: ActionTrainingConfig
    clips: Clips
    hashes: Sequence[str]
    """Of the clips that are used."""
    settings: Mapping[str, Any]
    result: Result

    @property
    def folder(self) -> Path:
        return written_path(RUNS, self.lesson.run_name)

    @property
    def goes_on(self) -> bool:
        return (self.folder / SETTINGS).is_file()

    @property
    def kept_aside(self) -> Sequence[Clip]:
        """Clips that no step learns from."""
        used = self.clips.used
        return parted(used, kept_aside(used, self.config))[1]

    @property
    def sample_prompt(self) -> str:
        """Of the picture that performs the action on the way."""
        return self.lesson.prompt.strip() or self.clips.used[0].caption

    def open_run(self) -> RunFolder:
        """The run's folder. Raises ValueError if it was begun with other settings or models."""
        run = RunFolder(self.folder.parent, self.lesson.run_name, self.settings)
        check_encoders(run, encoder_fingerprints(self.lesson.vae, self.lesson.clip))
        return run


def make_plan(lesson: Lesson) -> Plan:
    """The plan of a lesson. Raises ValueError, with a sentence, for what cannot be learned."""
    check_places(lesson.run_name, samples=lesson.image is not None)
    check_learnable(lesson.model)
    check_clip(lesson.clip)
    check_vae(lesson.vae)
    options = lesson.options or TrainingOptions()
    config = options.config(lesson.preset, lesson.steps, comfy.model_management.get_torch_device())
    config = _as_begun(config, lesson)
    check_num_frames(lesson.motion.config, config.sampling.num_frames)
    if lesson.start is not None:
        config = replace(config, start=source_of(lesson.start))
    clips = given_clips(lesson.folder, lesson.prompt, lesson.videos, lesson.texts)
    models = {"base": base_fingerprint(lesson.model), "motion_module": lesson.motion.sha256}
    hashes = clip_hashes(clips.used)
    hashed = list(zip(clips.used, hashes, strict=True))
    settings = run_settings(hashed, models, config, config.loop.accumulation)
    result = Result(written_path(ACTIONS, f"{lesson.run_name}.safetensors"), run_id(settings))
    return Plan(
        lesson=lesson,
        options=options,
        config=config,
        clips=clips,
        hashes=hashes,
        settings=settings,
        result=result,
    )


def _as_begun(config: ActionTrainingConfig, lesson: Lesson) -> ActionTrainingConfig:
    """With what the run has, if there is one, where no options of the lesson say it."""
    file = written_path(RUNS, lesson.run_name) / SETTINGS
    if not file.is_file():
        return config
    if begun_without_exam(file):
        config = replace(config, exam=None)
    then, said = read_json(file).get("method"), lesson.options is not None
    return replace(config, method=as_begun(config.method, then, keep_frames=said))
