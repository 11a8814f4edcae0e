"""Folders that are whole or absent: filled beside their place, synced, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import disk_error, is_running, part_path, sync_folder, sync_tree


@contextmanager
def atomic_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to fill, which appears at `out` only when the block ends without an error.

    `out` may be missing or empty; anything else raises `UsageError`. What a process that was killed left
    behind is cleared away by the next one with the same `out`.
    """
    target = Path(os.path.abspath(Path(out).expanduser()))
    check_free(target)
    for left in target.parent.glob(".*.part"):
        owner = left.name.split(".")[-2]
        if left == part_path(target, owner) and not is_other_process(owner):
            shutil.rmtree(left, ignore_errors=True)
    with staging_folder(part_path(target, os.getpid()), target) as stage:
        try:
            yield stage
            sync_tree(stage)
            if target.is_dir():
                target.rmdir()
            os.rename(stage, target)
            sync_folder(target.parent)
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith((str(stage), str(target))):
                raise
            raise disk_error(error, target) from error


@contextmanager
def staging_folder(stage: Path, out: Path, *, journal: str = "") -> Iterator[Path]:
    """Make `stage`, in which the contents of `out` are prepared, with its parents.

    In the end it is removed, as are the parents that are empty. While it holds a file `journal`, it stays.
    """
    made = folders_to_make(stage.parent)
    try:
        stage.parent.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
    except OSError as error:
        raise disk_error(error, out) from error
    try:
        yield stage
    finally:
        if not (journal and (stage / journal).exists()):
            shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def check_free(out: Path) -> None:
    """Raise `UsageError` where `out` is neither missing nor an empty folder."""
    if out.is_dir():
        if any(out.iterdir()):
            raise UsageError(f"The folder {out} is not empty.", "Choose another with --out, or remove it first.")
    elif out.exists() or out.is_symlink():
        raise UsageError(f"--out {out} is a file.", "Name a folder.")


class OutputFolders:
    """Folders that something is written into: one that is removed or replaced meanwhile is an error."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    @property
    def folders(self) -> list[Path]:
        return [*self._known]

    def check(self, folder: Path) -> None:
        """Make a folder the first time; raise `CaptuneError` where it is not that one any more."""
        known = self._known.get(folder)
        if known is None:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            found = os.stat(folder)
        except FileNotFoundError:
            raise _gone(folder) from None
        if known is not None and known != (found.st_dev, found.st_ino):
            raise _gone(folder)
        self._known[folder] = found.st_dev, found.st_ino


def _gone(folder: Path) -> CaptuneError:
    return CaptuneError(
        f"The output folder {folder} was removed or replaced while it was written into.",
        "What it held is gone: run the same command again.",
    )


def folders_to_make(out: Path) -> list[Path]:
    """Folders that have to be made for `out`, innermost first."""
    missing = []
    folder = Path(os.path.abspath(out))
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    return missing


def is_other_process(pid: str) -> bool:
    """Whether another process than this one has the number `pid`."""
    return pid.isdigit() and int(pid) != os.getpid() and is_running(int(pid))
