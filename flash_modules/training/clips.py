"""Clips to learn from: which files and folders they are, what is seen in them, and why some are left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ..files.clip_files import VIDEO_SUFFIXES, check_frames, examine, read_frames
from ..files.containers import reasons
from ..files.digest import files_sha256
from ..files.footage import Footage, Size
from ..files.pictures import ANIMATION_SUFFIXES, PICTURE_SUFFIXES, frame_paths, moves, natural_order
from . import captions
from .captions import caption_path, read_caption


class Pictures(Protocol):
    """A clip's pictures where they are in no file that is known by its path."""

    @property
    def sha256(self) -> str:
        """Of all that is seen in them."""

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames (F, 3, H, W) in [0, 1]; those with a longer short side are made smaller to it."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that can be used."""

    path: Path
    """Of its file or folder; its name alone if it has `pictures`."""
    action: str
    caption: str
    footage: Footage = field(repr=False)
    caption_file: Path | None = None
    """Where the caption was read; None if it is a prompt or the folder's name."""
    pictures: Pictures | None = field(default=None, repr=False)
    twin: "Clip | None" = field(default=None, repr=False)
    """The same motion in another look, frame by frame, from elsewhere (`twins.with_twins`); None = there is
    none, and training makes twins of its own."""

    @property
    def num_frames(self) -> int:
        return len(self.footage.times)

    @property
    def duration(self) -> float:
        """In seconds, with the last frame's."""
        return self.footage.end - self.footage.times[0]

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        return (self.num_frames - 1) / (self.footage.times[-1] - self.footage.times[0])

    @property
    def size(self) -> Size:
        """Width and height, upright."""
        return self.footage.size

    @property
    def rotation(self) -> int:
        """Degrees, counterclockwise, by which the stored pictures are turned."""
        return self.footage.rotation

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to it or to its twin, or is lost, that a person should know."""
        of_twin = (f"its twin: {note}" for note in (self.twin.notes if self.twin else ()))
        return (*self.footage.notes, *of_twin)

    def read(self, indices: Sequence[int], short_side: int | None = None) -> Tensor:
        """Frames (F, 3, H, W) in [0, 1]; those with a longer short side are made smaller to it."""
        if self.pictures is not None:
            return self.pictures.read(indices, short_side)
        try:
            return read_frames(self.path, self.footage, indices, short_side)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}. Mend the clip, or take it away.") from error


@dataclass(frozen=True)
class Skipped:
    """A clip that cannot be used, or a file that is none."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Clips:
    """What was found: the clips action by action, in the order of their names, and those left out."""

    used: tuple[Clip, ...]
    skipped: tuple[Skipped, ...]
    others: tuple[Skipped, ...] = ()
    """Files that are no clips, and captions of none."""


def find_clips(
    folders: Sequence[Path],
    prompts: Sequence[str] = (),
    on_clip: Callable[[], object] = lambda: None,
) -> Clips:
    """The clips of each folder, an action per folder; each is decoded once, and `on_clip` counts them.

    A clip's caption is the text file beside it, else the prompt (one for all, or one for each folder), else
    the folder's name as it is written. A clip that cannot be used is skipped; a folder that has no others is
    an error.
    """
    _check_folders(folders, prompts)
    used: list[Clip] = []
    skipped: list[Skipped] = []
    others: list[Skipped] = []
    for index, folder in enumerate(folders):
        action = _action(folder)
        prompt = prompts[index if len(prompts) > 1 else 0] if prompts else action
        before = len(used), len(skipped), len(others)
        paths = _candidates(folder)
        others += _others(folder, paths)
        for path in paths:
            try:
                caption = read_caption(path)
                used.append(
                    Clip(
                        path=path,
                        action=action,
                        caption=caption or prompt,
                        footage=_footage(path),
                        caption_file=caption_path(path) if caption else None,
                    )
                )
            except (ValueError, OSError) as error:
                skipped.append(Skipped(path, str(error)))
            on_clip()
        if len(used) == before[0]:
            raise ValueError(_nothing_usable(folder, skipped[before[1] :], others[before[2] :]))
    return Clips(tuple(used), tuple(skipped), tuple(others))


def clip_hashes(clips: Sequence[Clip]) -> list[str]:
    """SHA-256 of each clip's file, or of all its pictures."""
    return [clip.pictures.sha256 if clip.pictures else _hash_file(clip.path) for clip in clips]


def _hash_file(path: Path) -> str:
    return files_sha256(frame_paths(path) if path.is_dir() else [path])


