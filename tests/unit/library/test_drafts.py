"""A model captions a library: once each, as drafts, and never in the place of what a person wrote or approved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captune
from captune.library.database import now
from captune.library.learn import take_back
from stand_in import StandIn, said, stand_in


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in(lambda asked, number: said("a dog a dog on the beach a dog on the beach")) as found:
        yield found


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    """Four images: with a person's caption, with a flagged draft, with an approved draft, with none."""
    opened = captune.Library(tmp_path, create=True)
    captions = {
        "1": ("a cat", "person", "approved"),
        "2": ("a a a", "model", "draft"),
        "3": ("b b b", "model", "approved"),
    }
    with opened.database.write() as connection:
        for number in "1234":
            Image.new("RGB", (20, 20), "red").save(tmp_path / f"{number}.png")
            connection.execute(
                "INSERT INTO images(path, digest, bytes, modified, added) VALUES (?, ?, 1, 1, ?)",
                (f"{number}.png", number, now()),
            )
        for number, (text, writer, status) in captions.items():
            connection.execute(
                "INSERT INTO captions(image, text, written_by, model, status, flags, written) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    int(number),
                    text,
                    writer,
                    "" if writer == "person" else "old",
                    status,
                    "repeats" * (writer != "person"),
                    now(),
                ),
            )
    return opened


def standing(library: captune.Library) -> list[tuple[Any, ...]]:
    query = "SELECT image, text, status FROM captions WHERE current ORDER BY image, id"
    return [tuple(row) for row in library.database.connection.execute(query)]


def test_a_round_that_is_taken_back_leaves_the_former_drafts(library: captune.Library, server: StandIn) -> None:
    before, run = standing(library), library.own / "rounds" / "1" / "run"
    assert library.caption(server.name, sight_check=False, flag=("any",)).drafts == 1
    assert standing(library) != before
    with library.database.write() as connection:
        connection.execute("UPDATE captions SET model = ? WHERE model = ?", (str(run), server.name))
        connection.execute("INSERT INTO rounds(at, model) VALUES ('', 'm')")
    assert take_back(library.folder) == 1
    assert standing(library) == before


def test_without_an_image_to_caption_no_model_is_loaded(library: captune.Library) -> None:
    assert library.caption("there is no such model", under="nowhere").drafts == 0


def test_only_what_has_no_caption_and_only_once(library: captune.Library, server: StandIn) -> None:
    before = standing(library)
    assert library.caption(server.name, sight_check=False).to_json() == {"drafts": 1, "flagged": 1, "failed": {}}
    text = "a dog a dog on the beach a dog on the beach"
    assert standing(library) == [*before, (4, text, "draft")]
    row = library.database.connection.execute("SELECT * FROM captions WHERE image = 4").fetchone()
    assert (row["model"], row["flags"]) == (server.name, "repeats")
    assert json.loads(row["provenance"])["prompt"]
    with library.database.write() as connection:  # a person took it away: the same model does not write it again
        connection.execute("UPDATE captions SET current = 0 WHERE image = 4")
    asked = len(server.asked)
    assert library.caption(server.name, sight_check=False).drafts == 0
    assert len(server.asked) == asked
    assert library.caption(server.name, sight_check=False, prompt="What is it?").drafts == 1


def test_flagged_drafts_give_way_a_person_s_and_approved_ones_do_not(library: captune.Library, server: StandIn) -> None:
    assert library.caption(server.name, sight_check=False, flag=("any",)).drafts == 1
    assert standing(library) == [
        (1, "a cat", "approved"), (2, "a dog a dog on the beach a dog on the beach", "draft"), (3, "b b b", "approved")
    ]  # fmt: skip
    former = library.database.connection.execute("SELECT current FROM captions WHERE text = 'a a a'").fetchone()
    assert former["current"] == 0


def test_beside_and_most(library: captune.Library, server: StandIn) -> None:
    before = standing(library)
    assert library.caption(server.name, sight_check=False, beside=True, most=3).drafts == 3
    assert library.caption(server.name, sight_check=False, beside=True).drafts == 1
    assert set(before) < set(standing(library))
    assert len(standing(library)) == len(before) + 4


def test_the_editor_drafts_as_the_command_does(library: captune.Library, server: StandIn) -> None:
    pytest.importorskip("fastapi", reason="The editor needs pip install 'captune[serve]'")
    from captune.server.editor.drafting import LazyModel

    options = {"sight_check": False, "prompt": "What is it?"}
    (draft,) = LazyModel(server.name, options)([str(library.folder / "4.png")])
    library.caption(server.name, **options)
    (row,) = library.database.connection.execute("SELECT * FROM captions WHERE image = 4 AND current").fetchall()
    assert not isinstance(draft, str)
    assert json.loads(row["provenance"])["prompt"]
    assert (draft.text, draft.model, draft.provenance) == (row["text"], row["model"], row["provenance"])
    assert " ".join(draft.flags) == row["flags"]
