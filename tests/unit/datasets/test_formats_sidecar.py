"""Images with texts beside them: what pairs is taken, what does not is told."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from sources import jpeg, records, write


def test_sidecars(tmp_path: Path) -> None:
    for name in ("train/a.jpg", "train/deep/b.PNG", "test/c.jpg", "test/alone.jpg", "test/empty.jpg"):
        write(tmp_path / name, jpeg(1))
    write(tmp_path / "train/a.txt", "A dog, a cat\r\nEin Straßenhund\r\n\r\n")
    write(tmp_path / "train/deep/b.txt", "A bird")
    write(tmp_path / "test/c.txt", "\ufeffA fish | two\n")
    write(tmp_path / "test/empty.txt", " \n")
    write(tmp_path / "test/lost.txt", "nobody")
    write(tmp_path / "README.txt", "about")
    name, found, _, problems = records(tmp_path)
    assert name == "sidecar"
    assert [(record.id, record.split, record.references) for record in found] == [
        ("test/c.jpg", "test", ("A fish | two",)),
        ("train/a.jpg", "train", ("A dog, a cat", "Ein Straßenhund")),
        ("train/deep/b.PNG", "train", ("A bird",)),
    ]
    assert {(problem.where, problem.reason) for problem in problems} == {
        ("test/alone.jpg", "there is no alone.txt beside it"),
        ("test/empty.jpg", "empty.txt beside it is empty"),
        ("test/lost.txt", "there is no image of that name beside it"),
    }


def test_one_bad_sidecar_costs_one_image(tmp_path: Path) -> None:
    texts: dict[str, bytes] = {
        "utf16": "Ünicode, by Windows".encode("utf-16"), "utf16be": codecs.BOM_UTF16_BE + "Größe".encode("utf-16-be"),
        "bom": b"\xef\xbb\xbfA cat", "good": b"A dog", "latin": b"caf\xe9", "half": b"\xff\xfeA\xd8",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:7b\n", "zero": b"a\0b\0", "empty": b"",
    }  # fmt: skip
    for name, text in texts.items():
        write(tmp_path / f"{name}.jpg", jpeg(1))
        write(tmp_path / f"{name}.txt", text)
    for name in ("folder", "gone"):
        write(tmp_path / f"{name}.jpg", jpeg(1))
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    name, found, _, problems = records(tmp_path)
    assert name == "sidecar"
    assert {record.id: record.references for record in found} == {
        "utf16.jpg": ("Ünicode, by Windows",), "utf16be.jpg": ("Größe",), "bom.jpg": ("A cat",), "good.jpg": ("A dog",),
    }  # fmt: skip
    told = {problem.where: problem.reason for problem in problems}
    assert told.keys() == {f"{name}.jpg" for name in ("latin", "half", "lfs", "zero", "empty", "folder", "gone")}
    assert told["latin.jpg"] == "latin.txt beside it is not UTF-8 (byte 0xe9 at offset 3)"
    assert told["folder.jpg"] == "folder.txt beside it is a folder"
    assert "Git LFS" in told["lfs.jpg"]
    assert "cannot be read" in told["gone.jpg"]


def test_where_no_sidecar_can_be_used_the_reasons_are_shown(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", jpeg(1))
    write(tmp_path / "a.txt", b"caf\xe9")
    with pytest.raises(CaptuneError, match=r"a\.jpg: a\.txt beside it is not UTF-8"):
        records(tmp_path)


def test_endings_of_sidecars(tmp_path: Path) -> None:
    """Any case, `dog.jpg.txt` as captune names a second one, JSON as img2dataset writes it, and never a guess."""
    for name in ("a.JPG", "b.jpg", "b.png", "c.jpg", "d.jpg", "e.x.jpg"):
        write(tmp_path / name, jpeg(1))
    texts = {
        "a.TXT": "A", "b.txt": "B of jpg", "b.png.txt": "B of png", "c.json": '{"caption": "C", "url": "u"}',
        "d.txt": "one", "d.TXT": "another", "e.x.txt": "E", "stats.json": "{}",
    }  # fmt: skip
    for name, text in texts.items():
        write(tmp_path / name, text)
    name, found, _, problems = records(tmp_path)
    assert name == "sidecar"
    assert {record.id: record.references for record in found} == {
        "a.JPG": ("A",), "b.jpg": ("B of jpg",), "b.png": ("B of png",), "c.jpg": ("C",), "e.x.jpg": ("E",),
    }  # fmt: skip
    assert [(problem.where, problem.reason) for problem in problems] == [
        ("d.jpg", "d.TXT and d.txt lie beside it, and nothing says which is meant")
    ]


def test_json_beside_images_alone(tmp_path: Path) -> None:
    write(tmp_path / "00000" / "1.jpg", jpeg(1))
    write(tmp_path / "00000" / "1.json", '{"caption": "A dog", "status": "success"}')
    name, found, _, _ = records(tmp_path)
    assert (name, [record.references for record in found]) == ("sidecar", [("A dog",)])
    write(tmp_path / "00000" / "1.json", '{"shapes": []}')
    with pytest.raises(CaptuneError, match="No captions were recognised"):
        records(tmp_path)
