"""A blind study: a folder that raters open without a server, and a key that stays outside of it.

FLASH (arXiv:2503.00276), A4.1: for each picture the videos of all methods in drawn order, and beside each
such question a control one, a true clip among wrong ones, so that random clicking is found out.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..files.json_file import read_json
from ..files.video_files import as_picture, fit_picture, write_picture, write_video
from ..files.whole import check_place, whole, write_text
from .evaluate import Material
from .films import Film, read_film_at
from .study_page import study_page

FORMAT = 1
_FASTEST = 24
"""Frames per second at most; GIF and WebP show no more than 50, and pages with many videos stay quick."""
_SIDE = 384
"""Pixels of the long side of a video in the study."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question and its control, as the key has them."""

    question: str
    """The question's mark in the page."""
    name: str
    """The picture's."""
    methods: Sequence[str]
    """Of the candidates, in their order in the page."""
    control: str
    right: int
    """Which candidate of the control question is the true clip."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What raters do not get."""

    study: str
    seed: int
    pairs: Sequence[Pair] = field(default=())


def make_study(folder: Path, key_path: Path, material: Material, seed: int) -> Key:
    """Write the folder for the raters, whole or not at all, and the key beside or elsewhere.

    Every picture that all methods have a video of is asked about. Raises ValueError if there is none, if
    there are less than two methods, no true clips, or if the key would lie in the raters' folder.
    """
    names = _names(material)
    check_key_place(folder, key_path)
    draw = random.Random(seed)
    key_pairs: list[Pair] = []
    questions: list[dict[str, Any]] = []
    with whole(folder) as draft:
        draft.mkdir()
        writer = _Writer(draft, material, draw)
        for name in names:
            pair, two = writer.pair(name)
            key_pairs.append(pair)
            questions += two
        key = Key(study=_mark(draw), seed=seed, pairs=key_pairs)
        write_text(draft / "index.html", study_page(key.study, questions))
        write_text(key_path, json.dumps({"format": FORMAT, **asdict(key)}, indent=2) + "\n")
    return key


def check_key_place(folder: Path, key_path: Path) -> None:
    """Raise ValueError if the key would lie in the raters' folder, or where it cannot be written."""
    if key_path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"The key {key_path} would lie in the folder that raters get: give another place.")
    check_place(key_path)


def read_key(path: Path) -> Key:
    """The key of a study. Raises ValueError for any other file."""
    content = read_json(path)
    try:
        if content.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        pairs = [Pair(**pair) for pair in content.pop("pairs")]
        key = Key(**content, pairs=pairs)
        if not all(isinstance(name, str) for pair in pairs for name in (*pair.methods, pair.question)):
            raise ValueError("a name in it is no text")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no key of a study ({error}): give the one that `study` wrote."
        ) from error
    return key


def _names(material: Material) -> list[str]:
    if len(material.methods) < 2:
        raise ValueError("A study compares two methods or more: give --videos for each.")
    if not material.truths:
        raise ValueError("Control questions need true clips: give a folder of them with --truth.")
    common = set.intersection(*(set(films) for films in material.methods.values()))
    if not common:
        raise ValueError("No picture has a video of every method: give the videos of one picture one name.")
    nameless = sorted(name for name in common | material.truths.keys() if not material.prompts.get(name))
    if nameless:
        raise ValueError(
            f"Raters choose the video that shows an action best, and that of {nameless[0]} is not told: give "
            "--prompt, or a .txt beside each video and true clip."
        )
    return sorted(common)


def _mark(draw: random.Random) -> str:
    """A name that tells nothing."""
    return f"{draw.getrandbits(48):012x}"


class _Writer:
    """Writes the questions' pictures and videos under names that tell nothing."""

    def __init__(self, folder: Path, material: Material, draw: random.Random) -> None:
        self._folder, self._material, self._draw = folder, material, draw

    def pair(self, name: str) -> tuple[Pair, list[dict[str, Any]]]:
        """A question and its control, in drawn order for the page."""
        methods = self._draw.sample(sorted(self._material.methods), len(self._material.methods))
        films = [self._material.methods[method][name] for method in methods]
        fps = min(_FASTEST, max(_rate(film) for film in films))
        videos = [_read(film, fps) for film in films]
        picture = self._material.pictures.get(name)
        size = (videos[0].shape[2], videos[0].shape[1])
        picture_1HWC = videos[0][:1] if picture is None else fit_picture(picture, size)
        question = self._question(picture_1HWC, self._prompt(name), videos, fps)
        control, right = self._control(max(map(len, videos)), fps, len(methods))
        pair = Pair(question=question["id"], name=name, methods=methods, control=control["id"], right=right)
        return pair, self._draw.sample([question, control], 2)

    def _control(self, num_frames: int, fps: int, count: int) -> tuple[dict[str, Any], int]:
        """A true clip among its still picture and true clips of other pictures, and which one it is."""
        true = self._draw.choice(sorted(self._material.truths))
        others = [name for name in sorted(self._material.truths) if name != true]
        wrong = self._draw.sample(others, min(max(0, count - 2), len(others)))
        times = [frame / fps for frame in range(num_frames)]
        video_FHWC = read_film_at(self._material.truths[true], times)
        candidates = [video_FHWC, video_FHWC[:1].expand(num_frames, -1, -1, -1)]
        candidates += [read_film_at(self._material.truths[name], times) for name in wrong]
        order = self._draw.sample(range(len(candidates)), len(candidates))
        question = self._question(video_FHWC[:1], self._prompt(true), [candidates[i] for i in order], fps)
        return question, order.index(0)

    def _prompt(self, name: str) -> str:
        return self._material.prompts[name]

    def _question(
        self, picture_1HWC: Tensor, prompt: str, videos: Sequence[Tensor], fps: int
    ) -> dict[str, Any]:
        size = _fitting(picture_1HWC)
        picture = f"{_mark(self._draw)}.png"
        write_picture(self._folder / picture, as_picture(_resized(picture_1HWC, size)[0]))
        files = [f"{_mark(self._draw)}.webp" for _ in videos]
        for file, video_FHWC in zip(files, videos, strict=True):
            write_video(self._folder / file, iter(_resized(video_FHWC, size)), fps)
        return {"id": _mark(self._draw), "picture": picture, "prompt": prompt, "videos": files}


def _rate(film: Film) -> int:
    """Frames per second, on average."""
    times = film.footage.times
    return max(1, round((len(times) - 1) / (times[-1] - times[0])))


def _read(film: Film, fps: int) -> Tensor:
    """What is seen of it so often a second, from its start to its end: each video has its own speed."""
    seconds = film.footage.end - film.footage.times[0]
    try:
        return read_film_at(film, [frame / fps for frame in range(max(1, round(seconds * fps)))])
    except ValueError as error:
        raise ValueError(f"{film.path} cannot be asked about: {error}.") from error


def _fitting(picture_1HWC: Tensor) -> tuple[int, int]:
    """Height and width of all that is shown in a question: those of its picture, made smaller if large."""
    h, w = picture_1HWC.shape[1:3]
    shrink = min(1.0, _SIDE / max(h, w))
    return max(2, round(h * shrink)), max(2, round(w * shrink))


def _resized(video_FHWC: Tensor, size: tuple[int, int]) -> Tensor:
    frames_FCHW = rearrange(video_FHWC, "f h w c -> f c h w")
    resized_FCHW = torch.nn.functional.interpolate(frames_FCHW, size=size, mode="bilinear", antialias=True)
    return rearrange(resized_FCHW, "f c h w -> f h w c").clamp(0, 1)
