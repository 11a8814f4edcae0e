"""The same change of all images of a selection, or of their captions: counted first, then made as one step."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from captune.library.history import ConflictError, Editor, Status
from captune.library.listing import listed_captions, listed_ids
from captune.library.query import Condition

_DIGITS = 32
_HAS = "EXISTS (SELECT 1 FROM keywords k WHERE k.image = i.id AND k.keyword = ?)"


@dataclass(frozen=True)
class Targets:
    """What would change: captions or images (`targets`, their numbers), of so many images."""

    targets: tuple[int, ...]
    images: int

    @property
    def digest(self) -> str:
        """What tells whether they are those that somebody was shown."""
        return hashlib.sha256(" ".join(map(str, self.targets)).encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True)
class StatusChange:
    """Captions approved, rejected or made drafts again; with `drafts_only` no others than drafts.

    So captions that somebody rejected are not approved along with the drafts beside them.
    """

    status: Status
    drafts_only: bool = False

    def targets(self, connection: sqlite3.Connection, words: str, condition: Condition) -> Targets:
        """Captions of the selection whose status would be another one."""
        clause = ("c.status = ?", "draft") if self.drafts_only else ("c.status != ?", self.status)
        rows = listed_captions(connection, words, condition.also(*clause))
        return Targets(tuple(row["id"] for row in rows), len({row["image"] for row in rows}))

    def make(self, editor: Editor, target: int) -> None:
        editor.set_status(target, self.status)


@dataclass(frozen=True)
class KeywordChange:
    """Keywords added to images and taken from them."""

    add: Sequence[str] = ()
    remove: Sequence[str] = ()

    def targets(self, connection: sqlite3.Connection, words: str, condition: Condition) -> Targets:
        """Images of the selection that lack one of the keywords to add, or have one of those to take away."""
        clauses = [f"NOT {_HAS}" for _ in self.add] + [_HAS for _ in self.remove]
        wanted = condition.also(f"({' OR '.join(clauses)})", *self.add, *self.remove)
        return _of_images(listed_ids(connection, words, wanted))

    def make(self, editor: Editor, target: int) -> None:
        editor.set_keywords(target, add=self.add, remove=self.remove)


@dataclass(frozen=True)
class MarkChange:
    """Images marked with a word; None: no mark."""

    mark: str | None

    def targets(self, connection: sqlite3.Connection, words: str, condition: Condition) -> Targets:
        """Images of the selection whose mark would be another one."""
        return _of_images(listed_ids(connection, words, condition.also("i.mark IS NOT ?", self.mark)))

    def make(self, editor: Editor, target: int) -> None:
        editor.set_mark(target, self.mark)


BulkChange = StatusChange | KeywordChange | MarkChange


def make_bulk(editor: Editor, change: BulkChange, words: str, condition: Condition, digest: str) -> int:
    """Make a change of all that it is about; of how many captions or images.

    Raises `ConflictError` where these are not those of the `digest`: what was shown.
    """
    found = change.targets(editor.connection, words, condition)
    if found.digest != digest:
        raise ConflictError("The library was changed since this was counted.")
    for target in found.targets:
        change.make(editor, target)
    return len(found.targets)


def _of_images(images: list[int]) -> Targets:
    return Targets(tuple(images), len(images))
