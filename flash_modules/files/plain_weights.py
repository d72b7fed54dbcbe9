"""Weights under the names that wrappers and trainers give them, as they are called without."""

import re
from collections.abc import Mapping

from torch import Tensor

from .tensor_file import Tensors, some

_WITHIN = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile and its like put between the names of a module and of its parts."""
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averaged?)(?:[._\d]|$)", re.IGNORECASE)
"""In names of exponential moving averages: `ema_state_dict.`, `model_ema.`, `state_dict_ema.`."""


def plain_weights(
    tensors: Mapping[str, Tensor], begins: re.Pattern[str], file_name: str
) -> tuple[Tensors, str]:
    """The weights whose plain names begin so, under those names; the others as they are.

    What stands before the plain name was put there by a wrapper (`module.`, `unet.`, `model_state_dict.`).
    Where averaged weights (EMA) lie beside the plain ones, the plain ones are taken, and the averaged ones
    where they are alone; the sentence says so, and is empty otherwise. Raises ValueError if there are two
    plain ones.
    """
    groups: dict[str, Tensors] = {}
    others: Tensors = {}
    for name, tensor in tensors.items():
        clean = _WITHIN.sub("", name)
        found = begins.search(clean)
        if found:
            groups.setdefault(clean[: found.start()], {})[clean[found.start() :]] = tensor
        else:
            others[clean] = tensor
    averaged = {prefix for prefix in groups if _AVERAGED.search(prefix)}
    plain = sorted(groups.keys() - averaged)
    chosen = plain or sorted(averaged)
    if len(chosen) > 1:
        kind = "averaged" if not plain else "plain"
        named = some(prefix or "no prefix" for prefix in chosen)
        raise ValueError(f"{file_name} holds {len(chosen)} sets of {kind} weights ({named}): keep one.")
    return others | (groups[chosen[0]] if chosen else {}), _said(chosen, plain, averaged)


def _said(chosen: list[str], plain: list[str], averaged: set[str]) -> str:
    if not averaged:
        return ""
    named = some(prefix.removesuffix(".") for prefix in averaged)
    if plain:
        return f"its plain weights; the averaged ones (EMA, under {named}) are left out"
    return f"its averaged weights (EMA, under {named}), as it has no others"
