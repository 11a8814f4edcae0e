"""The vectors of a library: the nearest are those of plain arithmetic, and a damaged file is told and mended."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import captune
from captune.core.errors import CaptuneError
from captune.library.vectors import VectorFile
from stops import stopped


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    opened = captune.Library(tmp_path, create=True)
    with opened.database.write() as connection:
        connection.executemany(
            "INSERT INTO images(id, path, digest, bytes, modified, added) VALUES (?, ?, ?, 1, 1, '')",
            [(number, f"{number}.jpg", str(number)) for number in range(1, 51)],
        )
    return opened


def test_the_nearest_and_a_file_that_is_cut_off(library: captune.Library) -> None:
    rows = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    file = VectorFile(library.database, "m", "digest", 16)
    file.add(range(1, 31), rows[:30])
    file.add(range(31, 51), rows[30:])
    query = rows[7] + 0.1 * rows[9]
    images, cosines = file.read().nearest(query, 5)
    wanted = np.argsort(-(rows.astype(np.float16).astype(np.float32) @ query))[:5] + 1
    assert images.tolist() == wanted.tolist()
    assert cosines[0] == pytest.approx(float(rows[7].astype(np.float16).astype(np.float32) @ query), rel=1e-5)
    assert library.problems() == []

    file.path.write_bytes(file.path.read_bytes()[:-40])
    assert [problem.partition(":")[0].endswith("or it is cut off") for problem in library.problems()] == [True]
    with pytest.raises(CaptuneError, match="cut off"):
        file.read()
    with pytest.raises(CaptuneError, match="cut off"):
        file.add([1], rows[:1])  # nothing hides it
    assert library.forget_damaged_vectors() == 1
    assert library.problems() == []
    assert len(file.missing()) == 50
    file.add(range(1, 51), rows)
    assert file.read().nearest(query, 5)[0].tolist() == wanted.tolist()


def test_few_of_many_are_looked_up_and_the_same(library: captune.Library) -> None:
    chance = np.random.default_rng(1)
    rows = chance.standard_normal((50, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    file = VectorFile(library.database, "m", "digest", 16)
    file.add(range(1, 51), rows)
    file.add([3, 4], rows[:2])  # embedded again
    with library.database.write() as connection:
        connection.execute("UPDATE images SET gone = '' WHERE id <= 20 AND id % 2")
        connection.execute("UPDATE images SET digest = 'other' WHERE id = 8")
    everything = file.read()
    for query in (*rows[:8], -rows[0]):
        for count, among in ((3, None), (5, None), (2, range(1, 30)), (1, [2]), (3, [5, 7]), (60, None)):
            wanted = everything.nearest(query, count, among)
            found = file.nearest(query, count, among)
            assert found[0].tolist() == wanted[0].tolist()
            assert found[1].tolist() == wanted[1].tolist()


def test_vectors_of_contents_that_changed_meanwhile_are_made_again(library: captune.Library) -> None:
    rows = np.eye(2, 16, dtype=np.float32)
    file = VectorFile(library.database, "m", "digest", 16)
    todo = file.missing()[:2]
    with library.database.write() as connection:
        connection.execute("UPDATE images SET digest = 'other' WHERE id = ?", (todo[0][0],))
    file.add([image for image, _, _ in todo], rows, [digest for _, _, digest in todo])
    assert file.nearest(rows[0], 5)[0].tolist() == [todo[1][0]]
    assert todo[0][0] in {image for image, _, _ in file.missing()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process is copied")
def test_a_kill_between_two_files_costs_a_batch(library: captune.Library, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(2).standard_normal((51, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    log = os.open(library.folder / "log", os.O_CREAT | os.O_APPEND | os.O_RDWR)
    flush = os.fsync

    def noted(handle: int) -> None:
        sys.audit("os.utime", str(library.folder))  # a moment as well: written, and not in the database
        flush(handle)

    def embed() -> None:
        file = VectorFile(captune.Library(library.folder).database, "m", "digest", 16)
        todo = [image for image, _, _ in file.missing()]
        for start in range(0, len(todo), 20):
            some = todo[start : start + 20]
            os.write(log, bytes(some))
            file.add(some, rows[some])

    monkeypatch.setattr(os, "fsync", noted)
    library.database.close()
    kills = 0
    for moment in (1, 2, 3, 4, 5, 6, 3, 4, 9):
        kills += stopped(embed, library.folder, moment) == -9
        file = VectorFile(library.database, "m", "digest", 16)
        found = file.read()
        there = found.images >= 0
        assert np.array_equal(found.rows[there], rows[found.images[there]].astype(np.float16))
        assert library.problems() == []
        library.database.close()
    times = Counter(os.pread(log, 1 << 20, 0))
    assert kills >= 6
    assert sorted(times) == sorted(found.images) == list(range(1, 51))
    assert sum(times.values()) <= 50 + 20 * kills
    assert library.status().vectors == {"m": 50}
    assert file.path.stat().st_size == 50 * 16 * 2
    os.close(log)
