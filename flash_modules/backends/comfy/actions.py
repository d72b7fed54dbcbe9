"""Actions of both papers, in one folder and through one socket: a file says which it is."""

from pathlib import Path

from ...flash.action_file import Action, read_action
from ...flexiact.action_file import TransferAction, is_transfer_action, read_transfer_action


def load_action(path: Path) -> tuple[Action | TransferAction, str]:
    """An action and the first prompt of its training, "" if the file has none.

    Raises ValueError with what is wrong with the file.
    """
    if is_transfer_action(path):
        transfer = read_transfer_action(path)
        return transfer, transfer.prompt
    action = read_action(path)
    return action, next(iter(action.prompts), "")
