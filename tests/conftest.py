"""Gives every test the pack under one name, `flash_pack`, whatever its folder is called.

The pack root must not be on sys.path: our `nodes/` would hide ComfyUI's `nodes.py`.
"""

import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != ROOT]

flash_pack = types.ModuleType("flash_pack")
flash_pack.__path__ = [str(ROOT)]
sys.modules["flash_pack"] = flash_pack
