"""Files of ComfyUI's folders by their names there, for nodes."""

from comfy.model_patcher import ModelPatcher

from ....flexiact.ref_adapter_file import RefAdapter, read_ref_adapter
from ..folders import check_model_file, model_files, model_path
from .load import PRECISIONS, is_later_part, load_cogvideox

MODELS, LORAS = "diffusion_models", "loras"
"""ComfyUI's own folders; a RefAdapter is a LoRA."""
NONE = "none"
"""Of RefAdapters: no file."""


def cogvideox_files() -> list[str]:
    """Names for a node's list; of a model in parts, the first."""
    return [name for name in model_files(MODELS) if not is_later_part(name)]


def check_cogvideox_file(name: str) -> bool | str:
    """True if there is such a file, else a sentence, as a node's `validate_inputs` gives them."""
    return check_model_file(MODELS, name)


def load_cogvideox_file(name: str, precision: str) -> ModelPatcher:
    """A corrected MODEL; `precision` is one of PRECISIONS."""
    return load_cogvideox(model_path(MODELS, name), PRECISIONS[precision])


def adapter_files() -> list[str]:
    """Names for a node's list, and that of no file."""
    return [NONE, *model_files(LORAS)]


def check_adapter_file(name: str) -> bool | str:
    """True if there is such a file, or none is wanted, else a sentence."""
    return name == NONE or check_model_file(LORAS, name)


def load_adapter_file(name: str) -> RefAdapter | None:
    """None if none is wanted."""
    return None if name == NONE else read_ref_adapter(model_path(LORAS, name))
