"""A method as settings of a run, and how runs go on that were begun before a default was another."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from .method import MethodConfig

_GONE = {"independent": False, "layers_seed": None}
"""Options of alignment that were taken away, at the only values that runs ever had: those runs go on."""


def method_settings(method: MethodConfig) -> dict[str, Any]:
    """All of the method, as its action file tells it.

    What came later is told only where it is not what was done before: so runs from then go on.
    """
    told = asdict(method)
    if not method.shared_noise:
        del told["shared_noise"]
    if method.timesteps.law == "cosine":
        del told["timesteps"]["law"]
    if not method.alignment.relative_to_still:
        del told["alignment"]["relative_to_still"]
    if method.augment.width is None:
        del told["augment"]["width"]
    if method.augment.kernels_of == method.augment.size:
        del told["augment"]["kernels_of"]
    return told


def run_method_settings(method: MethodConfig) -> dict[str, Any]:
    """All of the method, as the settings of a run hold it: they still name what was taken away."""
    told = method_settings(method)
    told["alignment"] |= _GONE
    return told


def as_begun(method: MethodConfig, then: Any, *, keep_frames: bool) -> MethodConfig:
    """The method as a run does it whose settings hold `then` under "method", by defaults of its own time.

    The blur of twins was not scaled with the picture, and alignment left frame 0 out; with `keep_frames` the
    user said which frames it is about, and that stays. All else is left to the comparison of settings.
    """
    augment, alignment = _part(then, "augment"), _part(then, "alignment")
    if augment and "kernels_of" not in augment:
        method = replace(method, augment=replace(method.augment, kernels_of=method.augment.size))
    first = alignment.get("exclude_first")
    if isinstance(first, bool) and not keep_frames:
        method = replace(method, alignment=replace(method.alignment, exclude_first=first))
    return method


def _part(then: Any, name: str) -> Mapping[str, Any]:
    part = then.get(name) if isinstance(then, Mapping) else None
    return part if isinstance(part, Mapping) else {}
