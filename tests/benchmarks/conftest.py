"""Lets tests import `benchmarks`, and the core as they do, from the repository's root.

The root comes last on sys.path: our `nodes/` must never hide ComfyUI's `nodes.py`.
"""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))

torch.set_num_threads(1)  # models this small only wait for a second thread
