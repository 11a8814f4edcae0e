"""Keywords of an image file: dc:subject in XMP, and where a file has them IPTC's keywords and XPKeywords of Windows.

The places are read together and brought in step; a mark in XMP says which keywords are captune's.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from captune.core.files.existing import ExistingCaptions
from captune.images.metadata import UnsupportedImage, exif, iptc, xmp
from captune.images.metadata.places import scan_packets

# A keyword that a place had no room for was cut between characters.
_CUT = 3


@dataclass
class KeywordReader:
    """Collect what keywords the places have, and those that captune's mark names; returns what it gets, unchanged.

    Where all places are in step, `places` has one list.
    """

    places: list[list[str]] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def packet(self, old: bytes | None) -> bytes:
        if old is not None:
            self.extended(old)
        return old or b""

    def extended(self, old: bytes) -> None:
        try:
            keywords, own = xmp.read_keywords(old)
        except UnsupportedImage:
            return
        self._add(keywords)
        self.own += [keyword for keyword in own if keyword not in self.own]

    def exif(self, tiff: bytes, longest: int | None = None) -> bytes:
        self._add(exif.xp_keywords(tiff))
        return tiff

    def iptc(self, block: bytes) -> bytes:
        self._add(iptc.keywords(block))
        return block

    def plain(self, old: str) -> str:
        return old

    def keywords(self) -> list[str]:
        """All keywords, each once, as it was written first."""
        found = unique(keyword for place in self.places for keyword in place)
        return [keyword for keyword in found if not any(_is_cut(keyword, other) for other in found)]

    def words(self) -> list[str]:
        """The keywords that a person wrote."""
        own = {comparable(keyword) for keyword in self.own}
        return [keyword for keyword in self.keywords() if comparable(keyword) not in own]

    def _add(self, keywords: list[str] | None) -> None:
        if keywords is not None:
            found = [clean for keyword in keywords if (clean := keyword.replace("\0", " ").strip())]
            self.places += [found] if found not in self.places else []


@dataclass(frozen=True)
class KeywordWriter:
    """Put keywords into the places of a file, with a mark that names captune's `own`."""

    keywords: Sequence[str]
    own: Sequence[str]

    def packet(self, old: bytes | None) -> bytes:
        return xmp.with_keywords(old, self.keywords, self.own)

    def extended(self, old: bytes) -> None:
        try:
            keywords, _ = xmp.read_keywords(old)
        except UnsupportedImage:
            keywords = ["?"] if b"subject" in old else []
        if keywords:
            raise UnsupportedImage("its extended XMP packet has keywords")

    def exif(self, tiff: bytes, longest: int | None = None) -> bytes:
        return exif.with_keywords(tiff, self.keywords, longest)

    def iptc(self, block: bytes) -> bytes:
        return iptc.with_keywords(block, self.keywords)

    def plain(self, old: str) -> str:
        return old

    def is_written(self, reader: KeywordReader) -> bool:
        """Whether all places that were read have these keywords, and captune's mark."""
        nowhere = not reader.places and not self.keywords
        return list(self.own) == reader.own and (nowhere or reader.places == [list(self.keywords)])

    def check(self, data: bytes) -> None:
        """Raise `UnsupportedImage` where a file that was written has other keywords in an unusual place."""
        reader = KeywordReader()
        scan_packets(data, reader.extended)
        if any(place and place != list(self.keywords) for place in reader.places):
            raise UnsupportedImage("it has another XMP packet in an unusual place")


@dataclass(frozen=True)
class KeywordEdit:
    """Keywords for an image, joined with a person's as `existing` says."""

    keywords: Sequence[str]
    existing: ExistingCaptions

    def reader(self) -> KeywordReader:
        return KeywordReader()

    def writer(self, words: list[str], read: KeywordReader) -> KeywordWriter | None:
        """What writes beside a person's keywords; None: they are to stay as they are, or all is written already."""
        new = unique(self.keywords)
        if self.existing.mode == "replace":
            words = []
        elif words:
            standing = {comparable(word) for word in words}
            new = [keyword for keyword in new if comparable(keyword) not in standing]
            if self.existing.mode == "keep":
                self.existing.preserved += bool(new)
                return None
        writer = KeywordWriter([*new, *words] if self.existing.mode == "prepend" else [*words, *new], new)
        return None if writer.is_written(read) else writer


def comparable(keyword: str) -> str:
    """What keywords are compared by: neither case nor spaces count, nor marks that one of the places cannot hold."""
    return re.sub(r"\s*[;,]\s*", ",", " ".join(keyword.casefold().split()))


def unique(keywords: Iterable[str]) -> list[str]:
    """Each keyword once, as it was written first."""
    first: dict[str, str] = {}
    for keyword in keywords:
        first.setdefault(comparable(keyword), keyword)
    return list(first.values())


def _is_cut(keyword: str, other: str) -> bool:
    """Whether a keyword is the beginning of another that was too long for IPTC."""
    length = len(keyword.encode("utf-8", "replace"))
    return iptc.LONGEST_KEYWORD - _CUT <= length <= iptc.LONGEST_KEYWORD < len(other.encode()) and other.startswith(
        keyword
    )
