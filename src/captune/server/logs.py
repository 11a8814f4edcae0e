"""Log lines as JSON on stderr; never the content of an image or a key."""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from captune.server.keys import RateLimit

# Lines that wait for a reader of the log; more are counted and left out.
_MAX_LINES = 10_000
_END_SECONDS = 1.0
LOG = logging.getLogger("captune.server")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{now}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class LogWriter(logging.Handler):
    """Writes records to a file descriptor in a thread of its own: a reader that stalls blocks no request.

    Up to `max_lines` wait; others are left out, and their number is logged as soon as there is room.
    """

    def __init__(self, descriptor: int, *, max_lines: int = _MAX_LINES) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(max_lines)
        self._omitted_lines = 0
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._omitted_lines:
                fields = {"lines": self._omitted_lines}
                omitted = {"levelname": "WARNING", "msg": "log lines left out", "fields": fields}
                self._lines.put_nowait(self._line(logging.makeLogRecord(omitted)))
                self._omitted_lines = 0
            self._lines.put_nowait(self._line(record))
        except queue.Full:
            self._omitted_lines += 1

    def close(self) -> None:
        """Wait a moment for the lines to be written."""
        super().close()
        try:
            self._lines.put(None, timeout=_END_SECONDS)
        except queue.Full:
            return
        self._writer.join(_END_SECONDS)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("ascii", "backslashreplace") + b"\n"

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            rest = memoryview(line)
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except OSError:  # a reader that has gone, a full disk: there is nowhere to log it
                    break


def configure_logging() -> None:
    """Send the lines of captune, uvicorn and asyncio to stderr."""
    try:
        handler: logging.Handler = LogWriter(sys.stderr.fileno())
    except (OSError, ValueError):  # a notebook's stderr is no file
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
    handler.addFilter(LogRateLimit())
    for name, level in (("captune.server", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        for earlier in logger.handlers:
            earlier.close()
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def log_event(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Write a line; fields that are None are left out."""
    present = {name: value for name, value in fields.items() if value is not None}
    LOG.log(level, event, extra={"fields": present}, exc_info=error)


# Lines a minute of one kind; a quarter of them may come at once.
_LINES_PER_MINUTE = 600
_REFUSED = 400
_LIBRARIES = ("uvicorn", "asyncio")


class LogRateLimit(logging.Filter):
    """Lets warnings of libraries, errors and refused requests through at a rate, each kind on its own.

    Kinds are the logger with the beginning of the message, and the status of a request. A line that comes after others
    were left out has their number as `left_out`. Requests that were served all have their line.
    """

    def __init__(self, per_minute: float = _LINES_PER_MINUTE, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._rate = RateLimit(per_minute, clock)
        self._omitted_lines: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, "fields", {})
        status = fields.get("status", 0)
        if status < _REFUSED and record.levelno < logging.WARNING and not record.name.startswith(_LIBRARIES):
            return True
        kind = f"{record.name} {record.getMessage()[:60]} {status}"
        if self._rate.retry_after(kind):
            if len(self._omitted_lines) < 1000:
                self._omitted_lines[kind] = self._omitted_lines.get(kind, 0) + 1
            return False
        left_out = self._omitted_lines.pop(kind, 0)
        if left_out:
            record.__dict__["fields"] = {**fields, "left_out": left_out}
        return True
