"""An action's training on a node, with all that is known of it before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import Input
from torch import Tensor

from ....flash.training.settings import ActionTrainingConfig, kept_aside, parted
from ....training.clips import Clip, Clips
from ....training.run_folder import SETTINGS, RunFolder
from ..folders import RUNS, clip_folder_state, written_path
from .action_options import ActionOptions
from .encoders import check_encoders
from .result import Result, run_state


@dataclass(frozen=True, kw_only=True)
class ActionLesson:
    """What a node is asked to learn, on whatever base."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    folder: Path
    """With clips of one action."""
    prompt: str
    """Of clips without a text; empty = the folder's name."""
    steps: int
    run_name: str
    image: Tensor | None = None
    """A picture (1, H, W, 3) in [0, 1] that performs the action on the way."""
    videos: Sequence[Input.Video] = ()
    """Clips from other nodes, in place of the folder's."""
    texts: Sequence[str] = ()
    """Theirs."""
    twins: Sequence[Input.Video] = ()
    """The clips' motions in other looks, frame by frame, in their order."""


AnyLesson = TypeVar("AnyLesson", bound=ActionLesson, covariant=True)


@dataclass(frozen=True, kw_only=True)
class ActionPlan(Generic[AnyLesson]):
    """A lesson with all that is known of it before a model is loaded."""

    lesson: AnyLesson
    options: ActionOptions
    config: ActionTrainingConfig
    clips: Clips
    hashes: Sequence[str]
    """Of the clips that are used."""
    settings: Mapping[str, Any]
    encoders: Mapping[str, str]
    """What the VAE and the text encoder are known by."""
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
        check_encoders(run, self.encoders)
        return run

    def steps_if_done(self) -> int | None:
        """How many steps the file has learned, if those are all that are wanted."""
        return self.result.steps_if_done(self.open_run() if self.goes_on else None, self.config.loop.steps)


def lesson_state(folder_name: str, run_name: str) -> str:
    """Changes when the clips do, and when the run has gone on: then the node must look again."""
    return f"{clip_folder_state(folder_name)} {run_state(run_name)}"
