"""Words on a node while it runs, in the browser and in the log."""

import logging
from collections.abc import Sequence

from server import PromptServer


def show_notes(sentences: Sequence[str], hidden) -> None:
    """Show sentences on the node that runs, and in the log; without a server in the log alone."""
    for sentence in sentences:
        logging.warning("FLASH: %s", sentence)
    server = getattr(PromptServer, "instance", None)
    if sentences and hidden and server:
        server.send_progress_text("\n".join(sentences), hidden.unique_id)
