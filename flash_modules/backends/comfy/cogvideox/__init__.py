"""CogVideoX-5b-I2V on ComfyUI's own model: on a clone, through ModelPatcher alone."""

from .corrections import corrected
from .files import (
    NONE,
    adapter_files,
    check_adapter_file,
    check_cogvideox_file,
    cogvideox_files,
    load_adapter_file,
    load_cogvideox_file,
)
from .load import PRECISIONS, load_cogvideox
from .picture import Conditioned, condition
from .sampler import exact_sampler
from .transfer import transfer_action

__all__ = [
    "NONE",
    "PRECISIONS",
    "Conditioned",
    "adapter_files",
    "check_adapter_file",
    "check_cogvideox_file",
    "cogvideox_files",
    "condition",
    "corrected",
    "exact_sampler",
    "load_adapter_file",
    "load_cogvideox",
    "load_cogvideox_file",
    "transfer_action",
]
