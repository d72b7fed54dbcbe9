"""Learning from one clip, with all that is known of it before a model is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import Input
from torch import Tensor

from .....flexiact.ref_adapter_file import STRENGTH, RefAdapter, check_adapter_fits
from .....flexiact.training.source import Source, from_clip, one_clip
from .....flexiact.training.token_training import TokenTrainingConfig, run_settings
from .....flexiact.training.views import ViewConfig
from .....training.run_folder import SETTINGS, RunFolder
from ...folders import ACTIONS, RUNS, written_path
from ...learning.encoders import check_encoders
from ...learning.result import Result, check_places, run_id
from ...video_clips import LastVideo, video_clip
from ..picture import check_vae
from .encode import check_clip, check_prompt, encoder_fingerprints
from .options import OneClipOptions
from .own_net import base_fingerprint, check_learnable


@dataclass(frozen=True, kw_only=True)
class OneClipLesson:
    """What the node is asked to learn."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    file: Path
    """The clip that is learned from."""
    prompt: str
    """What is seen in it."""
    steps: int
    run_name: str
    video: Input.Video | None = None
    """A clip from another node, in place of the file."""
    image: Tensor | None = None
    """A picture (1, H, W, 3) in [0, 1] that performs the action on the way."""
    adapter: RefAdapter | None = None
    """What keeps its look."""
    adapter_strength: float = STRENGTH
    options: OneClipOptions = field(default_factory=OneClipOptions)


@dataclass(frozen=True, kw_only=True)
class OneClipPlan:
    """A lesson with all that is known of it before a model is loaded."""

    lesson: OneClipLesson
    config: TokenTrainingConfig
    source: Source
    settings: Mapping[str, Any]
    result: Result

    @property
    def folder(self) -> Path:
        return written_path(RUNS, self.lesson.run_name)

    @property
    def goes_on(self) -> bool:
        return (self.folder / SETTINGS).is_file()

    def open_run(self) -> RunFolder:
        """The run's folder. Raises ValueError if it was begun with other settings or models."""
        run = RunFolder(self.folder.parent, self.lesson.run_name, self.settings)
        check_encoders(run, encoder_fingerprints(self.lesson.vae, self.lesson.clip))
        return run


def make_plan(lesson: OneClipLesson) -> OneClipPlan:
    """The plan of a lesson. Raises ValueError, with a sentence, for what cannot be learned."""
    path = written_path(ACTIONS, f"{lesson.run_name}.safetensors")
    check_places(lesson.run_name, path, samples=True)
    check_learnable(lesson.model)
    check_clip(lesson.clip)
    check_vae(lesson.vae)
    net, options = lesson.model.model.diffusion_model, lesson.options
    caption = " ".join(lesson.prompt.split())
    check_prompt(lesson.clip, caption, net.max_text_seq_length)
    if lesson.adapter is not None:
        check_adapter_fits(lesson.adapter, num_layers=len(net.blocks), width=net.dim)
    config, source = options.config(lesson.steps), _source(lesson, caption)
    settings = source.settings | run_settings(
        config,
        clip_sha256=source.sha256,
        caption=caption,
        view=source.parts[0].config,
        num_tokens=options.tokens,
        base=base_fingerprint(lesson.model),
        micro_batches=config.loop.accumulation,
    )
    settings["dtype"] = str(lesson.model.model.get_dtype_inference()).removeprefix("torch.")
    result = Result(path, run_id(settings))
    return OneClipPlan(lesson=lesson, config=config, source=source, settings=settings, result=result)


def _source(lesson: OneClipLesson, caption: str) -> Source:
    """The clip at the size that the model knows."""
    embed, options = lesson.model.model.diffusion_model.patch_embed, lesson.options
    view = ViewConfig(
        frames=embed.sample_frames,
        height=8 * embed.sample_height,
        width=8 * embed.sample_width,
        start=options.start,
        end=options.end or None,
    )
    if lesson.video is None:
        return one_clip(lesson.file, caption, view)
    return from_clip(video_clip(Path("The video"), lesson.video, caption, LastVideo()), view)
