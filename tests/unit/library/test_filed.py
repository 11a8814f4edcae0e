"""Captions of files come into a library with what is known of them, once, and what has no image is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captune
from captune.captions.provenance import Provenance
from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.images.metadata.files import with_caption
from captune.images.metadata.xmp import Mark
from captune.library.database import now


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    """Four images that are known; none is opened."""
    (tmp_path / "photos").mkdir()
    opened = captune.Library(tmp_path / "photos", create=True)
    with opened.database.write() as connection:
        for path in ("a/1.jpg", "b/1.jpg", "b/2.jpg", "c/3.png"):
            connection.execute(
                "INSERT INTO images(path, digest, bytes, modified, added) VALUES (?, ?, 1, 1, ?)", (path, path, now())
            )
    return opened


def rows(library: captune.Library) -> list[tuple[Any, ...]]:
    query = "SELECT path, text, written_by, model, confidence, flags, status, c.written FROM captions c JOIN images i "
    return [tuple(row) for row in library.database.connection.execute(query + "ON i.id = c.image ORDER BY path, c.id")]


def row(image: str, text: str, **more: Any) -> dict[str, Any]:
    noted = Provenance("model", "blip", date="2024-05-06").of([Caption(more.pop("wrote", text), 0.5)])
    return {"image": image, "caption": text, "confidence": 0.5, "flags": ["cut"], "provenance": noted.to_json(), **more}


def test_a_model_s_row_is_a_draft_a_corrected_one_is_a_person_s(library: captune.Library, tmp_path: Path) -> None:
    lines = [row("b/2.jpg", "a dog"), row("/old/photos/a/1.jpg", "a black cat", wrote="a cat"), row("3", "a bird")]
    lines += [row("1.jpg", "which one?"), row("none.jpg", "nobody")]
    lines.append({"image": "b/1.jpg", "caption": None, "status": "error", "error": "truncated"})
    (tmp_path / "job.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    report = library.add_captions(tmp_path / "job.jsonl")
    assert (report.new, report.without_image) == (3, ("1.jpg", "none.jpg"))
    assert report.unusable == {"b/1.jpg": "truncated"}
    assert "2 whose name is that of no image, or of several: 1.jpg" in report.sentence()
    assert "1.jpg" in report.sentence()
    day = "2024-05-06T00:00:00Z"
    assert rows(library)[1:] == [
        ("b/2.jpg", "a dog", "model", "blip", 0.5, "cut", "draft", day),
        ("c/3.png", "a bird", "model", "blip", 0.5, "cut", "draft", day),
    ]
    assert rows(library)[0][:7] == ("a/1.jpg", "a black cat", "person", "", None, "", "approved")
    before = rows(library)
    again = library.add_captions(tmp_path / "job.jsonl")
    assert (again.new, again.known, rows(library)) == (0, 3, before)


def test_what_a_person_took_away_does_not_come_back(library: captune.Library, tmp_path: Path) -> None:
    (tmp_path / "job.jsonl").write_text(json.dumps(row("b/2.jpg", "a dog")) + "\n")
    library.add_captions(tmp_path / "job.jsonl")
    with library.database.write() as connection:
        connection.execute("UPDATE captions SET current = 0")
    assert library.add_captions(tmp_path / "job.jsonl").known == 1
    assert library.search("dog") == []


def test_a_nameless_draft_learns_its_model(library: captune.Library, tmp_path: Path) -> None:
    with library.database.write() as connection:
        connection.execute(
            "INSERT INTO captions(image, text, written_by, written) VALUES (3, 'a dog', 'model', ?)", (now(),)
        )
    (tmp_path / "job.jsonl").write_text(json.dumps(row("b/2.jpg", "a dog")) + "\n")
    assert library.add_captions(tmp_path / "job.jsonl").completed == 1
    assert rows(library) == [("b/2.jpg", "a dog", "model", "blip", 0.5, "cut", "draft", "2024-05-06T00:00:00Z")]


def csv(path: Path) -> Path:
    path.write_text("image,caption\nb/2.jpg,a dog\n")
    return path


def kohya(path: Path) -> Path:
    path.write_text(json.dumps({"2": {"caption": "a dog"}, "b/none": {"tags": "x"}}))
    return path


@pytest.mark.parametrize(("write", "name"), [(csv, "x.csv"), (kohya, "meta_cap.json")])
def test_files_of_others_are_a_person_s_unless_a_model_is_named(
    library: captune.Library, tmp_path: Path, write: Callable[[Path], Path], name: str
) -> None:
    file = write(tmp_path / name)
    library.add_captions(file, written_by="other-model")
    assert [each[:4] for each in rows(library)] == [("b/2.jpg", "a dog", "model", "other-model")]
    with library.database.write() as connection:
        connection.execute("DELETE FROM captions")
    library.add_captions(file)
    assert next(each[2:] for each in rows(library))[:-1] == ("person", "", None, "", "approved")


def test_lines_without_names_are_refused(library: captune.Library, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a dog\na cat\n")
    with pytest.raises(CaptuneError, match="no line names its image"):
        library.add_captions(tmp_path / "lines.txt")


def test_captune_s_own_caption_in_an_image_is_that_model_s_draft(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    Image.new("RGB", (20, 20), "red").save(path)
    mark = Mark("a red square", "", {"model": "blip", "date": "2024-05-06", "version": "1.0"})
    path.write_bytes(with_caption(path.read_bytes(), "a red square", mark))
    library = captune.Library(tmp_path, create=True)
    library.add()
    day = "2024-05-06T00:00:00Z"
    assert rows(library) == [("1.jpg", "a red square", "model", "blip", None, "", "draft", day)]
    (noted,) = library.database.connection.execute("SELECT provenance FROM captions").fetchone()
    assert json.loads(noted)["captune"] == "1.0"
