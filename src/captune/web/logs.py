"""Lines of JSON on stderr: what happened, never what was in a picture or a key."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from captune.web.log_limits import Limit

LOG = logging.getLogger("captune.web")


class JsonLines(logging.Formatter):
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


def write_logs() -> None:
    """Send the lines of captune, uvicorn and asyncio to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Limit())
    for name, level in (("captune.web", logging.INFO), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def tell(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any) -> None:
    """Write a line; fields that are None are left out."""
    kept = {name: value for name, value in fields.items() if value is not None}
    LOG.log(level, event, extra={"fields": kept}, exc_info=error)
