"""Which images are meant, in an order, and what the library knows of some of them: what an editor shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Literal

from captune.library.query import Condition, words_of

Order = Literal["path", "doubtful", "taken", "added"]

# Drafts with flags, then by rising confidence, then drafts without one, images without a caption, and all others.
_DOUBT = (
    "min(CASE WHEN c.id IS NULL THEN 3 WHEN c.status != 'draft' THEN 4 WHEN c.flags != '' THEN 0 "
    "WHEN c.confidence IS NOT NULL THEN 1 ELSE 2 END), min(CASE WHEN c.status = 'draft' THEN c.confidence END), "
)
_ORDERS: dict[str, str] = {
    "path": "",
    "doubtful": _DOUBT,
    "taken": "i.taken IS NULL, i.taken, ",
    "added": "i.id DESC, ",
}


def listed_ids(connection: sqlite3.Connection, words: str, condition: Condition, order: Order = "path") -> list[int]:
    """All images that a condition is true of, and that have a caption with all the words (if any), in an order."""
    clause, values = _with_words(words)
    of_captions = condition.of_captions or bool(clause)
    if not of_captions and order != "doubtful":
        query = f"SELECT i.id FROM images i WHERE {condition.sql} ORDER BY {_ORDERS[order]}i.path, i.id"
        return [row[0] for row in connection.execute(query, condition.values)]
    join = "JOIN" if of_captions else "LEFT JOIN"
    rows = connection.execute(
        f"SELECT i.id FROM images i {join} captions c ON c.image = i.id AND c.current "
        f"WHERE {condition.sql}{clause} GROUP BY i.id ORDER BY {_ORDERS[order]}i.path, i.id",
        (*condition.values, *values),
    )
    return [row[0] for row in rows]


def listed_captions(connection: sqlite3.Connection, words: str, condition: Condition) -> list[sqlite3.Row]:
    """The captions (`id`, `image`, `text`, `path`) of those images of which the condition and the words are true."""
    clause, values = _with_words(words)
    return connection.execute(
        "SELECT c.id, c.image, c.text, i.path FROM captions c JOIN images i ON i.id = c.image "
        f"WHERE c.current AND {condition.sql}{clause} ORDER BY i.path, c.id",
        (*condition.values, *values),
    ).fetchall()


def _with_words(words: str) -> tuple[str, tuple[str, ...]]:
    clause, values = words_of(words).condition
    return clause and f" AND {clause}", values


# A corrected caption stays where the first one stood.
_FIRST = (
    "WITH RECURSIVE line(id, of) AS (SELECT c.id, c.of UNION SELECT b.id, b.of FROM captions b "
    "JOIN line ON b.id = line.of) SELECT min(id) FROM line"
)


def image_details(connection: sqlite3.Connection, images: Sequence[int]) -> list[dict[str, Any]]:
    """What is known of images, in their order, with their captions and keywords; without those that are not there.

    Bytes of a path that are no UTF-8 come as replacement characters.
    """
    marks = ", ".join("?" * len(images))
    found: dict[int, dict[str, Any]] = {
        row["id"]: {
            **{name: row[name] for name in ("id", "digest", "width", "height", "taken", "place", "names", "problem")},
            "path": printable(row["path"]), "mark": row["mark"], "split": row["split"], "keywords": [], "captions": [],
        }
        for row in connection.execute(f"SELECT * FROM images WHERE id IN ({marks}) AND gone IS NULL", images)
    }  # fmt: skip
    for row in connection.execute(
        f"SELECT * FROM captions c WHERE image IN ({marks}) AND current ORDER BY image, status = 'rejected', "
        f"status = 'draft', CASE WHEN of IS NULL THEN id ELSE ({_FIRST}) END, id",
        images,
    ):
        if row["image"] in found:
            found[row["image"]]["captions"].append(_caption(row))
    for row in connection.execute(
        f"SELECT image, keyword FROM keywords WHERE image IN ({marks}) ORDER BY image, keyword", images
    ):
        if row["image"] in found:
            found[row["image"]]["keywords"].append(printable(row["keyword"]))
    return [found[image] for image in images if image in found]


def _caption(row: sqlite3.Row) -> dict[str, Any]:
    names = ("id", "language", "written_by", "model", "confidence", "status", "written", "of")
    text = printable(row["text"])
    return {**{name: row[name] for name in names}, "text": text, "flags": row["flags"].split()}


def image_history(connection: sqlite3.Connection, image: int) -> list[dict[str, Any]]:
    """All that people did to an image, the latest first: `at`, `who`, `step`, `state`, `kind`, `before`, `after`.

    Of captions `before` and `after` are texts. Then those captions that came without a person: read or made.
    """
    texts = {
        row["id"]: row
        for row in connection.execute("SELECT * FROM captions WHERE image = ? ORDER BY id DESC", (image,))
    }
    events = []
    for row in connection.execute(
        "SELECT c.*, s.at, s.who, s.name, s.state FROM changes c JOIN steps s ON s.id = c.step WHERE c.image = ? "
        "ORDER BY c.id DESC",
        (image,),
    ):
        before, after = row["before"], row["after"]
        if row["kind"] == "caption":
            before, after = (printable(texts[each]["text"]) if each in texts else None for each in (before, after))
        events.append(
            {
                "at": row["at"], "who": row["who"], "step": row["name"], "state": row["state"], "kind": row["kind"],
                "caption": row["after"] if row["kind"] == "caption" else row["caption"],
                "before": before, "after": after,
            }
        )  # fmt: skip
    made = {event["caption"] for event in events}
    events += [
        {
            "at": row["written"], "who": row["model"] or row["written_by"], "step": "written", "state": "done",
            "kind": "caption", "caption": row["id"], "before": None, "after": printable(row["text"]),
        }
        for row in texts.values()
        if row["id"] not in made and (row["written_by"] == "model" or row["source"] is not None)
    ]  # fmt: skip
    return events


def keyword_counts(connection: sqlite3.Connection, beginning: str = "", limit: int = 200) -> list[tuple[str, int]]:
    """Keywords that begin so and on how many images each is, the commonest first."""
    pattern = beginning.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = connection.execute(
        "SELECT min(keyword), sum(count) FROM (SELECT min(keyword) AS keyword, count(*) AS count FROM keywords "
        "WHERE keyword LIKE ?1 ESCAPE '\\' GROUP BY keyword UNION ALL "
        "SELECT keyword, -1 FROM images CROSS JOIN keywords ON image = id WHERE gone IS NOT NULL) "
        "GROUP BY keyword COLLATE NOCASE HAVING sum(count) > 0 ORDER BY 2 DESC, 1 LIMIT ?2",
        (pattern, limit),
    )
    return [(printable(row[0]), row[1]) for row in rows]


def mark_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Marks, and how many images have each."""
    rows = connection.execute(
        "SELECT mark, count(*) FROM images WHERE mark IS NOT NULL AND gone IS NULL GROUP BY mark ORDER BY 2 DESC"
    )
    return {row[0]: row[1] for row in rows}


def split_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Splits of a data set, and how many images are in each; empty where the library is of none."""
    rows = connection.execute(
        "SELECT split, count(*) FROM images WHERE split IS NOT NULL AND gone IS NULL GROUP BY split ORDER BY 2 DESC"
    )
    return {row[0]: row[1] for row in rows}


def unreadable(connection: sqlite3.Connection, most: int) -> dict[str, str]:
    """Why the first images that cannot be read are not, by path."""
    query = "SELECT path, problem FROM images WHERE gone IS NULL AND problem IS NOT NULL ORDER BY path LIMIT ?"
    return {row["path"]: row["problem"] for row in connection.execute(query, (most,))}


def printable(text: str) -> str:
    """A text as JSON can have it: bytes that are no UTF-8 become replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
