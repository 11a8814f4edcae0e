"""Memory that large bodies leave behind, given back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

_LARGE = 2_000_000  # bytes; below, giving back costs more than it brings


def give_back(size: int) -> None:
    """Give back what is free after a body of a size has grown, or is gone: glibc keeps it, and asks for more beside."""
    if size >= _LARGE:
        _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    """glibc's malloc_trim, which other systems have no need of."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return lambda pad: None
    return trim
