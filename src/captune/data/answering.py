"""What a worker process of `captune.data.workers` does: answer requests about images."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import AvifImagePlugin

from captune.core.parent import end_with_parent

# Enough for every image within the limit of pixels, whatever its format.
_BYTES_PER_PIXEL = 20
_MIN_MEMORY = 2 * 1024**3


def serve_requests(handle: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]], max_pixels: int) -> None:
    """Reply to requests on stdin until it ends.

    A request is a JSON object in a line, with the number of `bytes` of its attachment where it has one; the
    attachment follows. Replies on stdout have the same form.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _limit_memory(max_pixels)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the processes are the parallelism
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no reply
    replies.write(b'{"ready": true}\n')
    while line := requests.readline():
        request = json.loads(line)
        fields, attachment = handle(request, requests.read(request.pop("bytes", 0)))
        if attachment:
            fields["bytes"] = len(attachment)
        for part in (json.dumps(fields).encode("ascii") + b"\n", attachment):
            rest = memoryview(part)
            while rest:  # a pipe takes what it has room for
                rest = rest[replies.write(rest) :]


def _limit_memory(max_pixels: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = _in_use() + max(_MIN_MEMORY, _BYTES_PER_PIXEL * max_pixels)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _in_use() -> int:
    """Bytes of address space that the libraries loaded so far take; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
