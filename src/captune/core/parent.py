"""A process that ends with the one that started it, also where that is killed and can say nothing any more."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 1.0


def end_with_parent() -> None:
    """Have this process killed when its parent is gone; called once, early.

    On Linux the kernel does it, also in the middle of a decoder that lets no other thread run. The kernel takes the
    end of the thread that started this process for the parent's. Elsewhere a thread looks every second.
    """
    parent = os.getppid()
    if not _by_kernel():
        threading.Thread(target=_watch, args=(parent,), name="captune-parent", daemon=True).start()
    if os.getppid() != parent:  # it ended in between
        os._exit(1)


def _by_kernel() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    except (OSError, AttributeError):  # a system without it
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
