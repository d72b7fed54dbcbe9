"""The VAE and the text encoder of a training, which a graph may change alone and ComfyUI keeps."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import comfy.model_management
import torch
from comfy.sd import VAE
from torch import Tensor

from ....files.whole import write_text
from ....training.run_folder import RunFolder

_ENCODERS = "encoders.json"
"""In a run's folder: what both are known by."""


def check_encoders(run: RunFolder, found: Mapping[str, str]) -> None:
    """Raise ValueError if the run was begun with another VAE or text encoder; the first time, note them.

    `found` has what each is known by, by its name for a user.
    """
    file = run.path / _ENCODERS
    if not file.is_file():
        write_text(file, json.dumps(found, indent=2) + "\n")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    others = [name for name, sha256 in found.items() if known.get(name) != sha256]
    if others:
        raise ValueError(
            f"The run '{run.path.name}' was begun with another {' and another '.join(others)}: connect the "
            "one from then, or give the run another name."
        )


@contextmanager
def vae_in_use(vae: VAE) -> Iterator[None]:
    """Afterwards the VAE is off the device again, where the training needs the room."""
    try:
        yield
    finally:
        with torch.inference_mode():
            comfy.model_management.unload_model_and_clones(vae.patcher)


def run_vae(vae: VAE, memory_used: Callable, one: Tensor, run: Callable[[VAE, Tensor], Tensor]) -> Tensor:
    """What `run` makes of `one` with the VAE on the device, in fp32 on the CPU."""
    with torch.inference_mode():
        memory = memory_used(one.shape, vae.vae_dtype)
        comfy.model_management.load_models_gpu(
            [vae.patcher], memory_required=memory, force_full_load=vae.disable_offload
        )
        found = run(vae, one).to("cpu", torch.float32)
    return found.clone()  # outside of inference mode, so that it may be learned with
