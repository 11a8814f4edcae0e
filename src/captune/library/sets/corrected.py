"""The captions that are to stand in a file, after what people changed in the library."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from captune.library.database import encoded

T = TypeVar("T")
_STEP = 512


@dataclass(frozen=True, slots=True)
class KnownCaption:
    """A caption of an image, standing (`current`) or not any more."""

    id: int
    text: str
    of: int | None
    current: bool
    status: str
    written_by: str


@dataclass
class KnownImage:
    """An image of the library, with all captions that it ever had."""

    id: int
    digest: str
    split: str | None
    captions: list[KnownCaption] = field(default_factory=list)

    def in_place_of(self, text: str) -> KnownCaption | None:
        """The caption that stands now where a text stood; None where it was taken away.

        A text that the library never had stands for itself: it is approved, and its number 0.
        """
        same = [each for each in self.captions if each.text == text]
        if not same:
            return KnownCaption(0, text, None, True, "approved", "person")
        standing = next((each for each in same if each.current), None)
        return standing or next((each for each in self._line({each.id for each in same}) if each.current), None)

    def _line(self, line: set[int]) -> list[KnownCaption]:
        """Those that corrected, or were corrected by, captions of these numbers, however often."""
        while True:
            found = [each for each in self.captions if each.id in line or each.of in line]
            more = {each.id for each in found} | {each.of for each in found if each.of is not None}
            if more <= line:
                return found
            line = line | more

    def placed(self, rows: Sequence[Sequence[str]]) -> list[list[KnownCaption]]:
        """What stands in the place of each text of several rows, and further approved captions among the first row's.

        Captions that were taken away are left out, those with another status are not. What comes back has the place
        that it had.
        """
        found = [[there for text in texts if (there := self.in_place_of(text)) is not None] for texts in rows]
        known = {each.id for row in found for each in row}
        more = [each for each in self.captions if each.current and each.status == "approved" and each.id not in known]
        return [merged(found[0], more, self._first), *found[1:]]

    def _first(self, caption: KnownCaption) -> int:
        """The first number of what a caption corrects, or its own."""
        return min((each.id for each in self._line({caption.id})), default=caption.id)

    @property
    def rank(self) -> int:
        """Rises in the order in which images were read."""
        return self.captions[0].id if self.captions else 0


def merged(standing: Sequence[T], more: Iterable[T], rank: Callable[[T], int]) -> list[T]:
    """`standing` in its order, each of `more` before the first with a higher rank."""
    found: list[T] = []
    waiting = sorted(more, key=rank, reverse=True)
    for each in standing:
        while waiting and rank(waiting[-1]) < rank(each):
            found.append(waiting.pop())
        found.append(each)
    return [*found, *reversed(waiting)]


def known_images(connection: sqlite3.Connection, paths: Iterable[str]) -> Iterator[Mapping[str, KnownImage]]:
    """Images by their paths, some hundreds at a time, in order; those that the library does not have are left out."""
    names = iter(dict.fromkeys(paths))
    while some := list(islice(names, _STEP)):
        marks = ", ".join("CAST(? AS TEXT)" for _ in some)
        images: dict[int, KnownImage] = {}
        by_path: dict[str, KnownImage] = {}
        for row in connection.execute(
            f"SELECT id, path, digest, split FROM images WHERE gone IS NULL AND path IN ({marks})",
            [*map(encoded, some)],
        ):
            images[row["id"]] = by_path[row["path"]] = KnownImage(row["id"], row["digest"], row["split"])
        for row in connection.execute(
            "SELECT id, image, text, of, current, status, written_by FROM captions "
            "WHERE image IN (SELECT value FROM json_each(?)) ORDER BY id",
            (json.dumps([*images]),),
        ):
            images[row["image"]].captions.append(
                KnownCaption(row["id"], row["text"], row["of"], bool(row["current"]), row["status"], row["written_by"])
            )
        yield by_path
