"""Models of any base: built as their config says, on no memory, and filled with weights read as data."""

import inspect
import re
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...files.json_file import read_json
from ...files.plain_weights import plain_weights
from ...files.tensor_file import Tensors, read_tensors, short, some

Model = TypeVar("Model", bound=nn.Module)

_MAX_SIZES = {
    "vocab_size": 2**20,
    "_token_id": 2**20,
    "num_hidden_layers": 64,
    "num_layers": 64,
    "layers": 8,
    "": 2**14,
}
"""By what is in a setting's name: more than any model has. What is built by it could be of any size."""


class Unfit(ValueError):
    """Weights that are not those of the model: `names` are missing, or of another shape or kind."""

    def __init__(self, names: Sequence[str], *, missing: bool) -> None:
        super().__init__(f"{'it lacks' if missing else 'of another shape or kind:'} {some(names)}")
        self.names, self.missing = names, missing


def filled(model: Model, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> Model:
    """The model with these weights, in that number type.

    Raises Unfit for what is missing, or of another shape.
    """
    expected = model.state_dict()
    if missing := [name for name in expected if name not in weights]:
        raise Unfit(missing, missing=True)
    fits = {
        name: weights[name].shape == wanted.shape and weights[name].is_floating_point()
        for name, wanted in expected.items()
    }
    if not all(fits.values()):
        raise Unfit([name for name in fits if not fits[name]], missing=False)
    model.load_state_dict({name: weights[name].to(dtype) for name in expected}, assign=True)
    return model


@contextmanager
def telling(what: str):
    """Give whatever the libraries raise on odd files and settings one type, and our words.

    They were made for good ones: there is no list of what they raise on others, and each release raises more.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is ValueError and error.__cause__:  # ours, with its reason
            raise
        raise ValueError(f"{what} ({short(error)}).") from error
    except Exception as error:
        raise ValueError(f"{what} ({type(error).__name__}: {short(error)}).") from error


def read_model(
    folder: Path,
    kind: Callable[..., Model],
    begins: re.Pattern[str],
    *,
    rename: Callable[[str], str] = str,
    file: Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> Model:
    """A model in diffusers' layout, its weights from that file if one is given.

    `begins` is what the names of its weights begin with. Raises ValueError if its settings or weights are
    odd, or do not fit.
    """
    config = read_settings(folder, inspect.signature(kind).parameters)
    with telling(f"{folder / 'config.json'} describes no model"), torch.device("meta"):
        model = kind(**config)
    weights = {rename(name): tensor for name, tensor in read_weights(folder, begins, file).items()}
    unknown = {name for name in weights if begins.match(name)} - model.state_dict().keys()
    if unknown:
        raise ValueError(
            f"The weights in {folder} do not fit its config.json, which knows nothing of {some(unknown)}: "
            "download both again."
        )
    return filled_from(folder, model, weights, dtype)


def read_settings(folder: Path, known: Container[str]) -> dict[str, Any]:
    """The settings that count, of numbers that a model can have."""
    file = folder / "config.json"
    config = {key: value for key, value in read_json(file).items() if key in known}
    for key, value in config.items():
        most = next(most for mark, most in _MAX_SIZES.items() if mark in key)
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > 16 or isinstance(value, dict):
            raise ValueError(f"{file} is damaged: `{key}` has {len(value)} entries, as in no model.")
        if not all(abs(n) <= most for n in numbers if isinstance(n, int | float)):
            raise ValueError(f"{file} is damaged: `{key}` is {short(value)}, as in no model.")
    return config


def read_weights(folder: Path, begins: re.Pattern[str], file: Path | None = None) -> Tensors:
    """The weights of a folder in diffusers' layout, or of one file in it, under their plain names.

    Raises ValueError if they cannot be read.
    """
    weights: Tensors = {}
    try:
        for part in [file] if file else _weight_files(folder):
            weights |= read_tensors(part)[0]
        return plain_weights(weights, begins, folder.name)[0]
    except (ValueError, OSError) as error:
        raise ValueError(f"The weights in {folder} cannot be read ({error}): download them again.") from error


def _weight_files(folder: Path) -> list[Path]:
    """One file or several parts of one; in full precision where there is such, else in half."""
    files = sorted(folder.iterdir())
    for half in ("", r"\.fp16"):
        for stem in (
            r"(?:diffusion_pytorch_model|model){}\.safetensors",
            r"(?:diffusion_)?pytorch_model{}\.bin",
        ):
            for part in (half, half + r"-\d+-of-\d+"):
                if found := [file for file in files if re.fullmatch(stem.format(part), file.name)]:
                    return found
    raise ValueError("there are none")


def filled_from(
    folder: Path, model: Model, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> Model:
    """`filled`, where what is missing is said as of this folder. Raises ValueError."""
    try:
        return filled(model, weights, dtype)
    except Unfit as error:
        lack = "lack" if error.missing else "do not fit its config.json:"
        raise ValueError(
            f"The weights in {folder} {lack} {some(error.names)}: download them again."
        ) from error
