"""A library whose file is damaged says so with the next step, and comes back with what can be read and its copy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import captune
from captune.core.errors import CaptuneError
from captune.library.database import DamagedLibrary
from captune.library.disk import on_network
from captune.library.repair import newest_backup

COUNT = 600


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    """Images with a caption each, in a file that holds everything."""
    opened = captune.Library(tmp_path, create=True)
    with opened.database.write() as connection:
        connection.executemany(
            "INSERT INTO images(id, path, digest, bytes, modified, added) VALUES (?, ?, ?, 1, 1, '')",
            [(number, f"{number:04d}.jpg", f"{number:064d}") for number in range(1, COUNT + 1)],
        )
        connection.executemany(
            "INSERT INTO captions(image, text, written_by, status, written) VALUES (?, ?, 'person', 'approved', '')",
            [
                (number, f"word{number} of a caption that is long enough to fill pages")
                for number in range(1, COUNT + 1)
            ],
        )
        connection.execute("INSERT INTO keywords VALUES (1, 'a keyword')")
    opened.back_up()
    return opened


def correct(library: captune.Library, image: int, text: str) -> None:
    """What a person does after the last copy."""
    with library.database.write() as connection:
        connection.execute("UPDATE captions SET current = 0 WHERE image = ?", (image,))
        connection.execute(
            "INSERT INTO captions(image, text, written_by, status, written) VALUES (?, ?, 'person', 'approved', '')",
            (image, text),
        )


def texts(folder: Path) -> dict[int, str]:
    database = captune.Library(folder).database
    rows = database.connection.execute("SELECT image, text FROM captions WHERE current").fetchall()
    database.close()
    return {row["image"]: row["text"] for row in rows}


def is_damaged(folder: Path) -> bool:
    try:
        return bool(captune.Library(folder, create=True).problems())
    except DamagedLibrary as error:
        return "--repair" in (error.hint or "")


def flip(path: Path) -> None:
    """Other bytes in two leaves of the table of captions, as a failing disk leaves them."""
    data = bytearray(path.read_bytes())
    for number in (200, 400):
        page = data.index(f"word{number} of a".encode()) // 4096
        data[page * 4096 : page * 4096 + 40] = os.urandom(4) + b"\xff" * 36
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "stays"),
    [
        (flip, True),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), None),
        (lambda path: path.write_bytes(b""), False),
        (lambda path: path.write_bytes(b"no database at all" * 500), False),
        (lambda path: path.unlink(), False),
    ],
    ids=["bytes", "cut", "empty", "else", "gone"],
)
def test_the_way_back(library: captune.Library, damage: Callable[[Path], None], stays: bool | None) -> None:
    folder, path = library.folder, library.database.path
    before = texts(folder)
    correct(library, 1, "what a person wrote since")
    library.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    library.database.close()
    damage(path)
    assert is_damaged(folder)

    done = captune.Library.repair(folder)
    assert done is not None
    assert done.damaged is not None
    found = captune.Library(folder)
    assert found.problems() == []
    assert {number: text for number, text in texts(folder).items() if number != 1}.items() >= {
        number: text for number, text in before.items() if number != 1
    }.items()
    if stays is not None:
        assert ("what a person wrote since" in texts(folder).values()) is stays
    assert [each.path for each in found.search("word300")] == ["0300.jpg"]
    assert captune.Library.repair(folder) is None


def test_an_index_alone_is_made_anew(library: captune.Library) -> None:
    with library.database.write() as connection:
        connection.execute("INSERT INTO words(words) VALUES ('delete-all')")
    assert len(library.problems()) == 1
    done = captune.Library.repair(library.folder)
    assert done is not None
    assert done.damaged is None
    assert library.problems() == []
    assert len(library.search("word300")) == 1


def test_without_a_copy_nothing_is_changed(tmp_path: Path) -> None:
    library = captune.Library(tmp_path, create=True)
    library.database.close()
    library.database.path.write_bytes(b"no database" * 1000)
    with pytest.raises(CaptuneError, match="no copy") as raised:
        captune.Library.repair(tmp_path)
    assert "captune library import" in (raised.value.hint or "")
    assert library.database.path.read_bytes() == b"no database" * 1000
    assert [each.name for each in library.own.iterdir() if each.is_dir()] == []


def test_a_copy_that_is_not_whole_is_not_taken(library: captune.Library) -> None:
    (library.own / "backups" / "9999.db").write_bytes(b"half a copy" * 1000)
    found = newest_backup(library.own)
    assert found is not None
    assert found.name != "9999.db"


def test_a_folder_that_may_not_be_written_can_be_searched(library: captune.Library) -> None:
    library.database.close()
    for each in (library.database.path, library.own, library.folder):
        each.chmod(0o555 if each.is_dir() else 0o444)
    try:
        if os.getuid() == 0:  # who may write everywhere
            for parent in list(library.folder.parents)[:-2]:
                parent.chmod(parent.stat().st_mode | 0o011)
            os.seteuid(65534)
        opened = captune.Library(library.folder)
        assert len(opened.search("word7")) == 1
        with pytest.raises(CaptuneError, match="may not be written") as raised:
            correct(opened, 1, "new")
        assert "--library DIR" in (raised.value.hint or "")
        opened.database.close()
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for each in (library.folder, library.own, library.database.path):
            each.chmod(0o755)


def test_disks_of_other_machines_are_known(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    lines = ("/dev/sda / ext4 rw", "nas:/a /mnt/my\\040photos nfs4 rw", "/dev/sdb /mnt/my\\040photos/own ext4 rw")
    mounts.write_text("".join(f"{line} 0 0\n" for line in lines))
    assert on_network(Path("/mnt/my photos/2024/library.db"), str(mounts))
    assert not on_network(Path("/mnt/my photos/own/library.db"), str(mounts))
    assert not on_network(Path("/mnt/my photos of old/library.db"), str(mounts))


def test_an_import_that_stops_leaves_nothing_and_goes_on(library: captune.Library, tmp_path: Path) -> None:
    out = tmp_path / "library.jsonl"
    library.export(out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-1]) + "{half a line")
    with pytest.raises(CaptuneError, match=f"line {len(lines)}: no JSON"):
        captune.Library(library.folder, tmp_path / "new", create=True).import_from(out)
    out.write_text("".join(lines))
    new = captune.Library(library.folder, tmp_path / "new")
    assert new.import_from(out) == COUNT
    assert len(new.search("word300")) == 1
