"""Clips to learn from: which files and folders they are, what is seen in them, and why some are left out."""

import codecs
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..files.clip_files import (
    ANIMATION_SUFFIXES,
    VIDEO_SUFFIXES,
    Footage,
    Size,
    check_frames,
    examine,
    frame_paths,
    natural_order,
    read_frames,
)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip that can be used."""

    path: Path
    action: str
    caption: str
    footage: Footage = field(repr=False)

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

    def read(self, indices: Sequence[int], short_side: int | None = None) -> Tensor:
        """Frames (F, 3, H, W) in [0, 1]; those with a longer short side are made smaller to it."""
        try:
            return read_frames(self.path, self.footage, indices, short_side)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}. Mend the clip, or take it away.") from error


@dataclass(frozen=True)
class Skipped:
    """A clip that cannot be used."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Clips:
    """What was found: the clips action by action, in the order of their names, and those left out."""

    used: tuple[Clip, ...]
    skipped: tuple[Skipped, ...]


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
    for index, folder in enumerate(folders):
        action = _action(folder)
        prompt = prompts[index if len(prompts) > 1 else 0] if prompts else action
        before = len(used), len(skipped)
        for path in _candidates(folder):
            try:
                caption = read_caption(path) or prompt
                used.append(Clip(path=path, action=action, caption=caption, footage=_footage(path)))
            except (ValueError, OSError) as error:
                skipped.append(Skipped(path, str(error)))
            on_clip()
        if len(used) == before[0]:
            raise ValueError(_nothing_usable(folder, skipped[before[1] :]))
    return Clips(tuple(used), tuple(skipped))


def read_caption(clip: Path) -> str | None:
    """The text in the .txt file beside a clip, on one line; None if there is no such file.

    A byte order mark tells UTF-8 or UTF-16. A file without one is UTF-8, and what is no valid UTF-8 is in
    Windows' Western European (cp1252: Latin-1 with more letters).
    """
    path = clip.parent / f"{clip.name}.txt" if clip.is_dir() else clip.with_suffix(".txt")
    if not path.is_file():
        return None
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    if "\0" in text or "\N{REPLACEMENT CHARACTER}" in text:
        raise ValueError(f"its caption {path.name} is no text that can be read: save it as UTF-8")
    if not text.strip():
        raise ValueError(f"its caption {path.name} is empty: write one, or delete the file to use the prompt")
    return " ".join(text.split())


def clip_hashes(clips: Sequence[Clip]) -> list[str]:
    """SHA-256 of each clip's file, or of all pictures of its folder."""
    return [_hash(frame_paths(clip.path) if clip.path.is_dir() else [clip.path]) for clip in clips]


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


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
    names = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural_order)
    found = [path for path in names if _is_video(path) or (path.is_dir() and _holds_clips_or_frames(path))]
    return found or ([folder] if frame_paths(folder) else [])


def _holds_clips_or_frames(folder: Path) -> bool:
    return bool(frame_paths(folder)) or any(map(_is_video, folder.iterdir()))


def _is_video(path: Path) -> bool:
    """Whether the name is a video's; a WebP picture that stands still is a frame, and not a video."""
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() in VIDEO_SUFFIXES + ANIMATION_SUFFIXES and not _is_still_webp(path)


def _is_still_webp(path: Path) -> bool:
    try:
        with Image.open(path) as file:
            return file.format == "WEBP" and not getattr(file, "is_animated", False)
    except OSError:
        return False


def _footage(path: Path) -> Footage:
    if path.is_dir() and any(map(_is_video, path.iterdir())):
        raise ValueError("it is a folder of clips: give it as an action of its own")
    footage = examine(path)
    check_frames(path, footage)
    return footage


def _nothing_usable(folder: Path, skipped: Sequence[Skipped]) -> str:
    if not skipped:
        kinds = ", ".join(VIDEO_SUFFIXES + ANIMATION_SUFFIXES)
        return f"{folder} holds no clips: put videos ({kinds}) or folders of pictures into it."
    lines = [f"  {one.path.name}: {one.reason}" for one in skipped[:10]]
    more = [f"  and {len(skipped) - 10} more"] if len(skipped) > 10 else []
    return "\n".join([f"No clip in {folder} can be used:", *lines, *more])
