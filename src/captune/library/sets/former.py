"""Copies of the files of a data set or a job as they were before they were written to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from captune.core.files import disk_error, sync_folder, sync_tree

# Of the newest copies so many stay.
_NEWEST = 4
_HALF = ".part"


def copy_former(folder: Path, names: Iterable[str], former: Path) -> None:
    """Copy files of a folder into `former`, which is whole or absent; raises `CaptuneError`.

    What a process that was killed left half copied in its place goes; no other may copy there at the same time.
    """
    half = former.with_name(former.name + _HALF)
    try:
        for left in former.parent.glob(f"*{_HALF}"):
            shutil.rmtree(left)
        half.mkdir(parents=True)
        for name in names:
            shutil.copy2(folder / name, half / name)
        sync_tree(half)
        half.rename(former)
        sync_folder(former.parent)
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        raise disk_error(error, former) from error


def prune_former(copies: Path) -> None:
    """Remove copies, but for the first of each file and the newest ones."""
    folders = sorted(each for each in copies.glob("*") if each.suffix != _HALF)
    known: set[str] = set()
    for number, folder in enumerate(folders):
        names = {path.name for path in folder.iterdir()}
        if names <= known and number < len(folders) - _NEWEST:
            shutil.rmtree(folder, ignore_errors=True)  # the next time
        known |= names
