"""Lets tests import `actors`, and the core as `actors` does, from the repository's root.

The root comes last on sys.path: our `nodes/` must never hide ComfyUI's `nodes.py`.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
