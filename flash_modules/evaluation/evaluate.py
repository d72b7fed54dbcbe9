"""Evaluate methods: their videos against pictures, prompts and true clips of the same names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from ..files.video_files import fit_picture
from .films import Film, read_film, read_film_at, times_of
from .judges.load import Judges
from .looks import looks
from .measures import Features, Measure, Standard, features, score
from .results import MethodResult, set_measures, set_scores

TRUE_CLIPS = "true clips"
"""The row of the true clips themselves, as what can be reached."""
_LOOKS_OF_A_CLIP = 3
_LEAST_FRAMES = 3

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is evaluated, and against what; everything is found by the videos' names without their endings."""

    methods: Mapping[str, Mapping[str, Film]]
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    """Without one, frame 0 of a video is its picture."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    truths: Mapping[str, Film] = field(default_factory=dict)
    training: Sequence[Film] = ()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found."""

    results: Sequence[MethodResult]
    """Each method's, and the true clips' own."""
    sets: Sequence[Measure]
    """Columns of the sets' distances, if a judge of sets is there."""
    notes: Sequence[str]


class Evaluator:
    """Reads every video once, and what others are held against once for each timing."""

    def __init__(self, material: Material, judges: Judges, on_video: Callable[[], object], note: Say) -> None:
        self._material, self._judges = material, judges
        self._on_video, self._note = on_video, note
        self._true: dict[tuple[str, tuple[float, ...]], Features | None] = {}
        self._sets: dict[str, dict[str, Tensor]] = {}
        """Features for the sets' distances, by method and video."""

    def method(self, name: str, films: Mapping[str, Film], *, is_truth: bool = False) -> MethodResult:
        """Scores of every video; one that cannot be read is said and left out."""
        result = MethodResult(name=name)
        for video, film in films.items():
            try:
                video_FHWC = self._at_first_times(film) if is_truth else read_film(film)
            except ValueError as error:
                self._note(f"{name}: {film.path.name} is left out: {error}.")
                continue
            own = features(video_FHWC, self._judges)
            standard = self._standard(video, video_FHWC, times_of(film), is_truth=is_truth)
            result.videos[video] = score(video_FHWC, own, standard, self._judges)
            if self._judges.videomae:
                self._sets.setdefault(name, {})[video] = self._judges.videomae.features(video_FHWC)
            self._on_video()
        return result

    def _standard(
        self, video: str, video_FHWC: Tensor, times: tuple[float, ...], *, is_truth: bool
    ) -> Standard:
        size = (video_FHWC.shape[2], video_FHWC.shape[1])
        picture = self._material.pictures.get(video)
        return Standard(
            picture_1HWC=video_FHWC[:1] if picture is None or is_truth else fit_picture(picture, size),
            prompt=self._material.prompts.get(video),
            truth=None if is_truth else self._truth(video, times),
            others=[] if is_truth or video in self._material.truths else self._all_truths(times),
            training_LKQ=self._training_looks,
        )

    def _all_truths(self, times: tuple[float, ...]) -> list[Features]:
        found = (self._truth(name, times) for name in self._material.truths)
        return [truth for truth in found if truth]

    def _truth(self, name: str, times: tuple[float, ...]) -> Features | None:
        """A true clip at a video's times. None, said once, where it is too short or cannot be read."""
        film = self._material.truths.get(name)
        if film is None:
            return None
        key = name, times
        if key not in self._true:
            self._true[key] = None
            try:
                video_FHWC = read_film_at(film, times)
                if len(video_FHWC) < _LEAST_FRAMES:
                    raise ValueError(f"it lasts for {len(video_FHWC)} frames of the video, 3 are needed")
                if len(video_FHWC) < len(times):
                    self._note(
                        f"The true clip {film.path.name} lasts for {len(video_FHWC)} of {len(times)} "
                        "frames: motion is compared up to there."
                    )
                self._true[key] = features(video_FHWC, self._judges)
            except ValueError as error:
                self._note(f"The true clip {film.path.name} is left out: {error}.")
        return self._true[key]

    @cached_property
    def first_times(self) -> tuple[float, ...]:
        """The times of the first video, at which true and training clips are read for their own rows."""
        return times_of(next(film for films in self._material.methods.values() for film in films.values()))

    def _at_first_times(self, film: Film) -> Tensor:
        video_FHWC = read_film_at(film, self.first_times)
        if len(video_FHWC) < _LEAST_FRAMES:
            raise ValueError(f"it lasts for {len(video_FHWC)} frames of the videos, 3 are needed")
        return video_FHWC

    @cached_property
    def _training_looks(self) -> list[Tensor]:
        found: list[Tensor] = []
        for film in self._material.training:
            duration = film.footage.times[-1] - film.footage.times[0]
            times = [duration * i / (_LOOKS_OF_A_CLIP - 1) for i in range(_LOOKS_OF_A_CLIP)]
            found += looks(read_film_at(film, times))
        return found

    def add_sets(self, results: Sequence[MethodResult]) -> Sequence[Measure]:
        """Give each method its distances to the true clips, all of the same number of videos."""
        judge = self._judges.videomae
        true = self._sets.get(TRUE_CLIPS, {})
        methods = {r.name: self._sets.get(r.name, {}) for r in results if r.name != TRUE_CLIPS}
        count = min([len(true), *map(len, methods.values())])
        if judge is None or not self._material.truths:
            return ()
        if count < 2:
            self._note("Distances of sets need 2 videos of each method and 2 true clips, or more.")
            return ()
        names = self._names_in_all(methods, true, count)
        true_NC = torch.stack([true[name] for name in names[TRUE_CLIPS]])
        others = self._other_true(set(names[TRUE_CLIPS]), true, count)
        for result in results:
            if result.name in methods:
                chosen = [methods[result.name][name] for name in names[result.name]]
                result.sets = set_scores(chosen, true_NC, others)
        return set_measures(judge.name, is_cd_fvd=judge.is_cd_fvd)

    def _names_in_all(
        self, methods: Mapping[str, Mapping[str, Tensor]], true: Mapping[str, Tensor], count: int
    ) -> dict[str, list[str]]:
        """So many videos of each set: those of names that all have come first."""
        sets = {**methods, TRUE_CLIPS: true}
        common = set.intersection(*(set(found) for found in sets.values()))
        for name, found in sets.items():
            if len(found) > count:
                self._note(
                    f"Distances of sets take {count} of the {len(found)} videos of {name}: only "
                    "equal numbers are compared."
                )
        return {
            name: sorted(found, key=lambda video: (video not in common, video))[:count]
            for name, found in sets.items()
        }

    def _other_true(self, used: set[str], true: Mapping[str, Tensor], count: int) -> Tensor | None:
        """Features of as many true videos that are not among those used: the rest, then training clips."""
        judge = self._judges.videomae
        assert judge is not None
        found = [features_C for name, features_C in true.items() if name not in used]
        for film in self._material.training:
            if len(found) < count:
                found.append(judge.features(self._at_first_times(film)))
        if len(found) < count:
            self._note(
                f"The floor of the sets' distances needs {count} more true clips (there are {len(found)}): "
                "give them with --training or --truth."
            )
            return None
        return torch.stack(found[:count])


def evaluate(
    material: Material,
    judges: Judges,
    on_video: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Score every method, and the true clips themselves; what is left out is said in the notes.

    Raises ValueError if no video of any method can be used.
    """
    notes = list(judges.notes)
    if not material.truths:
        notes.append("There are no true clips (--truth): all scores that are held against them are left out.")
    evaluator = Evaluator(material, judges, on_video, notes.append)
    results = [evaluator.method(name, films) for name, films in material.methods.items()]
    if not any(result.videos for result in results):
        raise ValueError(" ".join(["No video can be evaluated.", *notes]))
    if material.truths:
        results.append(evaluator.method(TRUE_CLIPS, material.truths, is_truth=True))
    sets = evaluator.add_sets(results)
    return Evaluation(results=results, sets=sets, notes=list(dict.fromkeys(notes)))
