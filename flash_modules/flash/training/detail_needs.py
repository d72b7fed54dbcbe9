"""The memory that training a detail decoder takes, and the settings that need less."""

from collections.abc import Iterator
from dataclasses import dataclass

from .detail_training import DetailHost, DetailTraining
from .method import PRESETS
from .needs import peak_memory


def detail_memory(
    training: DetailTraining[DetailHost], size: int | None = None, frames: int | None = None
) -> int:
    """Bytes that training takes at its peak, as configured or with another size or frames of a step."""
    weights = list(training.decoder.parameters())
    learning = sum(weight.numel() * weight.element_size() for weight in weights)
    return peak_memory(training.host.num_bytes + learning, weights, training.cost(size, frames).peak_bytes)


def frugal_details(training: DetailTraining[DetailHost]) -> Iterator[tuple[int, int]]:
    """Size and frames of a step as configured, then fewer frames, then smaller sizes with a single one."""
    size = training.config.size
    smaller = sorted((pixels for pixels in PRESETS.values() if pixels < size), reverse=True)
    yield from ((size, frames) for frames in range(training.config.frames, 0, -1))
    yield from ((pixels, 1) for pixels in smaller)


@dataclass(frozen=True)
class FrugalDetails:
    """Settings of a training, and the bytes that it takes with them."""

    size: int
    frames: int
    needed: int
    fits: bool


def details_that_fit(training: DetailTraining[DetailHost], free: float) -> FrugalDetails:
    """The settings nearest to the present ones that fit, else those that need the least."""
    for size, frames in frugal_details(training):
        needed = detail_memory(training, size, frames)
        if needed <= free:
            return FrugalDetails(size, frames, needed, fits=True)
    return FrugalDetails(size, frames, needed, fits=False)
