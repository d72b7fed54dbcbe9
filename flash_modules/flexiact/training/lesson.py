"""What a run learns from: the views of a clip and its caption, encoded once and kept in the run's folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...files.tensor_file import check_numbers, read_tensors, short, write_tensors
from .encoded import EncodedView, view_tensors, views_from
from .loss import check_frames

LESSON = "lesson.safetensors"
"""In a run's folder."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The clip that is learned from, with its captions (T, M, C) and the empty prompt (1, M, C) encoded."""

    views: Sequence[EncodedView]
    caption: str
    """The first one."""
    text_embeds: Tensor
    empty_embeds: Tensor
    clip_sha256: str
    caption_of: Sequence[int] = ()
    """For each view the number of its caption; for none, all have the first."""

    def __post_init__(self) -> None:
        if self.caption_of and (
            len(self.caption_of) != len(self.views)
            or not all(0 <= number < len(self.text_embeds) for number in self.caption_of)
        ):
            raise ValueError("its captions are not those of its views")
        for view in self.views:
            check_frames(view.mean_FCHW)

    def text_of(self, view: int) -> Tensor:
        """The caption of a view, (1, M, C)."""
        number = self.caption_of[view] if self.caption_of else 0
        return self.text_embeds[number : number + 1]


def write_lesson(path: Path, lesson: Lesson) -> None:
    """Write a lesson, whole or not at all."""
    texts = {"text": lesson.text_embeds, "empty": lesson.empty_embeds}
    header = {"caption": lesson.caption, "clip_sha256": lesson.clip_sha256, "views": str(len(lesson.views))}
    if lesson.caption_of:
        header["caption_of"] = " ".join(map(str, lesson.caption_of))
    write_tensors(path, view_tensors(lesson.views) | texts, header)


def read_lesson(path: Path) -> Lesson:
    """Read a lesson back. Raises ValueError if it is damaged."""
    tensors, header = read_tensors(path)
    check_numbers(tensors, path.name)
    try:
        return Lesson(
            views=views_from(tensors, int(header["views"])),
            caption=header["caption"],
            text_embeds=tensors["text"],
            empty_embeds=tensors["empty"],
            clip_sha256=header["clip_sha256"],
            caption_of=tuple(map(int, header.get("caption_of", "").split())),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({short(error)}): remove it, and it is made again.") from error


def kept_lesson(path: Path, make: Callable[[], Lesson]) -> Lesson:
    """The lesson that lies there, or one that is made now and then lies there."""
    if not path.is_file():
        write_lesson(path, make())
    return read_lesson(path)
