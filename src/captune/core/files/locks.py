"""Locks on files: one process at a time, and none that outlives the process that took it."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import disk_error

# Open lock files of this process. A child made by fork shares their locks: it closes its copies, so that a lock
# ends with the process that took it, however long loader workers outlive that.
_OPEN: set[int] = set()
# A folder that is gone so many times running, right after it was made, is one where nothing can be made.
_VANISHED = 20


@dataclass(frozen=True)
class Lock:
    """A lock that is held. `works`: the system knows locks here; `left_by`: the last owner, if it was killed."""

    works: bool
    left_by: str = ""


class Locked(CaptuneError):
    """Another process has the lock; `owner` is the process that took it, as far as it is known."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(f"Another process{f' ({owner})' if owner else ''} holds {path}.", "Wait for it, or end it.")
        self.owner = owner


@contextmanager
def lock_file(path: str | os.PathLike[str]) -> Iterator[Lock]:
    """Hold the lock on a file within the block; raises `Locked` where another process has it.

    The file is made, with its folder, and removed at the end. The lock is the system's (flock): a process that was
    killed holds none, whatever file it left. On Windows and on file systems without locks nothing keeps two processes
    apart: `Lock.works` says so.
    """
    target = Path(path)
    descriptor, lock = _acquire(target)
    _OPEN.add(descriptor)
    try:
        yield lock
    finally:
        if lock.works:
            with suppress(OSError):  # the folder was removed, or may no longer be written
                target.unlink()
        _OPEN.discard(descriptor)
        os.close(descriptor)


def _acquire(path: Path) -> tuple[int, Lock]:
    """The open lock file, and whether it is locked."""
    vanished = 0
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            vanished += 1
            if isinstance(error, FileNotFoundError) and vanished < _VANISHED:
                continue  # an owner that was refused removed its empty folder meanwhile
            raise disk_error(error, path) from error
        try:
            works = _lock(descriptor, path)
            if works and not _is_at(path, descriptor):
                os.close(descriptor)  # its owner removed it meanwhile: another process may lock a new one
                continue
            left_by = _owner(descriptor)
            with suppress(OSError):  # a full disk: the name of the owner is only for the message of others
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, Lock(works, left_by)


def _lock(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(path, _owner(descriptor)) from None
    except OSError:  # a file system without locks
        return False
    return True


def _owner(descriptor: int) -> str:
    text = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
    return text if text.isprintable() else ""


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    for descriptor in _OPEN:
        with suppress(OSError):
            os.close(descriptor)
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
