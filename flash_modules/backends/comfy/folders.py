"""ComfyUI's model folders for motion modules, actions and detail decoders."""

from contextlib import suppress
from pathlib import Path

import folder_paths

from ...files.clip_files import VIDEO_SUFFIXES
from ...files.pictures import ANIMATION_SUFFIXES
from ...files.whole import telling_what_fails

MOTIONS = "animatediff_models"
"""The folder that other AnimateDiff packs use too."""
ACTIONS = "flash_actions"
DECODERS = "flash_decoders"
LORAS = "loras"
"""ComfyUI's own."""
RUNS = "flash_runs"
"""Trainings, a folder each; large: about 9 GB with four checkpoints."""

_EXTENSIONS = {
    MOTIONS: {".safetensors", ".ckpt", ".pt", ".pth", ".bin"},
    ACTIONS: {".safetensors", ".pt"},  # as FlexiAct releases them
    DECODERS: {".safetensors"},
    RUNS: set(),
}
_CLIP_SUFFIXES = VIDEO_SUFFIXES + ANIMATION_SUFFIXES


def register_folders() -> None:
    """Make the folders known to ComfyUI, beside whatever other packs registered."""
    for key, extensions in _EXTENSIONS.items():
        folder = Path(folder_paths.models_dir) / key
        with suppress(OSError):  # a read-only models folder is no reason to stay away
            folder.mkdir(parents=True, exist_ok=True)
        folder_paths.add_model_folder_path(key, str(folder))
        folder_paths.folder_names_and_paths[key][1].update(extensions)


def model_files(key: str) -> list[str]:
    """Names for a node's list; where there is no file, a line that says so and fits into a node."""
    return folder_paths.get_filename_list(key) or [_nothing_in(key)]


def check_model_file(key: str, name: str) -> bool | str:
    """True if there is such a file, else a sentence, as a node's `validate_inputs` gives them."""
    if name in folder_paths.get_filename_list(key):
        return True
    if name == _nothing_in(key):
        return f"{_shown_folder(key)} is empty: put a file there, press R and choose it."
    return f"There is no file '{name}' in {_shown_folder(key)}: put it there, press R and choose it again."


def model_path(key: str, name: str) -> Path:
    return Path(folder_paths.get_full_path_or_raise(key, name))


def written_path(key: str, name: str) -> Path:
    """Where a new file or folder of that name goes."""
    return Path(folder_paths.get_folder_paths(key)[0]) / name


def numbered_path(key: str, prefix: str) -> Path:
    """The next free file of that name, with a number behind it as ComfyUI's own save nodes write it.

    The name may have folders and %year% in it. Raises ValueError unless the file lies in the model folder.
    """
    folder = folder_paths.get_folder_paths(key)[0]
    plain = prefix.strip().replace("\\", "/")
    if not plain or plain.endswith("/") or ".." in plain.split("/") or Path(plain).is_absolute():
        raise ValueError(
            f"The file's name '{prefix}' must be a name, or folders and a name, in {_shown_folder(key)}: "
            "'my action' or 'sports/kick' for example."
        )
    with telling_what_fails(Path(folder) / plain):
        inner, name, number, *_ = folder_paths.get_save_image_path(plain, folder)
    return Path(inner) / f"{name}_{number:05}_.safetensors"


_NO_CLIPS = "(none yet: make a folder in ComfyUI's input folder and put clips into it)"


def clip_folders() -> list[str]:
    """Folders of ComfyUI's input folder, for a node's list."""
    return folder_paths.get_input_subfolders() or [_NO_CLIPS]


def check_clip_folder(name: str) -> bool | str:
    """True if there is such a folder, else a sentence, as a node's `validate_inputs` gives them."""
    if name in folder_paths.get_input_subfolders():
        return True
    return f"There is no folder '{name}' in ComfyUI's input folder: make it, put clips into it, and press R."


def clip_folder(name: str) -> Path:
    return Path(folder_paths.get_input_directory()) / name


def clip_folder_state(name: str) -> str:
    """Changes whenever a file in the folder does, or one comes or goes."""
    folder = clip_folder(name)
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    states = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return repr([(path, state.st_size, state.st_mtime_ns) for path, state in states])


_NO_VIDEOS = "(none yet: put a video into ComfyUI's input folder)"


def input_videos() -> list[str]:
    """Files of ComfyUI's input folder that can be a clip, for a node's list."""
    folder = Path(folder_paths.get_input_directory())
    files = sorted(path.name for path in folder.glob("*") if path.suffix.lower() in _CLIP_SUFFIXES)
    return files or [_NO_VIDEOS]


def check_input_file(name: str) -> bool | str:
    """True if there is such a file, else a sentence, as a node's `validate_inputs` gives them."""
    if name and folder_paths.exists_annotated_filepath(name):
        return True
    return f"There is no file '{name}' in ComfyUI's input folder: put it there, press R and choose it again."


def input_file(name: str) -> Path:
    return Path(folder_paths.get_annotated_filepath(name))


def input_file_state(name: str) -> str:
    """Changes whenever the file does."""
    path = input_file(name)
    return repr((path.stat().st_size, path.stat().st_mtime_ns)) if path.is_file() else ""


def _nothing_in(key: str) -> str:
    return f"{key} is empty"


def _shown_folder(key: str) -> str:
    return f"models/{key}"
