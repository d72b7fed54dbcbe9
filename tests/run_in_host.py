"""Runs pytest in ComfyUI's Python: `<ComfyUI's python> tests/run_in_host.py tests/comfy [pytest options]`.

Our own packages (pytest, diffusers, playwright) come last on sys.path, so ComfyUI's torch wins.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path.pop(0)  # the folder of this script: tests/comfy would mix with ComfyUI's `comfy`
sys.path += [str(folder) for folder in (ROOT / ".venv").glob("lib/python*/site-packages")]

import pytest  # noqa: E402

raise SystemExit(pytest.main(sys.argv[1:]))
