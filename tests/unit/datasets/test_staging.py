"""What is being prepared takes the place of what was, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from captune.datasets.prepared import SPLITS, staged


class Killed(BaseException):
    """What nothing catches."""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_exchange_that_is_killed_anywhere_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, old = os.rename, {SPLITS: b"old", "train.csv": b"old", "val.csv": b"old"}

    def fill(folder: Path, data: bytes, names: Iterable[str]) -> None:
        for name in names:
            (folder / name).write_bytes(data if name != SPLITS else b'{"splits": {"train": {}, "val": {}, "test": {}}}')

    def killed_at(last: int) -> bool:
        """An exchange, and the start after it, end before their renames number `last`; whether one of them did."""
        out, count = tmp_path / f"out-{last}", iter(range(1000))
        out.mkdir()
        fill(out, b"old", old)
        before = files(out)

        def counted(a: Path, b: Path) -> None:
            if next(count) == last:
                raise Killed
            rename(a, b)

        monkeypatch.setattr(os, "rename", counted)
        done = False
        try:
            with staged(out) as stage:
                fill(stage, b"new", [SPLITS, "test.csv", "train.csv"])
                new = files(stage)
            done = True
        except Killed:
            next(out.glob(".preparing-*")).rename(out / ".preparing-999999999")
        for kill in (0, 1, 2, 1000):  # the starts after it are killed as well, but for the last
            count = iter(range(last - kill, 1000))
            monkeypatch.setattr(os, "rename", counted)
            with suppress(Killed, ZeroDivisionError), staged(out):
                raise ZeroDivisionError
            monkeypatch.undo()
        assert not list(out.glob(".preparing-*"))
        assert files(out) == (new if done else before)
        return not done

    assert [killed_at(last) for last in range(7)] == [True] * 6 + [False]
