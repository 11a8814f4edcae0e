"""The same change of all images of a selection, or of their captions: counted first, then made as one step."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from captune.library.history import ConflictError, Editor, Status
from captune.library.listing import listed_captions, listed_ids
from captune.library.query import Condition

_DIGITS = 32
_TARGETS = "(SELECT value FROM json_each(?))"
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

    def make(self, editor: Editor, targets: str) -> None:
        """Change captions, whose numbers are JSON."""
        _note(editor, f"image, 'status', id, status, ? FROM captions WHERE id IN {_TARGETS}", self.status, targets)
        query = f"UPDATE captions SET status = ? WHERE id IN {_TARGETS}"
        editor.connection.execute(query, (self.status, targets))


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

    def make(self, editor: Editor, targets: str) -> None:
        """Change the keywords of images, whose numbers are JSON; upper and lower case are the same."""
        for word in self.add:
            lack = f"FROM images i WHERE i.id IN {_TARGETS} AND NOT {_HAS}"
            _note(editor, f"i.id, 'keyword', NULL, NULL, ? {lack}", word, targets, word)
            editor.connection.execute(f"INSERT INTO keywords SELECT i.id, ? {lack}", (word, targets, word))
        for word in self.remove:
            have = f"FROM keywords WHERE image IN {_TARGETS} AND keyword = ?"
            _note(editor, f"image, 'keyword', NULL, keyword, NULL {have}", targets, word)
            editor.connection.execute(f"DELETE {have}", (targets, word))


@dataclass(frozen=True)
class MarkChange:
    """Images marked with a word; None: no mark."""

    mark: str | None

    def targets(self, connection: sqlite3.Connection, words: str, condition: Condition) -> Targets:
        """Images of the selection whose mark would be another one."""
        return _of_images(listed_ids(connection, words, condition.also("i.mark IS NOT ?", self.mark)))

    def make(self, editor: Editor, targets: str) -> None:
        """Mark images, whose numbers are JSON."""
        _note(editor, f"id, 'mark', NULL, mark, ? FROM images WHERE id IN {_TARGETS}", self.mark, targets)
        editor.connection.execute(f"UPDATE images SET mark = ? WHERE id IN {_TARGETS}", (self.mark, targets))


@dataclass(frozen=True)
class SplitChange:
    """Images of a data set put into a split; empty: into none."""

    split: str

    def targets(self, connection: sqlite3.Connection, words: str, condition: Condition) -> Targets:
        """Images of the selection that are in another split."""
        return _of_images(listed_ids(connection, words, condition.also("i.split != ?", self.split)))

    def make(self, editor: Editor, targets: str) -> None:
        """Put images, whose numbers are JSON, into the split."""
        _note(editor, f"id, 'split', NULL, split, ? FROM images WHERE id IN {_TARGETS}", self.split, targets)
        editor.connection.execute(f"UPDATE images SET split = ? WHERE id IN {_TARGETS}", (self.split, targets))


BulkChange = StatusChange | KeywordChange | MarkChange | SplitChange


def make_bulk(editor: Editor, change: BulkChange, words: str, condition: Condition, digest: str) -> int:
    """Make a change of all that it is about; of how many captions or images.

    Raises `ConflictError` where these are not those of the `digest`: what was shown.
    """
    found = change.targets(editor.connection, words, condition)
    if found.digest != digest:
        raise ConflictError("The library was changed since this was counted.")
    change.make(editor, json.dumps(found.targets))
    query = "SELECT image FROM changes WHERE step = ? GROUP BY image ORDER BY min(id)"
    editor.images.update(dict.fromkeys(row["image"] for row in editor.connection.execute(query, (editor.step,))))
    return len(found.targets)


def _note(editor: Editor, select: str, *values: Any) -> None:
    """Note changes that can be undone: `select` has image, kind, caption, before and after of each."""
    query = f"INSERT INTO changes(step, image, kind, caption, before, after) SELECT {editor.step}, {select}"
    editor.connection.execute(query, values)


def _of_images(images: list[int]) -> Targets:
    return Targets(tuple(images), len(images))
