"""Files: read without running anything in them, told apart, checked, written whole or not at all."""

from .action import Action, Source, read_action, write_action
from .motion import MotionWeights, read_motion

__all__ = ["Action", "MotionWeights", "Source", "read_action", "read_motion", "write_action"]
