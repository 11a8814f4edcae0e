"""A library follows its folder: what is new, changed, moved, gone or back is told by the contents of the files."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import captune
from captune.core.errors import CaptuneError
from captune.images import verify
from captune.images.verify import ImageCheck, check_image
from captune.library import scan
from captune.library.folder_files import FolderFiles
from captune.library.history import editing


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that were opened; in this process, where that takes no time."""
    names: list[str] = []

    def here(paths: list[str], *, max_pixels: int, **more: Any) -> Iterator[ImageCheck]:
        for index, path in enumerate(paths):
            names.append(os.path.basename(path))
            found = check_image(path, max_pixels)
            if "reason" in found:
                yield ImageCheck(index, found["reason"], found["kind"])
            else:
                (width, height), thumb = found["size"], bytes.fromhex(found["thumb"])
                yield ImageCheck(index, None, "", width, height, int(found["hash"], 16), thumb, found["digest"])

    monkeypatch.setattr("captune.library.scan.verify", here)
    assert verify.verify is not here
    return names


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(6):
        draw(tmp_path / "photos" / f"day{number % 2}" / f"{number}.png", number)
        (tmp_path / "photos" / f"day{number % 2}" / f"{number}.txt").write_text(f"scene {number}\n")
    return tmp_path / "photos"


def captions(library: captune.Library) -> dict[str, str]:
    return {found.path: found.caption for found in library.search()}


def counts(report: Any) -> dict[str, int]:
    return {name: count for name, count in report.to_json().items() if count and name != "images"}


def test_what_is_known_is_not_opened_again(photos: Path, opened: list[str]) -> None:
    library = captune.Library(photos, create=True)
    assert counts(library.add()) == {"new": 6}
    draw(photos / "new.png", 50)
    opened.clear()
    assert counts(library.add()) == {"new": 1}
    assert opened == ["new.png"]
    assert captions(library)["day1/3.png"] == "scene 3"


