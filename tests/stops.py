"""A function that is stopped, in a copy of this process, at one of the moments at which it changes files."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NEED_SPACE = ("open", "os.mkdir", "shutil.copyfile")
_CHANGES = (*_NEED_SPACE, "os.rename", "os.remove", "os.rmdir", "os.utime")


def stopped(work: Callable[[], Any], folder: Path, moment: int, *, disk_full: bool = False) -> int | None:
    """Do the work in a copy of this process, killed (SIGKILL) before its change number `moment` below the folder.

    Changes are files opened to be written (but for locks), folders made, names given and taken away. With `disk_full`
    it is not killed, but nothing can be opened to be written or made from then on, and only such changes count.
    Returns None where it ended before that moment, else how: the signal (negative), or 1 for a `CaptuneError` and 2
    for any other error.
    """
    child = os.fork()
    if not child:
        _work(work, str(folder), moment, disk_full)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else code


def _work(work: Callable[[], Any], folder: str, moment: int, disk_full: bool) -> None:
    changes = 0

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in (_NEED_SPACE if disk_full else _CHANGES) or not any(
            name.startswith(folder) for name in map(str, arguments)
        ):
            return
        if event == "open" and (
            not (isinstance(arguments[2], int) and arguments[2] & _WRITES) or str(arguments[0]).endswith(".lock")
        ):
            return
        changes += 1
        if changes >= moment and disk_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
        if changes >= moment:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 2
    try:
        sys.addaudithook(see)
        work()
        code = 0
    except CaptuneError:
        code = 1
    finally:
        os._exit(code)
