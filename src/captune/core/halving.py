"""Batches within the memory there is: one that has no room is halved, and so are those after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from captune.core.memory import OutOfMemory, is_out_of_memory

Result = TypeVar("Result")
# So many items one after another that have no room by themselves are not the items' fault.
_NO_ROOM = 8


class Halving:
    """Runs batches whose items do not depend on each other; `hint` says what to do where not even one has room."""

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._most = sys.maxsize
        self._refused = 0

    def results(self, count: int, run: Callable[[int, int], Sequence[Result]]) -> list[Result | None]:
        """What `run(start, end)` makes of `count` items, in order; None for one that has no room by itself.

        Raises `OutOfMemory` where several one after another have none.
        """
        found: list[Result | None] = []
        while len(found) < count:
            end = min(len(found) + self._most, count)
            part = _attempt(run, len(found), end)
            if part is not None:
                self._refused = 0
                found += part
            elif end - len(found) > 1:
                self._most = (end - len(found)) // 2
            else:
                self._refused += 1
                if self._refused == _NO_ROOM:
                    raise OutOfMemory(
                        f"There is not memory enough for one image at a time ({_NO_ROOM} were tried).", self._hint
                    )
                found.append(None)
        return found


def _attempt(run: Callable[[int, int], Sequence[Result]], start: int, end: int) -> Sequence[Result] | None:
    try:
        return run(start, end)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Out here nothing holds on to what the attempt had allocated.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return None
