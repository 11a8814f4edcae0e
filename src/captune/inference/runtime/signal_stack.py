"""The memory that a thread handles signals on (`sigaltstack`), kept from libraries that change it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """That of this thread; its address is None where signals are handled on the thread's own stack."""
    found = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found


@contextmanager
def same_signal_stack() -> Iterator[None]:
    """Put this thread's signal stack back behind the block.

    OpenVINO sets one for each model that it compiles. With the model it frees it, and sets that of before, which is
    gone as well where models end in another order than they began: the next signal (Ctrl-C, the end of a child)
    would crash the process.
    """
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