def test_an_image_keeps_its_captions_wherever_it_lies(photos: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    one, three, five = (photos / "day1" / f"{number}.png" for number in (1, 3, 5))
    os.rename(one, photos / "elsewhere.png")
    for name in ("1", "3", "5"):
        (photos / "day1" / f"{name}.txt").unlink()
    for former, new in ((three, photos / "x"), (five, three), (photos / "x", five)):  # they change places
        os.rename(former, new)
    assert counts(library.add()) == {"moved": 3}
    found = captions(library)
    assert (found["elsewhere.png"], found["day1/3.png"], found["day1/5.png"]) == ("scene 1", "scene 5", "scene 3")
    assert "day1/1.png" not in found


def test_names_that_move_on_by_one(photos: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    for number in (4, 2, 0):
        (photos / "day0" / f"{number}.txt").unlink()
        os.rename(photos / "day0" / f"{number}.png", photos / "day0" / f"{number + 2}.png")
    assert counts(library.add()) == {"moved": 3}
    assert [captions(library)[f"day0/{number}.png"] for number in (2, 4, 6)] == ["scene 0", "scene 2", "scene 4"]


def test_what_is_gone_comes_back_with_its_captions(photos: Path, tmp_path: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    shutil.move(photos / "day0", tmp_path / "away")
    assert counts(library.add()) == {"gone": 3}
    assert len(captions(library)) == 3
    draw(photos / "day0" / "0.png", 77)  # another image with the name of one that is gone
    assert counts(library.add()) == {"new": 1}
    assert captions(library)["day0/0.png"] == ""
    shutil.move(tmp_path / "away", photos / "back")
    assert counts(library.add()) == {"moved": 3}
    assert captions(library)["back/4.png"] == "scene 4"


def test_a_changed_image_keeps_its_captions_and_a_copy_has_none(photos: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    draw(photos / "day0" / "2.png", 99)
    shutil.copy(photos / "day1" / "1.png", photos / "copy.png")
    os.utime(photos / "day1" / "3.png", (1, 1))
    assert counts(library.add()) == {"new": 1, "changed": 1}
    assert (captions(library)["day0/2.png"], captions(library)["copy.png"]) == ("scene 2", "")
    assert counts(library.add()) == {}


def test_names_that_are_no_text_and_images_that_are_none(photos: Path) -> None:
    odd = os.fsencode(photos) + b"/gr\xfcn.png"
    shutil.copy(photos / "day0" / "0.png", odd)
    (photos / "broken.jpg").write_bytes(b"no image")
    (photos / "link.png").symlink_to(photos / "nowhere.png")
    library = captune.Library(photos, create=True)
    assert counts(library.add()) == {"new": 9, "unreadable": 2}
    assert os.fsdecode(b"gr\xfcn.png") in captions(library)
    assert counts(library.add()) == {"unreadable": 2}


def test_a_stop_loses_no_image_that_was_opened(
    photos: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captune.library.scan._STEP", 2)
    library = captune.Library(photos, create=True)
    with pytest.raises(KeyboardInterrupt), stopped_after(4, monkeypatch):
        library.add()
    opened.clear()
    assert counts(captune.Library(photos).add()) == {"new": 6}
    assert opened == ["3.png", "5.png"]


@contextmanager
def stopped_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from captune.library import library

    def read(path: str) -> str:
        nonlocal count
        count -= 1
        if count < 0:
            raise KeyboardInterrupt
        return original(path)

    original = library.read_about
    with monkeypatch.context() as patch:
        patch.setattr(library, "read_about", read)
        yield


@contextmanager
def once_listed(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> Iterator[None]:
    """What happens after the next scan has listed the folder's files, and before it compares."""

    def make(files: FolderFiles) -> None:
        original(files)
        if not done:
            done.append(True)
            happens()

    done: list[bool] = []
    original = FolderFiles.make
    with monkeypatch.context() as patch:
        patch.setattr(FolderFiles, "make", make)
        yield
    assert done


def test_two_adds_at_once_and_files_that_come_and_move(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = captune.Library(photos, create=True)
    library.add()

    def meanwhile() -> None:
        draw(photos / "day0" / "x.png", 77).with_suffix(".txt").write_text("scene x\n")
        os.rename(photos / "day1" / "1.png", photos / "moved.png")
        (photos / "day1" / "1.txt").unlink()
        assert counts(captune.Library(photos).add()) == {"new": 1, "moved": 1}

    with once_listed(monkeypatch, meanwhile):
        assert counts(library.add()) == {}
    found = captions(library)
    assert (found["day0/x.png"], found["moved.png"], len(found)) == ("scene x", "scene 1", 7)
    assert counts(library.add()) == {}


def test_one_add_takes_away_what_comes_back_before_the_other_ends(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = captune.Library(photos, create=True)
    library.add()

    def open_new(*arguments: Any) -> None:
        original(*arguments)
        monkeypatch.setattr(scan, "_open_new", original)
        os.rename(photos / "day0" / "2.png", photos / "2.away")
        assert counts(captune.Library(photos).add()) == {"gone": 1}
        os.rename(photos / "2.away", photos / "day0" / "2.png")

    original = scan._open_new
    monkeypatch.setattr(scan, "_open_new", open_new)
    library.add()
    assert captions(library)["day0/2.png"] == "scene 2"
    assert counts(library.add()) == {}


def test_what_is_opened_and_moves_on_is_where_it_lies_in_the_end(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = captune.Library(photos, create=True)
    draw(photos / "new.png", 78)
    draw(photos / "short.png", 79)

    def meanwhile() -> None:
        (photos / "short.png").unlink()
        with once_listed(monkeypatch, lambda: os.rename(photos / "new.png", photos / "newer.png")):
            captune.Library(photos).add()
        captune.Library(photos).add()

    with once_listed(monkeypatch, meanwhile):
        assert counts(library.add()) == {}
    assert sorted(captions(library))[-1] == "newer.png"
    assert counts(library.add()) == {}


def test_a_link_to_a_folder_gives_its_images_another_path(photos: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    (photos / "above").symlink_to(photos / "day0")
    assert counts(library.add()) == {"moved": 3}
    assert captions(library)["above/0.png"] == "scene 0"


def test_a_folder_that_is_empty_now_is_most_likely_a_disk_that_is_away(photos: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    for each in photos.glob("day*"):
        shutil.rmtree(each)
    with pytest.raises(CaptuneError, match="holds no image any more"):
        library.add()
    assert len(captions(library)) == 6


def test_sidecars_that_changed_are_read_again(photos: Path) -> None:
    library = captune.Library(photos, create=True)
    library.add()
    (photos / "day0" / "0.txt").write_text("a better scene\nand another\n")
    (photos / "day0" / "2.caption").write_text("first paragraph\n\nsecond paragraph\n")
    library.add()
    rows = library.database.connection.execute(
        "SELECT text, current, written_by, status, of FROM captions c JOIN images i ON i.id = c.image "
        "WHERE path IN ('day0/0.png', 'day0/2.png') ORDER BY path, c.id"
    ).fetchall()
    assert [(row["text"], row["current"]) for row in rows] == [
        ("scene 0", 0), ("a better scene", 1), ("and another", 1),
        ("scene 2", 1), ("first paragraph\n\nsecond paragraph", 1),
    ]  # fmt: skip
    assert rows[1]["of"] is not None
    assert {(row["written_by"], row["status"]) for row in rows} == {("person", "approved")}


def test_captions_of_captune_are_drafts(photos: Path, tmp_path: Path) -> None:
    from captune.captions.row import CaptionRow
    from captune.captions.writers import open_writer
    from captune.core.records import Caption

    draw(photos / "x.png", 5)
    with open_writer("sidecar") as writer:
        writer.write(CaptionRow(str(photos / "x.png"), (Caption("a model's words", 0.5),), "ok", None, "m"))
    library = captune.Library(photos, create=True)
    library.add()
    (found,) = library.search("words")
    assert (found.path, found.written_by, found.status) == ("x.png", "model", "draft")


def test_keywords_that_captune_put_beside_captions_are_no_captions(photos: Path) -> None:
    from captune.captions.row import CaptionRow
    from captune.captions.tags.row import Keyword, TagRow
    from captune.captions.tags.writers import open_tag_writer
    from captune.captions.writers import open_writer
    from captune.core.records import Caption

    texts = {"model.png": None, "person.png": "what a person wrote, with care", "bare.png": None}
    for number, (name, text) in enumerate(texts.items()):
        draw(photos / name, 20 + number)
        if text is not None:
            (photos / name).with_suffix(".txt").write_text(text)
    with open_writer("sidecar") as writer:
        writer.write(CaptionRow(str(photos / "model.png"), (Caption("a model's words", 0.5),), "ok", None, "m"))
    with open_tag_writer("sidecar", None, io.StringIO()) as tags:
        for name in texts:
            tags.write(TagRow(str(photos / name), (Keyword("dog"), Keyword("red, green"))))
    assert (photos / "person.txt").read_text() == "what a person wrote, with care, dog, red, green\n"
    library = captune.Library(photos, create=True)
    library.add()
    rows = {row.path: row for row in library.search(tag="dog")}
    assert {name: (row.caption, row.status) for name, row in rows.items()} == {
        "model.png": ("a model's words", "draft"),
        "person.png": ("what a person wrote, with care", "approved"),
        "bare.png": ("", ""),
    }
    assert library.write(under="").changed == ()
    with editing(library.database, "jo", "beside") as editor:
        editor.write_caption(rows["model.png"].image, "better words")
    assert library.write().written == 1
    assert (photos / "model.txt").read_text() == "better words, dog, red, green\n"
    assert (photos / "person.txt").read_text() == "what a person wrote, with care, dog, red, green\n"
    library.add()
    assert [row.caption for row in library.search("better", tag="dog")] == ["better words"]
