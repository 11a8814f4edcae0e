"""What people change: in steps that can be undone and done again; nobody's change is lost without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captune.core.errors import CaptuneError
from captune.library.database import FILE, Database
from captune.library.history import ConflictError, editing, redo, undo


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path / FILE, create=True)
    with database.write() as connection:
        connection.executemany(
            "INSERT INTO images(id, path, digest, bytes, modified, added) VALUES (?, ?, ?, 1, 1, '')",
            [(number, f"{number}.jpg", str(number)) for number in (1, 2, 3)],
        )
        connection.executemany(
            "INSERT INTO captions(id, image, text, written_by, written) VALUES (?, ?, ?, 'model', '')",
            [(10 * number, number, f"a dgo {number}") for number in (1, 2, 3)],
        )
    return database


def texts(database: Database) -> list[str]:
    return [
        row["text"] for row in database.connection.execute("SELECT text FROM captions WHERE current ORDER BY image")
    ]


def state(database: Database) -> list[Any]:
    """All that a person may change, and what words are found."""
    queries = (
        "SELECT image, text, status FROM captions WHERE current ORDER BY image, id",
        "SELECT * FROM keywords",
        "SELECT id, mark FROM images",
        "SELECT rowid FROM words WHERE words MATCH 'dog' ORDER BY rowid",
    )
    return [[tuple(row) for row in database.connection.execute(query)] for query in queries]


def test_every_step_is_undone_and_done_again_after_a_restart(database: Database, tmp_path: Path) -> None:
    states = [state(database)]
    with editing(database, "ann", "corrected") as editor:
        first = editor.write_caption(1, "a dog", of=10)
    states.append(state(database))
    with editing(database, "ann", "all at once") as editor:
        editor.write_caption(1, "a brown dog", of=first)
        editor.write_caption(2, "another dog")
        editor.remove_caption(3, 30)
        editor.set_status(20, "rejected")
        editor.set_keywords(2, add=["Dog", " big  dog "])
        editor.set_mark(3, "later")
    states.append(state(database))
    with editing(database, "ann", "less") as editor:
        editor.set_keywords(2, remove=["dog"], add=["BIG dog"])
        editor.set_mark(3, None)
    states.append(state(database))
    assert states[2][1] == [(2, "big dog"), (2, "Dog")]
    assert states[3][1] == [(2, "big dog")]
    database.close()
    again = Database(tmp_path / FILE)
    for expected in (states[2], states[1], states[0]):
        assert undo(again, "ann") is not None
        assert state(again) == expected
    assert undo(again, "ann") is None
    for expected in states[1:]:
        step = redo(again, "ann")
        assert step is not None
        assert state(again) == expected
    assert redo(again, "ann") is None
    assert again.problems() == []


def test_a_new_step_ends_what_could_be_done_again(database: Database) -> None:
    for text in ("a dog", "one dog"):
        with editing(database, "ann", text) as editor:
            editor.write_caption(2, text)
    undo(database, "ann")
    with editing(database, "ann", "new") as editor:
        editor.set_mark(1, "x")
    assert redo(database, "ann") is None
    assert undo(database, "ann").images == (1,)  # type: ignore[union-attr]
    assert undo(database, "ann").name == "a dog"  # type: ignore[union-attr]
    assert texts(database) == ["a dgo 1", "a dgo 2", "a dgo 3"]


def test_the_later_edit_does_not_eat_the_earlier(database: Database) -> None:
    with editing(database, "ann", "corrected") as editor:
        editor.write_caption(1, "a dog", of=10)

    def correct_both() -> None:
        with editing(database, "bob", "corrected") as editor:
            editor.write_caption(2, "lost with the step")
            editor.write_caption(1, "a cat", of=10)

    with pytest.raises(ConflictError) as raised:
        correct_both()
    assert raised.value.text == "a dog"
    assert texts(database) == ["a dog", "a dgo 2", "a dgo 3"]
    assert undo(database, "bob") is None
    with editing(database, "bob", "corrected") as editor:
        editor.write_caption(
            1, "a big dog", of=database.connection.execute("SELECT max(id) FROM captions").fetchone()[0]
        )
    with pytest.raises(ConflictError):
        undo(database, "ann")
    assert texts(database)[0] == "a big dog"
    undo(database, "bob")
    assert undo(database, "ann") is not None
    assert texts(database)[0] == "a dgo 1"


def test_what_changes_nothing_is_no_step(database: Database) -> None:
    with editing(database, "ann", "nothing") as editor:
        editor.set_mark(1, None)
        editor.set_status(10, "draft")
        editor.set_keywords(1, remove=["dog"])
    assert undo(database, "ann") is None
    with pytest.raises(CaptuneError, match="without words"), editing(database, "ann", "empty") as editor:
        editor.write_caption(1, " \n", of=10)
    with pytest.raises(CaptuneError, match="no caption 99"), editing(database, "ann", "unknown") as editor:
        editor.set_status(99, "approved")
