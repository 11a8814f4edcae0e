"""Images of a library by words of their captions, by meaning, or both."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from captune.library.query import Condition, Words, words_of

# Captions that are put in order: a word that more have tells them apart by nothing but their length.
_MOST = 5_000
# So many images are gone through before those are looked up that a condition is true of: they may lie far back.
_FIRST = 5_000
_COLUMNS = (
    "i.id AS image, i.path, c.id AS caption, c.text, c.status, c.written_by, c.model, c.confidence, c.flags, c.language"
)


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image with the caption that it was found by, or its first one; `score` compares images of one search alone.

    `caption` is empty where the image has none; `similarity` is the cosine of its vector and that of the query, None
    where it was found by words.
    """

    image: int
    path: str
    caption: str
    score: float
    similarity: float | None = None
    status: str = ""
    written_by: str = ""
    model: str = ""
    confidence: float | None = None
    flags: tuple[str, ...] = ()
    language: str | None = None

    def to_json(self) -> dict[str, Any]:
        names = ("path", "caption", "score", "similarity", "status", "written_by", "model", "confidence", "language")
        return {name: getattr(self, name) for name in names} | {"flags": list(self.flags)}


def by_words(connection: sqlite3.Connection, text: str, condition: Condition, limit: int) -> list[FoundImage]:
    """Images that have a caption with all the words of `text`, the shortest captions first; an image comes once.

    Where none has them all, words that no caption has are left out, then the commonest one after the other. Of more
    than `_MOST` captions the first ones are compared, where there is a limit (0: none). `"two dogs"` is a phrase,
    `dog*` the beginning of a word, `-cat` a word that is not there. Signs alone, and scripts without spaces, are looked
    for as they stand.
    Raises `UsageError` for a text of more than `MAX_WORDS` characters.
    """
    words = words_of(text)
    if not (isinstance(words, Words) and words.wanted):
        clause, values = words.condition
        if not clause:
            return listed_images(connection, condition, limit)
        return _found(
            connection,
            f"SELECT {_COLUMNS}, 1.0 AS score FROM captions c JOIN images i ON i.id = c.image "
            f"WHERE c.current AND {clause} AND {condition.sql} ORDER BY length(c.text), i.path",
            (*values, *condition.values),
            limit,
        )
    most = _MOST if limit else -1
    for fewer in words.relaxed(connection):
        few = condition.lookup(connection, fewer.most(connection), most if limit else math.inf)
        among, values = "", ()
        if few is not None:  # with the sign the captions stay in their order, and each is looked up before it is read
            among, values = f"AND +words.rowid IN ({few.captions})", few.values
        found = _found(
            connection,
            f"SELECT *, 1.0 / (1 + length(text)) AS score FROM (SELECT {_COLUMNS} FROM words "
            f"CROSS JOIN captions c ON c.id = words.rowid CROSS JOIN images i ON i.id = c.image "
            f"WHERE words MATCH ? {among} AND {condition.sql} LIMIT {most}) ORDER BY score DESC, path LIMIT {most}",
            (fewer.query, *values, *condition.values),
            limit,
        )
        if found:
            return found
    return []


def listed_images(connection: sqlite3.Connection, condition: Condition, limit: int) -> list[FoundImage]:
    """Images that a condition is true of, by their paths, each with its first caption of which it is true."""

    def found(images: str, *values: Any) -> list[FoundImage]:
        join = "CROSS JOIN" if condition.of_captions else "LEFT JOIN"
        return _found(
            connection,
            f"SELECT {_COLUMNS}, 1.0 AS score FROM {images} {join} captions c ON c.image = i.id AND c.current "
            f"WHERE {condition.sql} ORDER BY i.path, c.id",
            (*values, *condition.values),
            limit,
        )

    few = condition.lookup(connection, math.inf, math.inf)
    if few is None:
        return found("images i INDEXED BY images_by_path")
    if limit and condition.lookup(connection, math.inf, limit) is None:
        first = f"SELECT id FROM images INDEXED BY images_by_path WHERE gone IS NULL ORDER BY path LIMIT {_FIRST}"
        enough = found(f"({first}) n CROSS JOIN images i ON i.id = n.id")
        if len(enough) == limit:
            return enough
    return found(f"(SELECT DISTINCT image FROM ({few.images})) n CROSS JOIN images i ON i.id = n.image", *few.values)


def ids_of(connection: sqlite3.Connection, condition: Condition) -> list[int]:
    """All images that a condition is true of, in no order."""
    join = "JOIN captions c ON c.image = i.id AND c.current " if condition.of_captions else ""
    rows = connection.execute(f"SELECT DISTINCT i.id FROM images i {join}WHERE {condition.sql}", condition.values)
    return [row[0] for row in rows]


def with_captions(
    connection: sqlite3.Connection, scores: list[tuple[int, float, float | None]], condition: Condition, limit: int
) -> list[FoundImage]:
    """Of images with a score and a similarity, best first, those that a condition is true of, each with a caption."""
    join = "JOIN" if condition.of_captions else "LEFT JOIN"
    query = (
        f"SELECT {_COLUMNS}, 1.0 AS score FROM images i {join} captions c ON c.image = i.id AND c.current "
        f"WHERE i.id = ? AND {condition.sql} ORDER BY c.status = 'approved' DESC, c.id LIMIT 1"
    )
    found: list[FoundImage] = []
    for image, score, similarity in scores:
        row = connection.execute(query, (image, *condition.values)).fetchone()
        if row is not None:
            found.append(_image(row, score, similarity))
            if len(found) == limit:
                break
    return found


def _found(connection: sqlite3.Connection, query: str, values: tuple[Any, ...], limit: int) -> list[FoundImage]:
    return list(_each_once(connection.execute(query, values), limit))


def _each_once(rows: Iterator[sqlite3.Row], limit: int) -> Iterator[FoundImage]:
    known: set[int] = set()
    for row in rows:
        if row["image"] not in known:
            known.add(row["image"])
            yield _image(row, row["score"], None)
        if len(known) == limit:
            return


def _image(row: sqlite3.Row, score: float, similarity: float | None) -> FoundImage:
    flags = tuple((row["flags"] or "").split())
    return FoundImage(
        row["image"], row["path"], row["text"] or "", score, similarity,
        row["status"] or "", row["written_by"] or "", row["model"] or "", row["confidence"], flags, row["language"],
    )  # fmt: skip
