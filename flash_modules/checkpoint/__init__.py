"""Files: read without running anything in them, told apart, checked, written whole or not at all."""

from .action import Action, Source, read_action, write_action
from .detail_file import DetailWeights, read_detail_decoder, write_detail_decoder
from .motion import MotionWeights, read_motion

__all__ = [
    "Action",
    "DetailWeights",
    "MotionWeights",
    "Source",
    "read_action",
    "read_detail_decoder",
    "read_motion",
    "write_action",
    "write_detail_decoder",
]
