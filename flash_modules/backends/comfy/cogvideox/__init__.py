"""CogVideoX-5b-I2V on ComfyUI's own model: on a clone, through ModelPatcher alone."""

from .corrections import corrected
from .load import PRECISIONS, check_cogvideox_file, cogvideox_files, load_cogvideox, load_cogvideox_file
from .picture import Conditioned, condition
from .sampler import exact_sampler
from .transfer import transfer_action

__all__ = [
    "PRECISIONS",
    "Conditioned",
    "check_cogvideox_file",
    "cogvideox_files",
    "condition",
    "corrected",
    "exact_sampler",
    "load_cogvideox",
    "load_cogvideox_file",
    "transfer_action",
]
