"""The end of the server's process: at its time, whatever its threads are doing."""

from __future__ import annotations

import threading
from collections.abc import Callable

THREADS = "captune-"


class Ending:
    """Ends the process by `end(code)` when the time is up, from a thread of its own; the last time set counts."""

    def __init__(self, end: Callable[[int], object]) -> None:
        self._end = end
        self._timer: threading.Timer | None = None

    def within(self, seconds: float, code: Callable[[], int]) -> None:
        """Set the time; `code` is called before the end."""
        self.cancel()
        self._timer = threading.Timer(seconds, lambda: self._end(code()))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """The process may go on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def wait_for_threads() -> None:
    """Wait for the server's threads, some of which may still do work that nobody waits for."""
    for thread in threading.enumerate():
        if thread.name.startswith(THREADS) and not thread.daemon:
            thread.join()
