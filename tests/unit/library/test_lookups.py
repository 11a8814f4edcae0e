"""Conditions are looked up where few images fulfil them; what is found is what going through all images finds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

import captune

COUNT = 2000


class Row(NamedTuple):
    path: str
    text: str
    person: bool
    approved: bool
    flagged: bool
    mark: str | None
    taken: str
    keyword: str
    split: str


@pytest.fixture(scope="module")
def rows() -> dict[int, Row]:
    chance = random.Random(3)

    def row(number: int) -> Row:
        words = chance.choices(("dog", "cat", "snow", "dogs"), k=4) if chance.random() < 0.97 else ()
        return Row(
            f"{number % 40:02d}/{number:04d}.jpg", " ".join(words),
            chance.random() < 0.02, chance.random() < 0.02, chance.random() < 0.03,
            "later" if chance.random() < 0.02 else None, f"2024-{1 + number % 12:02d}-05T10:00:00", f"k{number % 50}",
            "val" if chance.random() < 0.02 else "train",
        )  # fmt: skip

    return {number: row(number) for number in range(1, COUNT + 1)}


@pytest.fixture(scope="module")
def library(rows: dict[int, Row], tmp_path_factory: pytest.TempPathFactory) -> captune.Library:
    written = {number: row for number, row in rows.items() if row.text}
    opened = captune.Library(tmp_path_factory.mktemp("photos"), create=True)
    with opened.database.write() as connection:
        connection.executemany(
            "INSERT INTO images(id, path, mark, taken, split, digest, bytes, modified, added) "
            "VALUES (?, ?, ?, ?, ?, '', 1, 1, '')",
            [(number, row.path, row.mark, row.taken, row.split) for number, row in rows.items()],
        )
        connection.executemany(
            "INSERT INTO captions(image, text, written_by, status, flags, written) VALUES (?, ?, ?, ?, ?, '')",
            [
                (
                    number, row.text, "person" if row.person else "model", "approved" if row.approved else "draft",
                    "cut repetition" if row.flagged else "",
                )
                for number, row in written.items()
            ],
        )  # fmt: skip
        connection.executemany("INSERT INTO keywords VALUES (?, ?)", [(n, row.keyword) for n, row in rows.items()])
    return opened


CONDITIONS: list[tuple[dict[str, Any], Callable[[Row], bool], str]] = [
    ({"under": "07"}, lambda row: row.path.startswith("07/"), "images"),
    ({"tag": ("K3",)}, lambda row: row.keyword == "k3", "keywords"),
    ({"mark": "later"}, lambda row: row.mark == "later", "images"),
    ({"taken": "2024-07"}, lambda row: row.taken.startswith("2024-07"), "images"),
    ({"taken": "2024-11.."}, lambda row: row.taken >= "2024-11", "images"),
    ({"status": "approved"}, lambda row: row.text != "" and row.approved, "captions"),
    ({"status": "draft"}, lambda row: row.text != "" and not row.approved, ""),
    ({"by": "person"}, lambda row: row.text != "" and row.person, "captions"),
    (
        {"by": "person", "under": "07"},
        lambda row: row.text != "" and row.person and row.path.startswith("07/"),
        "images",
    ),
    ({"flag": ("cut",)}, lambda row: row.text != "" and row.flagged, "captions"),
    ({"split": "val"}, lambda row: row.split == "val", "images"),
    ({"without_caption": True}, lambda row: row.text == "", "without_caption"),
]


@pytest.mark.parametrize(("options", "is_meant", "looked_up"), CONDITIONS, ids=[str(each[0]) for each in CONDITIONS])
@pytest.mark.parametrize("words", ["dog", "dog -cat", "", "do*"])
def test_what_is_found(
    library: captune.Library, rows: dict[int, Row], words: str, options: dict[str, Any],
    is_meant: Callable[[Row], bool], looked_up: str,
) -> None:  # fmt: skip
    def has_words(row: Row) -> bool:
        there = row.text.split()
        if words == "do*":
            return "dog" in there or "dogs" in there
        return not words or ("dog" in there and not ("-cat" in words and "cat" in there))

    statements: list[str] = []
    library.database.connection.set_trace_callback(statements.append)
    found = [each.path for each in library.search(words, limit=5, **options)]
    library.database.connection.set_trace_callback(None)
    wanted = sorted(
        (len(row.text) if words else 0, row.path) for row in rows.values() if has_words(row) and is_meant(row)
    )
    assert found == [path for _, path in wanted[:5]]
    if words == "dog" and looked_up:
        assert any("+words.rowid IN" in each and f"FROM {looked_up} n WHERE" in each for each in statements)