def _check_folders(folders: Sequence[Path], prompts: Sequence[str]) -> None:
    if not folders:
        raise ValueError("There are no clips: give a folder of them.")
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"There is no folder {folder}: give a folder with clips in it.")
    names = [_action(folder) for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"Two folders are named '{name}', but each is an action: rename one.")
    if len(prompts) not in (0, 1, len(folders)):
        raise ValueError(
            f"There are {len(prompts)} prompts for {len(folders)} folders: give one for all, or one for each."
        )
    if not all(prompt.strip() for prompt in prompts):
        raise ValueError("A prompt is empty: say what is to be seen, 'a person is jumping' for example.")


def _action(folder: Path) -> str:
    name = folder.resolve().name
    return " ".join(name.replace("_", " ").replace("-", " ").split()) or "action"


def _candidates(folder: Path) -> list[Path]:
    """What may be a clip: videos and folders of frames, else the folder itself if it is one."""
    found = [path for path in _listed(folder) if _is_video(path) or _holds_clips_or_frames(path)]
    return found or ([folder] if frame_paths(folder) else [])


def _others(folder: Path, clips: Sequence[Path]) -> list[Skipped]:
    """What else lies there and in its folders of frames, and why none of it is taken."""
    places = [folder, *(clip for clip in clips if clip != folder and _holds_frames_alone(clip))]
    found = [path for place in places for path in _listed(place) if path not in clips]
    reasons = ((path, _why_not(path, clips, is_frame=path.parent in clips)) for path in found)
    return [Skipped(path, reason) for path, reason in reasons if reason]


def _why_not(path: Path, clips: Sequence[Path], *, is_frame: bool) -> str | None:
    """Why a path is no clip; None if it is a caption, or a frame of a clip."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return "its name begins with a dot, as hidden ones do"
    if suffix in captions.SUFFIXES and not path.is_dir():
        return captions.unmatched(path, clips)
    if path.is_dir():
        return "it is a folder without clips and pictures"
    if not path.is_file():
        return "it is no file, but a pipe, a socket, a device, or a link to nothing"
    if suffix in PICTURE_SUFFIXES:
        return None if is_frame else "it is a picture that stands still"
    return "its name is not that of a picture" if is_frame else "its name is not that of a video"


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder, without what systems leave there."""
    found = [path for path in folder.iterdir() if path.name.casefold() not in _LEFT_BY_SYSTEMS]
    return sorted((path for path in found if not path.name.startswith("._")), key=natural_order)


_LEFT_BY_SYSTEMS = {".ds_store", "thumbs.db", "desktop.ini", ".directory", "__macosx"}


def _holds_clips_or_frames(path: Path) -> bool:
    """Whether it is a folder with something to look at; what cannot be opened is a clip that is refused."""
    if path.name.startswith(".") or not path.is_dir():
        return False
    try:
        return bool(frame_paths(path)) or any(map(_is_video, path.iterdir()))
    except OSError:
        return True


def _holds_frames_alone(path: Path) -> bool:
    try:
        return path.is_dir() and not any(map(_is_video, path.iterdir()))
    except OSError:
        return False


def _is_video(path: Path) -> bool:
    """Whether the name is a video's, or a picture's that moves; a WebP that stands still is a frame."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or path.is_dir():
        return False
    if suffix not in (".webp", ".png", ".avif"):
        return suffix in VIDEO_SUFFIXES + ANIMATION_SUFFIXES
    try:
        with reasons():
            return moves(path)
    except ValueError:
        return suffix == ".webp"


def _footage(path: Path) -> Footage:
    if path.is_dir() and any(map(_is_video, path.iterdir())):
        raise ValueError("it is a folder of clips: give it as an action of its own")
    return check_frames(path, examine(path))


def _nothing_usable(folder: Path, skipped: Sequence[Skipped], others: Sequence[Skipped]) -> str:
    listed = [*skipped, *others]
    lines = [f"  {one.path.name}: {one.reason}" for one in listed[:10]]
    more = [f"  and {len(listed) - 10} more"] if len(listed) > 10 else []
    if skipped:
        return "\n".join([f"No clip in {folder} can be used:", *lines, *more])
    kinds = ", ".join(VIDEO_SUFFIXES + ANIMATION_SUFFIXES)
    found = ["It holds:"] if lines else []
    return "\n".join(
        [
            f"{folder} holds no clips: put videos ({kinds}) or folders of pictures into it.",
            *found,
            *lines,
            *more,
        ]
    )
