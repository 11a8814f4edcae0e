"""Disks that are full: how each library that writes says so, and what to tell."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from captune.core.errors import CaptuneError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# safetensors and tokenizers pass on the system's number; torch.save notices that less was written than it gave.
_WORDS = (
    *(f"(os error {number})" for number in _FULL),
    *(os.strerror(number).lower() for number in _FULL),
    "inline_container",
    "pytorchstreamwriter",
    "iostream error",  # what it writes of a small file at its end
)
_CUT = re.compile(r"\d requested and \d+ written")  # numpy's words
_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


class DiskFull(CaptuneError):
    """Something could not be written for want of room."""


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that a disk, a quota or the largest size of a file is used up."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    said = str(error).lower()
    return any(words in said for words in _WORDS) or _CUT.search(said) is not None


def disk_full(error: BaseException, path: str | os.PathLike[str]) -> DiskFull:
    """What to tell where `is_disk_full`: no room at `path`, or a file larger than may be written there."""
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return DiskFull(
            f"Cannot write {path}: the file is larger than this user or this file system may write "
            f"({free_space(path)}).",
            "Raise the limit (ulimit -f), or choose a place on another file system, and run the command again.",
        )
    return DiskFull(
        f"The disk is full: cannot write {path} ({free_space(path)}).", "Free some space and run the command again."
    )


def free_bytes(path: str | os.PathLike[str]) -> int | None:
    """Bytes that may still be written where `path` is or will be; None where that cannot be told."""
    try:
        return shutil.disk_usage(_existing(path)).free
    except OSError:
        return None


def _existing(path: str | os.PathLike[str]) -> Path:
    """The nearest folder that is there already."""
    here = Path(os.path.abspath(path))
    while not here.exists() and here != here.parent:
        here = here.parent
    return here


def free_space(path: str | os.PathLike[str]) -> str:
    """The room at `path` in words: "1.2 MB free there"."""
    free = free_bytes(path)
    if free and not _takes_files(path):
        return "it has as many files as it takes: no inode is free"
    return "free space unknown" if free is None else f"{in_bytes(free)} free there"


def _takes_files(path: str | os.PathLike[str]) -> bool:
    """Whether the file system has room for one more name; True where it does not count them."""
    if not hasattr(os, "statvfs"):
        return True
    state = os.statvfs(_existing(path))
    return state.f_files == 0 or state.f_favail > 0


def in_bytes(count: int) -> str:
    """A number of bytes as people write it."""
    unit, size = next(((unit, size) for unit, size in _UNITS if count >= size), ("bytes", 1))
    return f"{count / size:.1f} {unit}" if size > 1 else f"{count} bytes"
