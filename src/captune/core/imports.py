"""Imports that bring a million objects with them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Without the garbage collector, which finds nothing in what torch and transformers import.

    Looking for it again and again is a sixth of the time until the first caption (0.5 s of 3.2 s on one core).
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
