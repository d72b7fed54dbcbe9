"""What an evaluation found: scores of videos, of methods, and of sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

import torch
from torch import Tensor

from .distances import frechet_distance, jackknife_error, kernel_distance
from .measures import PER_VIDEO, Measure

FRECHET = "frechet"
KERNEL = "kernel"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number of the table, with how sure it is."""

    value: float
    spread: float
    """Standard deviation over videos; of a set's distance the jackknife's standard error. NaN: too few."""
    count: int
    """Videos that it comes from."""
    floor: float | None = None
    """Of a set's distance: the same between as many true videos and as many others. None: too few."""

    def text(self, digits: int) -> str:
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.{digits}f}"
        floor = "" if self.floor is None else f", floor {self.floor:.{digits}f}"
        return f"{self.value:.{digits}f}{spread} (n = {self.count}{floor})"


@dataclass(kw_only=True)
class MethodResult:
    """All that was found of one folder of videos."""

    name: str
    videos: dict[str, dict[str, float]] = field(default_factory=dict)
    """By the video's name: its scores by key."""
    sets: dict[str, Score] = field(default_factory=dict)
    """Distances of the whole set, by key."""

    def scores(self) -> dict[str, Score]:
        """By key: the mean over the videos that have it, and the sets' distances."""
        found = {}
        for measure in PER_VIDEO:
            values = [scores[measure.key] for scores in self.videos.values() if measure.key in scores]
            if values:
                spread = stdev(values) if len(values) > 1 else math.nan
                found[measure.key] = Score(value=fmean(values), spread=spread, count=len(values))
        return found | self.sets


def set_measures(network: str, *, is_cd_fvd: bool) -> tuple[Measure, Measure]:
    """The columns of a set's distances; they bear the network's name unless it is CD-FVD's own."""
    return (
        Measure(
            key=FRECHET,
            title="CD-FVD" if is_cd_fvd else f"Fréchet distance ({network})",
            better="lower",
            digits=2,
            meaning="distance of the videos' features to the true clips'; compare equal n alone",
        ),
        Measure(
            key=KERNEL,
            title="kernel distance",
            better="lower",
            digits=4,
            meaning="the same without bias by n; 0 on average if alike",
        ),
    )


def set_scores(features_NC: Sequence[Tensor], true_MC: Tensor, other_MC: Tensor | None) -> dict[str, Score]:
    """Both distances of a set to equally many true videos, and between those and equally many others."""
    own_NC = torch.stack(list(features_NC))
    return {
        key: Score(
            value=distance(own_NC, true_MC),
            spread=jackknife_error(distance, own_NC, true_MC),
            count=len(own_NC),
            floor=None if other_MC is None else distance(other_MC, true_MC),
        )
        for key, distance in ((FRECHET, frechet_distance), (KERNEL, kernel_distance))
    }


def columns(results: Sequence[MethodResult], sets: Sequence[Measure]) -> list[Measure]:
    """The columns that any method has, the paper's first and in its order."""
    known = {key for result in results for key in result.scores()}
    order = [*PER_VIDEO[:3], *sets[:1], *PER_VIDEO[3:5], *sets[1:], *PER_VIDEO[5:]]
    return [measure for measure in order if measure.key in known]


def as_json(result: MethodResult) -> Mapping[str, object]:
    """Scores for JSON, which knows no NaN."""
    return {
        "scores": {
            key: {
                "value": score.value,
                "spread": None if math.isnan(score.spread) else score.spread,
                "videos": score.count,
                **({} if score.floor is None else {"floor": score.floor}),
            }
            for key, score in result.scores().items()
        },
        "videos": result.videos,
    }
