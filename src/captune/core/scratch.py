"""Temporary folders that no kill leaves for ever: the next one that is made removes those of ended processes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

_PREFIX = "captune-scratch-"


@contextmanager
def scratch_folder(home: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """An empty folder in `home` (the system's folder for temporary files), removed with what it holds at the end.

    The process holds a lock on it (flock), which ends with the process: so others know that it may be removed. On
    Windows and on file systems without such locks, what a kill leaves stays. Raises `OSError` where none can be made.
    """
    place = os.fspath(home or tempfile.gettempdir())
    _sweep(place)
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        handle = _lock(made)
        if made.is_dir():  # else another process took it for one that was left, before it was locked
            break
        _close(handle)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _close(handle)


@lru_cache(maxsize=16)
def _sweep(home: str) -> None:
    """Remove what killed processes left in a folder; once for each process and folder."""
    for left in Path(home).glob(f"{_PREFIX}*"):
        handle = _lock(left)
        if handle is not None:
            shutil.rmtree(left, ignore_errors=True)
            _close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that locks a folder of this user; None where another process holds it, or there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.getuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    return None


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
