"""Learning an action on Wan 2.2, with all that is known of it before a model is loaded."""

from dataclasses import dataclass

import comfy.model_management

from .....files.model_card import LICENCE
from .....flash.training.noise_law import FlowNoise
from .....flash.training.settings import run_settings
from .....training.clips import clip_hashes
from .....training.sampling import long_enough
from ...folders import LORAS, written_path
from ...learning.action_plan import ActionLesson, ActionPlan
from ...learning.result import Result, check_places, run_id
from ...video_clips import given_clips
from .encode import check_clip, check_vae, encoder_fingerprints
from .host import model_settings, shift_of
from .options import WanOptions
from .own_net import base_fingerprint, check_learnable


@dataclass(frozen=True, kw_only=True)
class WanLesson(ActionLesson):
    """What the node is asked to learn."""

    width: int
    height: int
    """Pixels of the videos that are learned from."""
    options: WanOptions | None = None


@dataclass(frozen=True, kw_only=True)
class WanPlan(ActionPlan[WanLesson]):
    """Its plan."""

    options: WanOptions


def make_plan(lesson: WanLesson) -> WanPlan:
    """The plan of a lesson. Raises ValueError, with a sentence, for what cannot be learned."""
    path = written_path(LORAS, f"{lesson.run_name}.safetensors")
    check_places(lesson.run_name, path, samples=True)
    check_learnable(lesson.model)
    check_clip(lesson.clip)
    check_vae(lesson.vae)
    options = lesson.options or WanOptions()
    device = comfy.model_management.get_torch_device()
    config = options.config(lesson.width, lesson.height, lesson.steps, device)
    noise = FlowNoise(shift_of(lesson.model))
    given = given_clips(lesson.folder, lesson.prompt, lesson.videos, lesson.texts, lesson.twins)
    clips = long_enough(given, config.sampling)
    hashes = clip_hashes(clips.used)
    models = model_settings(base_fingerprint(lesson.model), noise, options.lora)
    hashed = list(zip(clips.used, hashes, strict=True))
    settings = run_settings(hashed, models, config, config.loop.accumulation)
    return WanPlan(
        lesson=lesson,
        options=options,
        config=config,
        clips=clips,
        hashes=hashes,
        settings=settings,
        encoders=encoder_fingerprints(lesson.vae, lesson.clip),
        result=Result(path, run_id(settings)),
    )


def file_header(plan: WanPlan) -> dict[str, str]:
    """Entries of the file's header that the training itself does not know."""
    licence = plan.options.licence.strip()
    return {**plan.result.header, **({LICENCE: licence} if licence else {})}
