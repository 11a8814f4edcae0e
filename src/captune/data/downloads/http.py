"""A file from a web server, resumed where an earlier attempt was cut off."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from captune.core.errors import CaptuneError
from captune.core.files import disk_error
from captune.core.progress import SILENT, Progress, Task

_BLOCK = 1 << 20
# What a connection that breaks raises, on opening or in the middle.
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def fetch(
    url: str,
    target: Path,
    *,
    progress: Progress = SILENT,
    size: int | None = None,
    sha256: str | None = None,
    attempts: int = 6,
    pause: float = 1.0,
    timeout: float = 30.0,
) -> Path:
    """Download `url` to `target`, which appears when it is whole; until then it is `target.part`.

    A broken connection is tried again up to `attempts` times without a byte in between,
    after `pause` seconds that double each time. `size` (bytes) and `sha256` are checked
    where given, the server's own length always. Raises `CaptuneError`.
    """
    if target.is_file() and (size is None or target.stat().st_size == size):
        return target
    part = target.with_name(target.name + ".part")
    host = urlsplit(url).hostname or url
    failures = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with progress.task(f"Download {target.name}", size) as task:
            task.advance(_length(part))
            while True:
                before = _length(part)
                try:
                    total = _continue(url, part, task, timeout)
                    break
                except urllib.error.HTTPError as error:
                    failure: Exception = error
                    if error.code < 500 and error.code not in (408, 429):
                        raise CaptuneError(
                            f"{host} answered {error.code} ({error.reason}) for {url}.",
                            "Has the file moved? Download it by hand and point at its folder.",
                        ) from None
                except _BROKEN as error:
                    failure = error
                failures = 0 if _length(part) > before else failures + 1
                if failures >= attempts or _no_network(failure):
                    raise _unreachable(host, url, failure, part) from None
                time.sleep(min(pause * 2 ** max(0, failures - 1), 30))
        _verify(url, part, size if size is not None else total, sha256)
        os.replace(part, target)
        _etag(part).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, target) from error
    return target


def _continue(url: str, part: Path, task: Task, timeout: float) -> int | None:
    """Fetch what is missing of `part`; returns the whole length, or None where the server does not say it."""
    have = _length(part)
    request = urllib.request.Request(url, headers={"User-Agent": "captune", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if _etag(part).is_file():
            # A file that changed on the server meanwhile comes from its beginning.
            request.add_header("If-Range", _etag(part).read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        total = _total(error.headers)
        if total == have:
            return total
        part.unlink()  # longer than the file itself: it was another one
        raise ConnectionError("the server has a shorter file") from None
    with answer:
        resumed = answer.status == 206
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = _total(answer.headers) if resumed else (int(length) if length else None)
        if total is not None:
            task.total(total)
        if have and not resumed:
            task.advance(-have)
        if answer.headers.get("ETag", "").startswith('"'):
            _etag(part).write_text(answer.headers["ETag"], encoding="utf-8")
        with open(part, "r+b" if resumed else "wb") as file:
            file.seek(start)
            while block := _read(answer):
                file.write(block)
                task.advance(len(block))
    if total is not None and _length(part) < total:
        raise http.client.IncompleteRead(b"", total - _length(part))
    return total


def _read(answer: Any) -> bytes:
    try:
        return answer.read(_BLOCK)
    except OSError as error:  # the network's, not to be taken for the disk's
        raise ConnectionError(str(error)) from error


def _verify(url: str, part: Path, size: int | None, sha256: str | None) -> None:
    have = _length(part)
    wrong = f"{have:,} bytes, expected {size:,}" if size is not None and have != size else ""
    if not wrong and sha256 is not None:
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        wrong = f"SHA-256 {found}, expected {sha256}" if found != sha256 else ""
    if wrong:
        part.unlink()
        raise CaptuneError(f"What was downloaded from {url} has {wrong}.", "It was removed: run the command again.")


def _total(headers: Any) -> int | None:
    match = re.search(r"/(\d+)\s*$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _etag(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _no_network(error: Exception) -> bool:
    """Whether the host's name is not known or nobody listens: trying again at once does not help."""
    import socket

    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, (socket.gaierror, ConnectionRefusedError))


def _unreachable(host: str, url: str, error: Exception, part: Path) -> CaptuneError:
    reason = getattr(error, "reason", None) or error
    kept = f" {_length(part):,} bytes are kept and the next run goes on from there." if _length(part) else ""
    return CaptuneError(
        f"{host} was not reached ({reason}).{kept}",
        f"Check the network and run the command again, or download {url} elsewhere and point at the folder: "
        "captune prepare FOLDER --out DIR",
    )
