"""What a video's file says of where it comes from: that it is generated, from which action and picture."""

import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from .digest import files_sha256

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's word for media that a trained model made."""

_XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac").bytes
"""Of XMP in MP4 (XMP Specification, part 3)."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file that a video was made from, known by its content."""

    kind: str
    name: str
    """Without its folder."""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a generated video was made from."""

    parts: tuple[Part, ...] = ()

    @property
    def sentence(self) -> str:
        made = [f"{p.kind} {p.name}" + (f" (SHA-256 {p.sha256})" if p.sha256 else "") for p in self.parts]
        return "Generated with AI by ComfyUI-FLASH" + (f" from {', '.join(made)}" if made else "")

    @property
    def comment(self) -> str:
        """For formats that have no XMP, or whose readers show comments alone."""
        return f"{self.sentence}. DigitalSourceType: {GENERATED}"

    def xmp(self) -> bytes:
        """A packet of XMP with IPTC's DigitalSourceType and the sentence as the description."""
        return _XMP.format(source=quoteattr(GENERATED), sentence=escape(self.sentence)).encode()


def origin_of(files: Iterable[tuple[str, Path | None]]) -> Origin:
    """The origin of a video that was made from these files, with their kinds; None stands for no file."""
    parts = (
        Part(kind=kind, name=path.name, sha256=files_sha256([path]) if path.is_file() else "")
        for kind, path in files
        if path is not None
    )
    return Origin(parts=tuple(parts))


def add_xmp_to_mp4(path: Path, xmp: bytes) -> None:
    """Append XMP to an MP4 file, in a box of its own, which readers that do not know it pass over."""
    content = _XMP_BOX + xmp
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 8 + len(content), b"uuid") + content)


_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" Iptc4xmpExt:DigitalSourceType={source}>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{sentence}</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
