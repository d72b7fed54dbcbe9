"""Saving an action with what people want to know of it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...animatediff.motion_module import MotionConfig
from ...files.label import Label, with_label
from ...files.video_files import as_picture
from ...flash.action_file import Action, standalone_motion, write_action
from ...flash.action_kinds import as_compact, as_standalone
from ...flexiact.action_file import TransferAction, write_transfer_action
from .folders import ACTIONS, numbered_path
from .learning.result import RUN
from .sd15 import LoadedMotion

AS_IT_IS = "as it is"
KINDS = (AS_IT_IS, "compact", "standalone")


@dataclass(frozen=True, kw_only=True)
class SaveWishes:
    """What the node is asked to save, and how."""

    action: Action | TransferAction
    file_name: str
    """In models/flash_actions; a number comes behind it."""
    kind: str
    """One of KINDS."""
    motion: LoadedMotion | None = None
    """The motion module of a compact action that becomes standalone."""
    title: str = ""
    author: str = ""
    licence: str = ""
    description: str = ""
    thumbnail: Tensor | None = None
    """A picture (1, H, W, 3) in [0, 1]."""

    @property
    def label(self) -> Label:
        """What the header is to tell people."""
        return Label(
            title=self.title,
            author=self.author,
            licence=self.licence,
            description=self.description,
            thumbnail=None if self.thumbnail is None else as_picture(self.thumbnail[0, ..., :3]),
        )


@torch.inference_mode()
def save_action(wishes: SaveWishes) -> Path:
    """Write the action into a new file, whole or not at all; the result is where it lies.

    Raises ValueError if the kind cannot be had.
    """
    others = {entry: text for entry, text in wishes.action.header.items() if entry != RUN}
    header = with_label(others, wishes.label)  # without RUN: a copy is no run's
    if isinstance(wishes.action, TransferAction):
        if wishes.kind != AS_IT_IS:
            raise ValueError(
                f"The action '{wishes.action.name}' is FlexiAct's, which is never {wishes.kind}: choose "
                f"'{AS_IT_IS}'."
            )
        path = numbered_path(ACTIONS, wishes.file_name)
        write_transfer_action(path, replace(wishes.action, header=header))
        return path
    action, config = _of_kind(wishes.action, wishes)
    path = numbered_path(ACTIONS, wishes.file_name)
    write_action(path, replace(action, header=header), config)
    return path


def _of_kind(action: Action, wishes: SaveWishes) -> tuple[Action, MotionConfig | None]:
    """The action of that kind, with the layout of the motion module if it holds a whole one."""
    if wishes.kind in (AS_IT_IS, action.kind):
        return action, standalone_motion(action).config if action.kind == "standalone" else None
    if wishes.kind == "compact":
        return as_compact(action), None
    if wishes.motion is None:
        raise ValueError(
            f"A standalone action holds its whole motion module: connect {action.motion_module.name} "
            f"({action.motion_module.version}), on which '{action.name}' was trained, to `motion`."
        )
    motion = wishes.motion.read()
    return as_standalone(action, motion), motion.config
