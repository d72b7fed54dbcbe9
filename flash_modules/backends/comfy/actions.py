"""Actions of both papers, in one folder and through one socket: a file says which it is."""

import re
from dataclasses import dataclass
from pathlib import Path

from ...files.label import Label, label_lines, read_label
from ...flash.action_file import Action, read_action
from ...flexiact.action_file import TransferAction, is_transfer_action, read_transfer_action


@dataclass(frozen=True, kw_only=True)
class LoadedAction:
    """An action, and what people want to know of it."""

    action: Action | TransferAction
    prompt: str
    """The first of its training, "" if the file has none."""
    learned_for: str
    """The model that it belongs to."""
    steps: int | None
    """Of its training, None if the file does not say."""

    @property
    def label(self) -> Label:
        return read_label(self.action.header, self.action.name)

    @property
    def text(self) -> str:
        """Lines for a node."""
        lines = label_lines(self.label, prompt=self.prompt, learned_for=self.learned_for, steps=self.steps)
        return "\n".join(lines)


def load_action(path: Path) -> LoadedAction:
    """An action from a file. Raises ValueError with what is wrong with the file."""
    if is_transfer_action(path):
        transfer = read_transfer_action(path)
        return LoadedAction(
            action=transfer, prompt=transfer.prompt, learned_for=transfer.base, steps=transfer.steps
        )
    action = read_action(path)
    steps = action.header.get("flash.steps", "")
    return LoadedAction(
        action=action,
        prompt=next(iter(action.prompts), ""),
        learned_for=f"{action.motion_module.name} ({action.motion_module.version})",
        steps=int(steps) if re.fullmatch(r"[0-9]{1,9}", steps) else None,
    )
