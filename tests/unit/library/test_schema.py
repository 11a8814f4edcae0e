"""Libraries of earlier versions are brought up to date; what triggers note is true after every change."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

import captune
from captune.library.listing import keyword_counts, listed_ids, split_counts
from captune.library.query import Condition
from captune.library.schema import _STEPS, VERSION, statements

IMAGE = "INSERT INTO images(id, path, digest, bytes, modified, added) VALUES (?, ?, '', 1, 1, '')"
CAPTION = "INSERT INTO captions(image, text, written_by, written, current) VALUES (?, ?, 'person', '', ?)"
TABLES = ("images", "captions", "keywords", "steps", "parts")


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_library_of_an_earlier_version_is_brought_up_to_date(version: int, tmp_path: Path) -> None:
    (tmp_path / ".captune").mkdir()
    earlier = sqlite3.connect(tmp_path / ".captune" / "library.db", isolation_level=None)
    for statement in statements("".join(_STEPS[:version])):
        earlier.execute(statement)
    earlier.execute(f"PRAGMA user_version = {version}")
    earlier.executemany(IMAGE, [(1, "dog.jpg"), (2, "former.jpg"), (3, "none.jpg")])
    earlier.executemany(CAPTION, [(1, "two dogs", 1), (1, "a dog", 0), (2, "a cat", 0)])
    earlier.execute("INSERT INTO keywords VALUES (1, 'pet')")
    earlier.execute("INSERT INTO steps(at, who, name) VALUES ('', 'me', 'corrected')")
    earlier.execute("INSERT INTO parts VALUES (1, 'test')")
    before = {table: earlier.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    earlier.close()
    library = captune.Library(tmp_path)
    connection = library.database.connection
    assert connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
    for table, rows in before.items():
        after = [tuple(row) for row in connection.execute(f"SELECT * FROM {table}")]
        assert [row[: len(rows[0])] for row in after] == rows
    assert [each.path for each in library.search("dogs")] == ["dog.jpg"]
    assert [each.path for each in library.search(without_caption=True)] == ["former.jpg", "none.jpg"]
    assert library.problems() == []


def test_what_is_noted_is_true_after_every_change(tmp_path: Path) -> None:
    library, chance = captune.Library(tmp_path, create=True), random.Random(5)
    images = range(1, 21)
    with library.database.write() as connection:
        connection.executemany(IMAGE, [(number, f"{number}.jpg") for number in images])
        for number in range(300):
            image, word = chance.choice(images), chance.choice(("Dog", "dog", "cat", "Red"))
            change = chance.choice(
                (
                    (CAPTION, (image, word, chance.random() < 0.5)),
                    ("UPDATE captions SET current = NOT current WHERE image = ?", (image,)),
                    ("UPDATE captions SET current = 0 WHERE image % 3 = ?", (number % 3,)),
                    ("UPDATE captions SET current = 1 WHERE id % 3 = ?", (number % 3,)),
                    ("UPDATE images SET gone = iif(gone IS NULL, 'today', NULL) WHERE id = ?", (image,)),
                    ("UPDATE images SET split = ? WHERE id = ?", (chance.choice(("val", "test", None)), image)),
                    ("INSERT OR IGNORE INTO keywords VALUES (?, ?)", (image, word)),
                    ("DELETE FROM keywords WHERE image = ? AND keyword = ?", (image, word)),
                )
            )
            connection.execute(*change)
            bare = "SELECT id FROM images WHERE id NOT IN (SELECT image FROM captions WHERE current)"
            noted = {image for (image,) in connection.execute("SELECT image FROM without_caption")}
            assert noted == {image for (image,) in connection.execute(bare)}
            here = dict(connection.execute("SELECT id, split FROM images WHERE gone IS NULL"))
            splits = [split for split in here.values() if split]
            assert split_counts(connection) == {each: splits.count(each) for each in set(splits)}
            words = [word.lower() for image, word in connection.execute("SELECT * FROM keywords") if image in here]
            counts = {word.lower(): count for word, count in keyword_counts(connection)}
            assert counts == {each: words.count(each) for each in set(words)}
    status = library.status()
    assert 0 < status.without_caption == len(library.search(without_caption=True)) < status.images == len(here) < 20
    of_images = [row["image"] for row in connection.execute("SELECT image FROM captions WHERE current")]
    count = sum(image in here for image in of_images)
    assert (status.captions, status.writers, status.flags) == (count, {"person": count}, {})


def test_what_lies_far_back_is_found(tmp_path: Path) -> None:
    library = captune.Library(tmp_path, create=True)
    with library.database.write() as connection:
        connection.executemany(IMAGE, [(number, f"{number:04d}.jpg") for number in range(1, 6501)])
        connection.execute("UPDATE images SET mark = 'late', taken = 10000 - id WHERE path > '5450'")
    found = library.search(mark="late", limit=60)
    assert [each.path for each in found] == [f"{number:04d}.jpg" for number in range(5450, 5510)]
    latest = listed_ids(library.database.connection, "", Condition(), "taken")
    assert latest == [*range(6500, 5449, -1), *range(1, 5450)]
    assert listed_ids(library.database.connection, "", Condition(), "added") == [*range(6500, 0, -1)]
