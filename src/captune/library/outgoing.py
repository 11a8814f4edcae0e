"""What is to leave a library: which captions and keywords of which images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from captune.core.options.library import FilterOptions
from captune.library.database import Database, encoded
from captune.library.query import Condition, condition_of

_PAGE = 1000
# A person's captions come first; who wrote a caption in the editor stands in the step that made it.
_CAPTIONS = (
    "SELECT c.*, (SELECT s.who FROM changes x JOIN steps s ON s.id = x.step "
    "WHERE x.image = c.image AND x.kind = 'caption' AND x.caption = c.id AND x.after = c.id) AS who "
    "FROM captions c JOIN images i ON i.id = c.image WHERE c.image = ? AND c.current AND {} "
    "ORDER BY c.written_by = 'model', c.id"
)


@dataclass(frozen=True, slots=True)
class OutgoingCaption:
    """A caption as the library has it; `who` corrected it on the page, `provenance` is JSON."""

    id: int
    text: str
    written_by: str
    who: str
    model: str
    status: str
    written: str
    confidence: float | None
    flags: str
    provenance: str

    @property
    def is_draft(self) -> bool:
        """Whether a model wrote it, and no person approved it."""
        return self.written_by == "model" and self.status != "approved"


@dataclass(frozen=True, slots=True)
class OutgoingImage:
    """An image with what is to be written of it, and its size and time of change when the library read it."""

    id: int
    path: str
    state: tuple[int, int]
    digest: str
    captions: tuple[OutgoingCaption, ...]
    keywords: tuple[str, ...]


class Outgoing:
    """The images of a library that options choose, with their captions; without a status those that are approved.

    With `uncaptioned` the images without such captions as well, where the options name no caption.
    """

    def __init__(self, database: Database, where: FilterOptions, *, uncaptioned: bool = False) -> None:
        self._database = database
        self._captions = condition_of(where.model_copy(update={"status": where.status or "approved"}))
        self._images = condition_of(where) if uncaptioned else self._captions

    def __len__(self) -> int:
        query, values = _images("count(DISTINCT i.id)", self._images)
        return int(self._database.connection.execute(query, values).fetchone()[0])

    def __iter__(self) -> Iterator[OutgoingImage]:
        """By path; what is written to the library meanwhile does no harm."""
        query, values = _images("i.id, i.path, i.bytes, i.modified, i.digest", self._images)
        query += f" AND i.path > CAST(? AS TEXT) GROUP BY i.id ORDER BY i.path LIMIT {_PAGE}"
        connection, last = self._database.connection, b""
        while rows := connection.execute(query, (*values, last)).fetchall():
            last = encoded(rows[-1]["path"])
            for row in rows:
                state = (row["bytes"], row["modified"])
                captions, keywords = self._captions_of(row["id"]), self._keywords_of(row["id"])
                yield OutgoingImage(row["id"], row["path"], state, row["digest"], captions, keywords)

    def _captions_of(self, image: int) -> tuple[OutgoingCaption, ...]:
        query = _CAPTIONS.format(self._captions.sql)
        rows = self._database.connection.execute(query, (image, *self._captions.values))
        return tuple(
            OutgoingCaption(
                row["id"], row["text"], row["written_by"], row["who"] or "", row["model"], row["status"],
                row["written"], row["confidence"], row["flags"], row["provenance"],
            )
            for row in rows
        )  # fmt: skip

    def _keywords_of(self, image: int) -> tuple[str, ...]:
        query = "SELECT keyword FROM keywords WHERE image = ? ORDER BY keyword"
        return tuple(row["keyword"] for row in self._database.connection.execute(query, (image,)))


def _images(columns: str, condition: Condition) -> tuple[str, tuple[Any, ...]]:
    join = "JOIN captions c ON c.image = i.id AND c.current" if condition.of_captions else ""
    return f"SELECT {columns} FROM images i {join} WHERE {condition.sql}", condition.values
