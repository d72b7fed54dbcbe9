"""A training from a node, with all that is known of it before a model is loaded."""

from dataclasses import dataclass, replace

import comfy.model_management

from .....animatediff.motion_module import check_num_frames
from .....files.json_file import read_json
from .....flash.action_file import Action
from .....flash.training.method_settings import as_begun
from .....flash.training.settings import ActionTrainingConfig, run_settings
from .....flash.training.start import source_of
from .....training.clips import clip_hashes
from .....training.exam import begun_without_exam
from .....training.run_folder import SETTINGS
from ...folders import ACTIONS, RUNS, written_path
from ...learning.action_plan import ActionLesson, ActionPlan
from ...learning.result import Result, check_places, run_id
from ...video_clips import given_clips
from ..motion import LoadedMotion
from .encode import check_clip, check_vae, encoder_fingerprints
from .options import TrainingOptions
from .own_weights import base_fingerprint, check_learnable


@dataclass(frozen=True, kw_only=True)
class Lesson(ActionLesson):
    """What the node is asked to learn."""

    motion: LoadedMotion
    preset: str
    options: TrainingOptions | None = None
    start: Action | None = None
    """What was learned before, to begin with."""


Plan = ActionPlan[Lesson]


def make_plan(lesson: Lesson) -> Plan:
    """The plan of a lesson. Raises ValueError, with a sentence, for what cannot be learned."""
    path = written_path(ACTIONS, f"{lesson.run_name}.safetensors")
    check_places(lesson.run_name, path, samples=lesson.image is not None)
    check_learnable(lesson.model)
    check_clip(lesson.clip)
    check_vae(lesson.vae)
    options = lesson.options or TrainingOptions()
    config = options.config(lesson.preset, lesson.steps, comfy.model_management.get_torch_device())
    config = _as_begun(config, lesson)
    check_num_frames(lesson.motion.config, config.sampling.num_frames)
    if lesson.start is not None:
        config = replace(config, start=source_of(lesson.start))
    clips = given_clips(lesson.folder, lesson.prompt, lesson.videos, lesson.texts, lesson.twins)
    models = {"base": base_fingerprint(lesson.model), "motion_module": lesson.motion.sha256}
    hashes = clip_hashes(clips.used)
    hashed = list(zip(clips.used, hashes, strict=True))
    settings = run_settings(hashed, models, config, config.loop.accumulation)
    return Plan(
        lesson=lesson,
        options=options,
        config=config,
        clips=clips,
        hashes=hashes,
        settings=settings,
        encoders=encoder_fingerprints(lesson.vae, lesson.clip),
        result=Result(path, run_id(settings)),
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
