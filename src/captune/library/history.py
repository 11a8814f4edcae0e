"""What people change in a library: every step can be undone and done again, also after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from captune.core.errors import CaptuneError
from captune.datasets.splits import split_name
from captune.library.database import Database, now

Status = Literal["draft", "approved", "rejected"]


class ConflictError(CaptuneError):
    """Somebody changed the same meanwhile; nothing was changed.

    `text` is the caption that stands there now, `caption` its number, `image` that of its image (None: there is none).
    """

    def __init__(
        self, message: str, text: str | None = None, *, image: int | None = None, caption: int | None = None
    ) -> None:
        super().__init__(message, "Look at what stands there now, and do it again.")
        self.text, self.image, self.caption = text, image, caption


@dataclass(frozen=True)
class Step:
    """Something that a person did at once: its number, its name in words, and the images that it changed."""

    id: int
    name: str
    images: tuple[int, ...]


@dataclass(frozen=True)
class Draft:
    """What a model wrote of an image: `provenance` is JSON, `confidence` None where the model has none."""

    text: str
    model: str
    provenance: str = "{}"
    confidence: float | None = None
    flags: tuple[str, ...] = ()
    language: str | None = None


@dataclass
class Editor:
    """Changes of one step, in one transaction."""

    connection: sqlite3.Connection
    step: int
    who: str
    images: dict[int, None] = field(default_factory=dict)

    def write_caption(self, image: int, text: str, *, of: int | None = None, language: str | None = None) -> int:
        """A person's caption, approved, in the place of the caption `of`; the number of the new one.

        Without `of` it stands beside the others; the same text of a person is not written twice.
        Raises `ConflictError` where `of` does not stand there any more.
        """
        if of is not None:
            self._check_current(image, of)
        else:
            _check_image(self.connection, image)
            same = self.connection.execute(
                "SELECT id FROM captions WHERE image = ? AND text = ? AND written_by = 'person' AND current",
                (image, text),
            ).fetchone()
            if same is not None:  # somebody sends again what was saved already
                return int(same["id"])
        caption = _insert_caption(self.connection, image, text, of, language)
        self._change(image, "caption", caption, of, caption)
        return caption

    def add_draft(self, image: int, draft: Draft, *, of: int | None = None) -> int:
        """A model's caption of an image, beside those that it has, or where the draft `of` stood; its number."""
        _check_image(self.connection, image)
        cursor = self.connection.execute(
            "INSERT INTO captions(image, text, language, written_by, model, provenance, confidence, flags, written, "
            "of, current) VALUES (?, ?, ?, 'model', ?, ?, ?, ?, ?, ?, 0)",
            (
                image, draft.text, draft.language, draft.model, draft.provenance, draft.confidence,
                " ".join(draft.flags), now(), of,
            ),
        )  # fmt: skip
        self._change(image, "caption", cursor.lastrowid, None, cursor.lastrowid)
        return int(cursor.lastrowid or 0)

    def remove_caption(self, image: int, caption: int) -> None:
        """Take a caption away; its history stays."""
        self._check_current(image, caption)
        self._change(image, "caption", caption, caption, None)

    def set_status(self, caption: int, status: Status, *, was: Status | None = None) -> None:
        """Approve or reject a caption, or make it a draft again.

        Raises `ConflictError` where its status is not `was` any more.
        """
        row = self.connection.execute("SELECT image, status FROM captions WHERE id = ?", (caption,)).fetchone()
        if row is None:
            raise CaptuneError(f"There is no caption {caption}.", "Load the image again.")
        self._check_current(row["image"], caption)
        if was is not None and row["status"] not in (was, status):
            raise ConflictError(f"This caption is {row['status']} now.", image=row["image"], caption=caption)
        if row["status"] != status:
            self._change(row["image"], "status", caption, row["status"], status)

    def set_mark(self, image: int, mark: str | None) -> None:
        """Mark an image with a word of one's own; None: no mark."""
        before = _check_image(self.connection, image)["mark"]
        if before != mark:
            self._change(image, "mark", None, before, mark)

    def set_split(self, image: int, split: str) -> None:
        """Put an image of a data set into a split; empty: into none."""
        _check_image(self.connection, image)
        (before,) = self.connection.execute("SELECT split FROM images WHERE id = ?", (image,)).fetchone()
        if before is None:
            raise CaptuneError(f"Image {image} is of no data set: it has no split.", "Prepare one: captune prepare")
        if split != before:
            self._change(image, "split", None, before, split_name(split) if split else "")

    def set_keywords(self, image: int, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Add keywords to an image and take others away; upper and lower case are the same."""
        _check_image(self.connection, image)
        query = "SELECT keyword FROM keywords WHERE image = ? AND keyword = ?"
        for keyword in (clean for each in add if (clean := " ".join(each.split()))):
            if self.connection.execute(query, (image, keyword)).fetchone() is None:
                self._change(image, "keyword", None, None, keyword)
        for keyword in remove:
            row = self.connection.execute(query, (image, keyword)).fetchone()
            if row is not None:
                self._change(image, "keyword", None, row["keyword"], None)

    def _check_current(self, image: int, caption: int) -> None:
        row = self.connection.execute("SELECT image, current FROM captions WHERE id = ?", (caption,)).fetchone()
        if row is None or row["image"] != image:
            raise CaptuneError(f"Image {image} never had a caption {caption}.", "Load the image again.")
        if row["current"]:
            return
        later = self.connection.execute(
            "WITH RECURSIVE line(id) AS (SELECT ? UNION SELECT c.id FROM captions c JOIN line ON c.of = line.id "
            "UNION SELECT c.of FROM captions c JOIN line ON c.id = line.id WHERE c.of IS NOT NULL) "
            "SELECT id, text FROM captions JOIN line USING (id) WHERE current",
            (caption,),
        ).fetchone()
        message = "This caption was changed meanwhile." if later else "This caption was taken away meanwhile."
        text, number = (later["text"], later["id"]) if later else (None, None)
        raise ConflictError(message, text, image=image, caption=number)

    def _change(self, image: int, kind: str, caption: int | None, before: Any, after: Any) -> None:
        self.connection.execute(
            "INSERT INTO changes(step, image, kind, caption, before, after) VALUES (?, ?, ?, ?, ?, ?)",
            (self.step, image, kind, caption, before, after),
        )
        self.images[image] = None
        _apply(self.connection, image, kind, caption, before, after)


@contextmanager
def editing(database: Database, who: str, name: str) -> Iterator[Editor]:
    """Changes that are one step of a person: all of them, or none where the block raises.

    What the person had undone before cannot be done again after a new step.
    """
    with database.write() as connection:
        connection.execute("UPDATE steps SET state = 'dropped' WHERE who = ? AND state = 'undone'", (who,))
        cursor = connection.execute("INSERT INTO steps(at, who, name) VALUES (?, ?, ?)", (now(), who, name))
        editor = Editor(connection, int(cursor.lastrowid or 0), who)
        yield editor
        if not editor.images:
            connection.execute("DELETE FROM steps WHERE id = ?", (editor.step,))


def rewrite(database: Database, who: str, step: int, text: str, *, of: int | None) -> int | None:
    """Write the caption `of` of a person's last step anew, as part of it: while somebody types, it is one step.

    The number of the new caption; None where the step is not the last one, or did not write that caption alone.
    Raises `ConflictError` where somebody changed that caption since.
    """
    with database.write() as connection:
        last = connection.execute(
            "SELECT id FROM steps WHERE who = ? AND state = 'done' ORDER BY id DESC LIMIT 1", (who,)
        ).fetchone()
        changes = connection.execute("SELECT * FROM changes WHERE step = ?", (step,)).fetchall()
        undone = connection.execute("SELECT 1 FROM steps WHERE who = ? AND state = 'undone'", (who,)).fetchone()
        if last is None or last["id"] != step or undone or len(changes) != 1 or changes[0]["kind"] != "caption":
            return None
        image, former = changes[0]["image"], changes[0]["after"]
        if former is None or former != of:
            return None
        Editor(connection, step, who)._check_current(image, former)
        caption = _insert_caption(connection, image, text, former, None)
        _apply(connection, image, "caption", caption, former, caption)
        connection.execute(
            "UPDATE changes SET caption = ?, after = ? WHERE id = ?", (caption, caption, changes[0]["id"])
        )
        return caption


def _insert_caption(connection: sqlite3.Connection, image: int, text: str, of: int | None, language: str | None) -> int:
    """A person's caption that does not stand yet; raises `CaptuneError` for one without words."""
    if not text.strip():
        raise CaptuneError("A caption without words.", "Write some, or take the caption away.")
    cursor = connection.execute(
        "INSERT INTO captions(image, text, language, written_by, status, written, of, current) "
        "VALUES (?, ?, ?, 'person', 'approved', ?, ?, 0)",
        (image, text, language, now(), of),
    )
    return int(cursor.lastrowid or 0)


def _check_image(connection: sqlite3.Connection, image: int) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute("SELECT mark FROM images WHERE id = ?", (image,)).fetchone()
    if row is None:
        raise CaptuneError(f"There is no image {image}.", "Load the list again.")
    return row


def undo(database: Database, who: str) -> Step | None:
    """Take back the last step of a person; None where there is none.

    Raises `ConflictError`, and changes nothing, where somebody changed the same since.
    """
    return _moved(database, who, "SELECT * FROM steps WHERE who = ? AND state = 'done' ORDER BY id DESC", "undone")


def redo(database: Database, who: str) -> Step | None:
    """Do again what was undone last; None where nothing was. Raises as `undo`."""
    return _moved(database, who, "SELECT * FROM steps WHERE who = ? AND state = 'undone' ORDER BY id", "done")


def _moved(database: Database, who: str, query: str, state: str) -> Step | None:
    with database.write() as connection:
        step = connection.execute(query, (who,)).fetchone()
        if step is None:
            return None
        back = state == "undone"
        order = "DESC" if back else "ASC"
        changes = connection.execute(
            f"SELECT * FROM changes WHERE step = ? ORDER BY id {order}", (step["id"],)
        ).fetchall()
        for change in changes:
            before, after = (change["after"], change["before"]) if back else (change["before"], change["after"])
            if not _stands(connection, change, before):
                raise ConflictError(f"Since “{step['name']}” somebody changed the same.")
            _apply(connection, change["image"], change["kind"], change["caption"], before, after)
        connection.execute("UPDATE steps SET state = ? WHERE id = ?", (state, step["id"]))
        return Step(step["id"], step["name"], tuple(dict.fromkeys(change["image"] for change in changes)))


def _apply(connection: sqlite3.Connection, image: int, kind: str, caption: int | None, before: Any, after: Any) -> None:
    """Make a change: of captions, statuses, keywords, marks and splits, from what stood before to what is to stand."""
    if kind == "caption":
        connection.executemany(
            "UPDATE captions SET current = ? WHERE id = ?",
            [(current, each) for current, each in ((0, before), (1, after)) if each is not None],
        )
    elif kind == "status":
        connection.execute("UPDATE captions SET status = ? WHERE id = ?", (after, caption))
    elif kind in ("mark", "split"):
        connection.execute(f"UPDATE images SET {kind} = ? WHERE id = ?", (after, image))
    elif after is None:
        connection.execute("DELETE FROM keywords WHERE image = ? AND keyword = ?", (image, before))
    else:
        connection.execute("INSERT INTO keywords VALUES (?, ?)", (image, after))


def _stands(connection: sqlite3.Connection, change: sqlite3.Row, value: Any) -> bool:
    """Whether a change finds what it starts from."""
    kind, image = change["kind"], change["image"]
    if kind == "caption":
        ends = [(each, int(each == value)) for each in (change["before"], change["after"]) if each is not None]
        query = "SELECT current FROM captions WHERE id = ?"
        return all(connection.execute(query, (each,)).fetchone()[0] == current for each, current in ends)
    if kind == "status":
        query = "SELECT status FROM captions WHERE id = ?"
        return bool(connection.execute(query, (change["caption"],)).fetchone()[0] == value)
    if kind in ("mark", "split"):
        return bool(connection.execute(f"SELECT {kind} FROM images WHERE id = ?", (image,)).fetchone()[0] == value)
    keyword = change["before"] if change["before"] is not None else change["after"]
    query = "SELECT 1 FROM keywords WHERE image = ? AND keyword = ?"
    return (connection.execute(query, (image, keyword)).fetchone() is not None) == (value is not None)
