"""A prepared folder that appears whole or not at all, and whose predecessor stays until then."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import disk_error, is_other_process, read_json, staging_folder, write_json
from captune.core.files.paths import MARK
from captune.datasets.prepared import DUPLICATES, IMAGES, PROBLEMS, SPLITS

_STAGE = ".preparing-"
# In the stage: what `out` held before, and which names are being exchanged.
_OLD, _EXCHANGE = ".old", ".exchange"


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends well, its contents take the place of what `out` held.

    `out` may be missing, empty, or prepared before (then files that are not captune's stay
    where they are); anything else raises `UsageError`. An error or Ctrl-C inside the
    block leaves `out` as it was.
    """
    old = _old_names(out)
    # A stage with a journal stays: the next start undoes what could not be undone now.
    with staging_folder(out / f"{_STAGE}{os.getpid()}", out, journal=_EXCHANGE) as stage:
        yield stage
        with _signals_deferred():
            _exchange(stage, out, old)


def is_prepared(folder: Path) -> bool:
    """Whether `captune prepare` has left its mark in the folder."""
    return (folder / SPLITS).is_file()


def _old_names(out: Path) -> list[str]:
    """What an earlier `captune prepare` left in `out`, `splits.json` first."""
    if not out.exists():
        return []
    if not out.is_dir():
        raise UsageError(f"--out {out} is a file.", "Name a folder.")
    try:
        there = sorted(entry.name for entry in out.iterdir())
    except OSError as error:
        raise disk_error(error, out) from error
    for name in [name for name in there if name.startswith(_STAGE)]:
        if is_other_process(name.removeprefix(_STAGE)):
            raise CaptuneError(f"Another `captune prepare` is writing to {out}.", "Wait for it, or end it first.")
        _undo(out / name, out)
        shutil.rmtree(out / name, ignore_errors=True)
        there = sorted(entry.name for entry in out.iterdir())
    if is_prepared(out):
        summary = read_json(out / SPLITS)
        splits = summary.get("splits", {}) if isinstance(summary, dict) else {}
        names = [SPLITS, MARK, *(n for s in splits for n in (f"{s}.csv", f"{s}_split.jsonl")), PROBLEMS, DUPLICATES]
        if isinstance(summary, dict) and summary.get("pictures_in_folder"):
            names.append(IMAGES)
        return [name for name in names if name in there]
    if set(there) <= {PROBLEMS}:
        return there
    raise UsageError(
        f"--out {out} holds other files ({', '.join(there[:4])}{', …' if len(there) > 4 else ''}) "
        "and is not a prepared folder.",
        "Name a new or an empty folder.",
    )


def _exchange(stage: Path, out: Path, old: list[str]) -> None:
    new = sorted((entry.name for entry in stage.iterdir()), key=lambda name: name == SPLITS)
    blocked = [name for name in new if name not in old and (out / name).exists()]
    if blocked:
        raise UsageError(f"--out {out} holds a {blocked[0]} that captune did not write.", "Name a new folder.")
    write_json(stage / _EXCHANGE, {"old": old, "new": new})
    (stage / _OLD).mkdir()
    try:
        for name in old:
            os.rename(out / name, stage / _OLD / name)
        for name in new:
            os.rename(stage / name, out / name)
    except OSError as error:
        _undo(stage, out)
        raise disk_error(error, out) from error
    (stage / _EXCHANGE).unlink()


def _undo(stage: Path, out: Path) -> None:
    """Take back an exchange that did not come to its end, after a kill as well; after a kill in here too."""
    if not (stage / _EXCHANGE).is_file():
        return
    names = read_json(stage / _EXCHANGE)
    if any((stage / name).exists() for name in names["new"]):  # else all of the new is in its place
        for name in names["new"]:
            if not (stage / name).exists() and (name not in names["old"] or (stage / _OLD / name).exists()):
                os.rename(out / name, stage / name)
        for name in names["old"]:
            if (stage / _OLD / name).exists():
                os.rename(stage / _OLD / name, out / name)
    (stage / _EXCHANGE).unlink()


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before: dict[int, Any] = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
