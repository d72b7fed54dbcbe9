"""Fill a network with the weights of a file; nothing in the file is run."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ...files.tensor_file import check_numbers, some


def fill(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a network its weights in fp32, and set it to judge. Further tensors are passed over.

    Counts of batches (`num_batches_tracked`) may be missing: files from before torch 0.4 have none, and
    nothing is computed with them. Raises ValueError unless the file holds every other weight in its shape.
    """
    wanted = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    unfit = [
        name for name, value in wanted.items() if name not in tensors or tensors[name].shape != value.shape
    ]
    if unfit:
        raise ValueError(
            f"{path.name} is no file of this judge: {len(unfit)} of its {len(wanted)} weights are missing or "
            f"have another shape ({some(unfit)}). Download it again."
        )
    weights = {name: tensors[name] for name in wanted}
    check_numbers(weights, path.name)
    floats = {name: tensor.float() for name, tensor in weights.items()}
    network.load_state_dict(floats, strict=False, assign=True)
    network.eval().requires_grad_(False)


def unwrapped(tensors: Mapping[str, Tensor], begins: str) -> dict[str, Tensor]:
    """The tensors under what stands before a name that begins so: `module.`, `model.`, `state_dict.`."""
    prefix = next((name.partition(begins)[0] for name in tensors if begins in name), "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
