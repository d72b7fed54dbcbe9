"""A trained LoRA as a file that core's loaders read, with a header that tells how it came to be."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ...files.model_card import model_spec
from ...files.tensor_file import write_tensors
from .action_training import Learned
from .export import flash_entries, learned_header


def write_trained_lora(
    path: Path, learned: Learned, *, base: str, architecture: str, shift: float, header: Mapping[str, str]
) -> None:
    """Write what was learned by flow matching as a LoRA file in fp32, whole or not at all.

    `architecture` is the base's in the words of SAI Model Spec 1.0, `shift` the one it was learned with;
    `header` has further entries.
    """
    tensors = {name: weight.detach().to("cpu", torch.float32) for name, weight in learned.weights.items()}
    ranks = {len(tensor) for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    timesteps, sampling = learned.config.method.timesteps, learned.config.sampling
    settings = {
        "kind": "lora",
        "base": base,
        "rank": max(ranks),
        "frames": sampling.num_frames,
        "prompts": learned.prompts,
        "timestep": {
            "law": timesteps.law,
            "shift": shift,
            **({"alpha": timesteps.alpha} if timesteps.law == "cosine" else {}),
        },
    }
    metadata = {
        **learned_header(learned),
        **model_spec(f"{architecture}/lora", path.stem),
        "modelspec.trigger_phrase": ", ".join(learned.prompts),
        **flash_entries(settings),
        **header,
    }
    write_tensors(path, tensors, metadata)
