"""Words on a node while it runs, in the browser and in the log."""

import logging
from collections.abc import Sequence

from server import PromptServer

_shown: set[str] = set()
"""Ids of the nodes that show a sentence, which some frontends keep until another text comes."""


def show_notes(sentences: Sequence[str], hidden) -> None:
    """Show sentences on the node that runs, and in the log; without any, take back those of its last run.

    Two lines of 30 letters fit on a node.
    """
    for sentence in sentences:
        logging.warning("FLASH: %s", sentence)
    server = getattr(PromptServer, "instance", None)
    if server is None or hidden is None or not (sentences or hidden.unique_id in _shown):
        return
    server.send_progress_text("\n".join(sentences) or " ", hidden.unique_id)  # "" would change nothing
    (_shown.add if sentences else _shown.discard)(hidden.unique_id)
