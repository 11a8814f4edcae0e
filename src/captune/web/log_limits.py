"""Strangers do not fill the log: lines of one kind that come too fast are counted instead."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from captune.web.keys import Rate

# Lines a minute of one kind; a quarter of them may come at once.
_A_MINUTE = 600
_REFUSED = 400
_LIBRARIES = ("uvicorn", "asyncio")


class Limit(logging.Filter):
    """Lets warnings of libraries, errors and refused requests through at a rate, each kind on its own.

    Kinds are the logger with the beginning of the message, and the status of a request. A line that comes after others
    were left out has their number as `left_out`. Requests that were served all have their line.
    """

    def __init__(self, per_minute: float = _A_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._rate = Rate(per_minute, clock)
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, "fields", {})
        status = fields.get("status", 0)
        if status < _REFUSED and record.levelno < logging.WARNING and not record.name.startswith(_LIBRARIES):
            return True
        kind = f"{record.name} {record.getMessage()[:60]} {status}"
        if self._rate.wait(kind):
            if len(self._left_out) < 1000:
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            record.__dict__["fields"] = {**fields, "left_out": left_out}
        return True
