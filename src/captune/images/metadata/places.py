"""The places in an image file that hold its description: what stands in them is read, or a text is put into all."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from captune.images.metadata import UnsupportedImage, exif, iptc, xmp
from captune.images.metadata.xmp import Mark

# What cameras and programs put into every image says nothing about any.
_BY_DEFAULT = re.compile(
    r"(?i)([\w ]* )?digital camera|sony dsc|dcim\w*|exif_jpeg_\w+|created with gimp|<\w+ digimax.*>"
)
_RDF = re.compile(rb"<([A-Za-z_][\w.-]*):RDF[\s>].*?</\1:RDF\s*>", re.DOTALL)


class Fields(Protocol):
    """What becomes of the places of a file: each method gets what stands in one and returns what is to stand there."""

    def packet(self, old: bytes | None) -> bytes:
        """An XMP packet; None: the file has none."""

    def extended(self, old: bytes) -> None:
        """A packet that is spread over several parts of a file."""

    def exif(self, tiff: bytes, longest: int | None = None) -> bytes:
        """A block of EXIF, of at most `longest` bytes."""

    def iptc(self, block: bytes) -> bytes:
        """Photoshop's image resources."""

    def plain(self, old: str) -> str:
        """A description outside of XMP, EXIF and IPTC."""


@dataclass(frozen=True)
class FieldWriter:
    """Put a text into every place, with captune's mark; raises `UnsupportedImage` where one cannot be updated."""

    text: str
    mark: Mark | None

    def packet(self, old: bytes | None) -> bytes:
        return xmp.with_caption(old, self.text, self.mark)

    def extended(self, old: bytes) -> None:
        if packet_texts(old):
            raise UnsupportedImage("its extended XMP packet has a description")

    def exif(self, tiff: bytes, longest: int | None = None) -> bytes:
        return exif.with_caption(tiff, self.text, longest)

    def iptc(self, block: bytes) -> bytes:
        return iptc.with_caption(block, self.text)

    def plain(self, old: str) -> str:
        return self.text

    def check(self, data: bytes) -> None:
        """Raise `UnsupportedImage` where a file that was written has another text in an unusual place."""
        other: list[str] = []
        scan_packets(data, lambda packet: other.extend(packet_texts(packet)))
        if any(normalize(one) != normalize(self.text) for one in other):
            raise UnsupportedImage("it has another XMP packet in an unusual place")


@dataclass
class FieldReader:
    """Collect the texts of every place, and captune's marks; returns what it gets, unchanged."""

    texts: list[str] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def packet(self, old: bytes | None) -> bytes:
        if old is not None:
            self.extended(old)
        return old or b""

    def extended(self, old: bytes) -> None:
        try:
            texts, mark = xmp.read_texts(old)
        except UnsupportedImage:
            return
        self.texts += texts
        self.marks += [mark] if mark is not None else []

    def exif(self, tiff: bytes, longest: int | None = None) -> bytes:
        self._add(exif.description(tiff))
        return tiff

    def iptc(self, block: bytes) -> bytes:
        self._add(iptc.caption(block))
        return block

    def plain(self, old: str) -> str:
        self._add(old)
        return old

    def words(self) -> list[str]:
        """A person's texts, each once: without what captune wrote, and what cameras write by themselves."""
        found: list[str] = []
        for text in self.texts:
            rest = _without(text, self.marks)
            if rest and not _BY_DEFAULT.fullmatch(rest) and not any(_same(rest, other) for other in found):
                found = [*(other for other in found if not _same(other, rest)), rest]
        return found

    def _add(self, text: str | None) -> None:
        if text is not None and text.strip("\0 \t\r\n"):
            self.texts.append(text)


def join_texts(first: str, second: str) -> str:
    """Two texts as one."""
    return f"{first}{'' if first.endswith(tuple('.!?…:;,。！？')) else '.'} {second}"


def scan_packets(data: bytes, find: Callable[[bytes], None]) -> None:
    """Show XMP packets wherever in a file they stand."""
    for match in _RDF.finditer(data):
        find(match[0])


def packet_texts(data: bytes) -> list[str]:
    """Descriptions in a packet; of one that cannot be read, the fact that there is one."""
    try:
        return xmp.read_texts(data)[0]
    except UnsupportedImage:
        return ["?"] if b"description" in data or b"AltTextAccessibility" in data else []


def normalize(text: str) -> str:
    """What two texts are compared by: no control characters, no spaces, which some places cannot hold."""
    return re.sub("[\0-\x1f\x7f\ufffd\\s]+", "", text)


def _without(text: str, marks: list[Mark]) -> str:
    """What is left of a text without captune's part."""
    whole = normalize(text)
    for caption, words in ((mark.caption, mark.words) for mark in marks):
        own = normalize(caption)
        if _same(text, caption) or not own:
            return "" if own else text
        if words and any(_same(text, joined) for joined in (join_texts(words, caption), join_texts(caption, words))):
            return words
        # Its other part was corrected since.
        if whole.endswith(own) and text.rstrip().endswith(caption):
            return text.rstrip()[: -len(caption)].strip()
        if whole.startswith(own) and text.lstrip().startswith(caption):
            return text.lstrip()[len(caption) :].lstrip(". ").strip()
    return " ".join(text.split())


def _same(text: str, other: str) -> bool:
    """Whether a text is another one, perhaps cut off where a place has no more room."""
    short, whole = normalize(text), normalize(other)
    return short == whole or (len(text.encode("utf-8", "replace")) > iptc.LONGEST - 8 and whole.startswith(short))
