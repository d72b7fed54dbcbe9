"""Words on a node while it runs, in the browser and in the log."""

import html
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
    send_text("\n".join(sentences) or " ", hidden.unique_id)  # "" would change nothing
    (_shown.add if sentences else _shown.discard)(hidden.unique_id)


def show_text(text: str, hidden) -> None:
    """Show a text on the node that runs."""
    if hidden is not None:
        send_text(text, hidden.unique_id)


def send_text(text: str, node_id: str) -> None:
    """Show a text on a node that runs, sign by sign; outside of a server nothing is shown.

    The frontend takes it for HTML, and [[words|address]] for a link, and parts of it may be a stranger's.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_progress_text(html.escape(text).replace("[[", "[ ["), node_id)
