"""Captions leave a library for files that other programs read, and nothing that a person wrote there is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

import captune
from captune.cli.main import run
from captune.core.files.existing import LEDGER, Ledger
from captune.images.metadata.files import existing_keywords, existing_marks, existing_texts, with_caption, with_fields
from captune.images.metadata.keywords import KeywordWriter
from captune.images.metadata.xmp import with_caption as packet_with_caption
from captune.library.beside import read_sidecars
from captune.library.database import now
from captune.library.history import editing

CAPTIONS = {
    "1.png": [("a cat", "person", "approved"), ("a kitten", "model", "approved"), ("a dog", "model", "draft")],
    "2.png": [("a a a", "model", "draft")],
    "day/3.jpg": [("a bird", "person", "approved")],
    "day/3.png": [("a plane", "person", "approved")],
    "day/4.png": [],
}


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    opened = captune.Library(tmp_path, create=True)
    (tmp_path / "day").mkdir()
    with opened.database.write() as connection:
        for path, captions in CAPTIONS.items():
            Image.new("RGB", (20, 20), "red").save(tmp_path / path)
            state = os.stat(tmp_path / path)
            image = connection.execute(
                "INSERT INTO images(path, digest, bytes, modified, added) VALUES (?, ?, ?, ?, ?)",
                (path, path, state.st_size, state.st_mtime_ns, now()),
            ).lastrowid
            connection.executemany(
                "INSERT INTO captions(image, text, written_by, status, written) VALUES (?, ?, ?, ?, ?)",
                [(image, *caption, now()) for caption in captions],
            )
    return opened


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}


def current(library: captune.Library, path: str) -> list[str]:
    query = "SELECT text FROM captions WHERE current AND image = (SELECT id FROM images WHERE path = ?) ORDER BY id"
    return [row["text"] for row in library.database.connection.execute(query, (path,))]


def read_in(library: captune.Library) -> int:
    return read_sidecars(library.database, str(library.folder), now=now())


def test_approved_captions_lie_beside_their_images_once(library: captune.Library, tmp_path: Path) -> None:
    assert library.write(dry_run=True).written == 3
    assert texts(tmp_path) == {}
    assert library.write().written == 3
    assert texts(tmp_path) == {
        "1.txt": "a cat\na kitten\n",
        "day/3.txt": "a bird\n",
        "day/3.png.txt": "a plane\n",  # 3.txt is of 3.jpg, also where that is not written
    }
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.txt")}
    again = library.write()
    assert (again.written, again.unchanged) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_in(library) == 0
    assert not Ledger(tmp_path / LEDGER).has("1.txt", "a cat")  # captune caption has to leave it alone
    assert library.write(under="day", by="person", sidecar_suffix=".caption").written == 2
    assert library.write(status="draft").written == 2
    assert texts(tmp_path)["2.txt"] == "a a a\n"
    assert Ledger(tmp_path / LEDGER).has("2.txt", "a a a")


def test_an_edit_in_a_sidecar_corrects_the_caption_that_was_written(library: captune.Library, tmp_path: Path) -> None:
    library.write()
    (tmp_path / "1.txt").write_text("a cat\na small kitten\n")
    report = library.write()
    assert (report.changed, report.unchanged) == (("1.png",), 2)
    assert texts(tmp_path)["1.txt"] == "a cat\na small kitten\n"
    assert read_in(library) == 1
    assert current(library, "1.png") == ["a cat", "a dog", "a small kitten"]
    assert library.write().unchanged == 3


def test_a_caption_that_left_the_sidecar_does_not_give_way_to_an_edit(library: captune.Library, tmp_path: Path) -> None:
    (tmp_path / "day/4.txt").write_text("a boat\n")
    read_in(library)
    with editing(library.database, "jo", "beside") as editor:
        editor.write_caption(5, "a ship")
    with library.database.write() as connection:
        connection.execute("UPDATE captions SET status = 'rejected' WHERE text = 'a boat'")
    library.write()
    assert texts(tmp_path)["day/4.txt"] == "a ship\n"
    (tmp_path / "day/4.txt").write_text("a ferry\n")
    read_in(library)
    assert current(library, "day/4.png") == ["a boat", "a ferry"]


def test_a_sidecar_that_the_library_never_read_stays(
    library: captune.Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "1.txt").write_text("my own words\n")
    (tmp_path / "day/3.jpg.txt").write_text("a bird\n")  # says it already, under its longer name
    (tmp_path / "day/3.png.txt").mkdir()
    assert run(["library", "write", str(tmp_path)]) == 3
    printed = capsys.readouterr().err
    assert "1.png: somebody changed" in printed
    assert f"captune library add {tmp_path}" in printed
    assert "day/3.png: Cannot write" in printed
    assert (tmp_path / "1.txt").read_text() == "my own words\n"
    assert not (tmp_path / "day/3.txt").exists()
    read_in(library)
    assert library.write().changed == ()
    assert (tmp_path / "1.txt").read_text() == "a cat\nmy own words\na kitten\n"


def test_after_a_stop_the_same_command_goes_on(library: captune.Library, tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("a cat\na kitten\n")  # written, and not noted yet
    (tmp_path / "day/3.jpg").unlink()
    report = library.write()
    assert (report.written, report.unchanged) == (1, 1)
    assert report.failed == {"day/3.jpg": "it is no file any more"}
    (tmp_path / "1.txt").write_text("a tomcat\na kitten\n")
    read_in(library)
    assert current(library, "1.png") == ["a kitten", "a dog", "a tomcat"]


def described(path: Path) -> tuple[list[str], list[str], list[str]]:
    """A person's words in an image, captions with captune's mark, and keywords."""
    data, packet = path.read_bytes(), path.with_name(path.name + ".xmp")
    beside = packet.read_bytes() if packet.exists() else None
    marks = [mark.caption for mark in existing_marks(data, beside)]
    return existing_texts(data, beside), marks, existing_keywords(data, beside).keywords()


def test_captions_and_keywords_go_into_the_images_once(library: captune.Library, tmp_path: Path) -> None:
    keywords = [(1, "indoors"), (1, "Pets"), (5, "sea")]
    with library.database.write() as connection:
        connection.executemany("INSERT INTO keywords VALUES (?, ?)", keywords)
        connection.execute("INSERT INTO embedders VALUES (1, 'clip', 'ab', 2, 1)")
        connection.execute("INSERT INTO vectors VALUES (1, 0, 1, '1.png')")
    pixels = Image.open(tmp_path / "1.png").tobytes()
    assert library.write(to="xmp", keywords=True, dry_run=True).written == 4
    assert described(tmp_path / "1.png") == ([], [], [])
    replaced: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        replace = os.replace
        patch.setattr(os, "replace", lambda old, new: (replaced.append(str(new)), replace(old, new)))
        assert library.write(to="xmp", keywords=True).written == 4
    assert replaced.count(str(tmp_path / "1.png")) == 1  # a stop leaves it as it was, or whole
    assert described(tmp_path / "1.png") == (["a cat"], [], ["indoors", "Pets"])
    assert described(tmp_path / "day/4.png") == ([], [], ["sea"])
    assert Image.open(tmp_path / "1.png").tobytes() == pixels
    again = library.write(to="xmp", keywords=True)
    assert (again.written, again.unchanged) == (0, 5)
    of_vector = "SELECT vectors.digest = images.digest FROM vectors JOIN images ON images.id = image"
    assert library.database.connection.execute(of_vector).fetchone()[0]  # not embedded again for its fields
    (tmp_path / "1.png").rename(tmp_path / "6.png")
    report = library.add()
    assert (report.changed, report.moved) == (0, 1)
    described_anew = with_caption((tmp_path / "6.png").read_bytes(), "a tiger")
    (tmp_path / "6.png").write_bytes(described_anew)
    library.add()
    assert current(library, "6.png") == ["a kitten", "a dog", "a tiger"]  # in the place of "a cat"
    assert library.write(to="xmp", status="draft").written == 2
    assert described(tmp_path / "2.png") == ([], ["a a a"], [])
    assert current(library, "2.png") == ["a a a"]


def test_keywords_that_were_taken_away_go_from_the_image(library: captune.Library, tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(with_fields(path.read_bytes(), KeywordWriter(["sea", "Dog", "cat"], ["Dog"])))
    library.add()
    assert library.write(to="xmp", keywords=True).written == 3
    with editing(library.database, "jo", "keywords") as editor:
        editor.set_keywords(1, remove=["sea"], add=["animal"])
    before = path.stat().st_ino
    assert library.write(to="xmp", keywords=True, dry_run=True).written == 1
    assert path.stat().st_ino == before
    library.write(to="xmp", keywords=True)
    read = existing_keywords(path.read_bytes())
    assert (read.keywords(), read.own) == (["Dog", "cat", "animal"], ["Dog"])
    assert run(["library", "write", str(tmp_path), "--keywords"]) == 2


@pytest.mark.parametrize("name", ["1.png", "5.gif"])
def test_an_edit_in_an_image_corrects_the_caption_that_was_written(
    name: str, library: captune.Library, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "5.gif")  # holds no XMP: a packet lies beside it
    library.add()
    number = int(library.database.connection.execute("SELECT id FROM images WHERE path = ?", (name,)).fetchone()[0])
    with editing(library.database, "jo", "captions") as editor:
        former = editor.write_caption(number, "a cat")
    with editing(library.database, "jo", "captions") as editor:
        editor.write_caption(number, "a tomcat", of=former)
    path = tmp_path / name
    packet = tmp_path / f"{name}.xmp"
    packet.write_text("<somebody's own")
    assert library.write(to="xmp").failed == {name: f"{name}.xmp beside it is no XMP packet that could be changed"}
    assert packet.read_text() == "<somebody's own"
    packet.unlink()
    assert library.write(to="xmp").written == 1
    for text in ("a big cat", "a cat"):  # also one that stood there before
        if name == "5.gif":
            packet = tmp_path / "5.gif.xmp"
            packet.write_bytes(packet_with_caption(packet.read_bytes(), text))
        else:
            path.write_bytes(with_caption(path.read_bytes(), text))
        assert library.write(to="xmp").changed == (name,)
        assert described(path)[0] == [text]
        library.add()
        assert text in current(library, name)
        assert library.write(to="xmp").changed == ()
        assert described(path)[0] == [text]
