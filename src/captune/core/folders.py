"""Folders that are whole or absent: filled beside their place, synced, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import disk_error, is_running
from captune.core.names import fit_name


@contextmanager
def atomic_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to fill, which appears at `out` only when the block ends without an error.

    `out` may be missing or empty; anything else raises `UsageError`. What a process that was killed left
    behind is cleared away by the next one with the same `out`.
    """
    target = Path(os.path.abspath(Path(out).expanduser()))
    check_free(target)
    missing = folders_to_make(target.parent)
    stage = target.with_name(fit_name(f".{target.name}", f".{os.getpid()}.part"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for old in target.parent.glob(".*.part"):
            if old.name != fit_name(f".{target.name}", f".{old.name.split('.')[-2]}.part"):
                continue
            if not is_other_process(old.name.split(".")[-2]):
                shutil.rmtree(old, ignore_errors=True)
        stage.mkdir()
    except OSError as error:
        raise disk_error(error, target) from error
    done = False
    try:
        yield stage
        _sync(stage)
        if target.is_dir():
            target.rmdir()
        os.rename(stage, target)
        done = True
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith((str(stage), str(target))):
            raise
        raise disk_error(error, target) from error
    finally:
        if not done:
            shutil.rmtree(stage, ignore_errors=True)
            for folder in missing:
                with suppress(OSError):  # it holds something: then it stays
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


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
