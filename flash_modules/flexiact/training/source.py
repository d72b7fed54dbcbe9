"""What an action is learned from: one clip and crops of it, or the cropped videos of a released table."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...files.clip_files import check_frames, examine
from ...files.containers import Unusable
from ...training.clips import Clip, clip_hashes
from .tables import CropRow, read_crops
from .views import Part, ViewConfig, cut_frames, cut_rows, views


@dataclass(frozen=True)
class Source:
    """Clips with what is taken of them."""

    parts: tuple[Part, ...]
    is_table: bool = False

    @property
    def notes(self) -> list[str]:
        """What a person should know before learning; each once."""
        notes = (note for part in self.parts for note in (*part.clip.notes, part.cut.note) if note)
        return list(dict.fromkeys(notes))

    @property
    def captions(self) -> list[str]:
        """Those that differ."""
        return list(dict.fromkeys(part.clip.caption for part in self.parts))

    @property
    def caption_of(self) -> list[int]:
        """For each view the number of its caption."""
        captions = self.captions
        return [
            captions.index(part.clip.caption) for part in self.parts for _ in range(part.config.num_views)
        ]

    @property
    def sha256(self) -> str:
        """Of the clip, or of the clips' hashes."""
        hashes = clip_hashes([part.clip for part in self.parts])
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """What may not change while a run goes on, beside the hash, the first caption and the view."""
        if not self.is_table:
            return {}
        rows = [[*part.cut.indices, part.clip.caption] for part in self.parts]
        return {"crops": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}

    def videos(self) -> Iterator[Tensor]:
        """Views (F, 3, H, W) in [0, 1]."""
        for part in self.parts:
            yield from views(part)


def one_clip(path: Path, caption: str, config: ViewConfig) -> Source:
    """A clip of the user's. Raises ValueError if it is none, or ends before the cut."""
    return from_clip(find_clip(path, caption), config)


def from_clip(clip: Clip, config: ViewConfig) -> Source:
    """A clip that is known already. Raises ValueError if it ends before the cut."""
    return Source((Part(clip, cut_frames(clip, config), config),))


def table_of_crops(table: Path, config: ViewConfig) -> Source:
    """The videos of a crop.csv, each of them one view as it is. Raises ValueError for a bad row."""
    whole = replace(config, crop=1.0, columns=1, rows=1)
    return Source(tuple(_part(row, whole) for row in read_crops(table)), is_table=True)


def _part(row: CropRow, config: ViewConfig) -> Part:
    clip = find_clip(row.path, row.caption)
    if row.frames.stop > clip.num_frames:
        raise ValueError(
            f"{row.place} goes up to frame {row.frames.stop}, and {row.path.name} has {clip.num_frames}: "
            "mend the row."
        )
    return Part(clip, cut_rows(clip, row.frames, config), config)


def find_clip(path: Path, caption: str) -> Clip:
    """A clip from its file or folder. Raises ValueError if it cannot be used."""
    try:
        footage = check_frames(path, examine(path))
    except Unusable as error:
        raise ValueError(f"{path} cannot be used as a clip: {error}.") from error
    return Clip(path=path, action=path.stem, caption=caption, footage=footage)
