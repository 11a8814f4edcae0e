"""A file from a web server, resumed where an earlier attempt was cut off."""

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from captune.core.errors import CaptuneError
from captune.core.files import disk_error, write_text
from captune.core.http import Answer, WebError, opened
from captune.core.progress import SILENT, Progress, Task

_BLOCK = 1 << 16
_STEP = 1 << 20  # bytes that have to come within the time, and between two failures that count as the first
_AGAIN = (408, 416, 429)  # and what begins with 5
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def fetch(
    url: str,
    target: Path,
    *,
    progress: Progress = SILENT,
    size: int | None = None,
    sha256: str | None = None,
    attempts: int = 6,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """Download `url` to `target`, which appears when it is whole; until then it is `target.part`.

    A broken connection is tried again up to `attempts` times without a megabyte more than ever before in between,
    after `pause` seconds that double each time; each megabyte has to come within `timeout` seconds. `size` (bytes) and
    `sha256` are checked where given, the server's own length always; more than there is room for on the disk is not
    begun. Raises `CaptuneError`.
    """
    part = target.with_name(target.name + ".part")
    if target.is_file() and (size is None or target.stat().st_size == size):
        _etag(part).unlink(missing_ok=True)  # of a run that was killed when all was there
        return target
    host = urlsplit(url).hostname or url
    failures = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        furthest = _length(part)
        with progress.task(f"Download {target.name}", size) as task:
            task.advance(furthest)
            while True:
                try:
                    total = _continue(url, part, task, timeout, size)
                    break
                except WebError as error:
                    failure = error
                if failure.large:
                    part.unlink(missing_ok=True)
                    raise CaptuneError(f"{host} gave {failure} for {url}.", "It was removed: is the address right?")
                status = failure.status
                if status is not None and status < 500 and status not in _AGAIN:
                    raise CaptuneError(
                        f"{host} did not give {url}: {failure}.",
                        "Has the file moved? Download it by hand and point at its folder.",
                    )
                have = _length(part)
                if have >= furthest + _STEP:
                    failures, furthest = 0, have
                else:
                    failures += 1
                if failures >= attempts or failure.absent:
                    raise _unreachable(host, url, failure, part)
                time.sleep(min(pause * 2 ** max(0, failures - 1), 30))
        _verify(url, part, size if size is not None else total, sha256)
        os.replace(part, target)
        _etag(part).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(error, target) from error
    return target


def _continue(url: str, part: Path, task: Task, timeout: float, size: int | None) -> int | None:
    """Fetch what is missing of `part`; returns the whole length, or None where the server does not say it."""
    have = _length(part)
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if _etag(part).is_file():
            # A file that changed on the server meanwhile comes from its beginning.
            headers["If-Range"] = _etag(part).read_text(encoding="utf-8")
    with opened(url, seconds=timeout, headers=headers) as answer:
        if answer.status == 416 and have:
            total = _total(answer)
            if total == have:
                return total
            _forget(part, task, have)  # longer than the file itself: it was another one
            raise WebError("the server has a shorter file", status=416)
        answer.check(*((200, 206) if have else (200,)))
        resumed = answer.status == 206
        if resumed and not _goes_on(answer, have):
            _forget(part, task, have)
            raise WebError("the server gave another part of the file than was asked for")
        start = have if resumed else 0
        total = _total(answer) if resumed else answer.length
        if total is not None:
            task.total(total)
        if have and not resumed:
            task.advance(-have)
        if size is not None and total is not None and total != size:
            raise WebError(f"{total:,} bytes, expected {size:,}", large=True)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - start > free:
            raise CaptuneError(
                f"{part.parent} has {free / 1e9:.1f} GB free, {url} needs {(total - start) / 1e9:.1f} GB.",
                "Free some space or choose another folder.",
            )
        if not resumed:
            part.unlink(missing_ok=True)  # before the tag of what comes now: it is not of what was there
            _etag(part).unlink(missing_ok=True)
            if answer.headers.get("ETag", "").startswith('"'):
                write_text(_etag(part), answer.headers["ETag"])
        expected = size if total is None else total
        # A server that does not say how much it gives may have half of the disk.
        _receive(answer, part, task, start, expected or start + free // 2)
        if expected is not None and _length(part) < expected:
            raise WebError(f"the connection broke after {_length(part):,} of {expected:,} bytes")
    return total


def _receive(answer: Answer, part: Path, task: Task, start: int, limit: int) -> None:
    """Write what comes behind the first `start` bytes of `part`, to `most` in all; raises `WebError`."""
    step = start
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        while block := answer.read(_BLOCK):
            file.write(block)
            task.advance(len(block))
            if file.tell() > limit:
                raise WebError(f"more than {limit:,} bytes", large=True)
            if file.tell() >= step + _STEP:
                step = file.tell()
                answer.clock.restart()


def _goes_on(answer: Answer, have: int) -> bool:
    """Whether a part of a file is the one from its byte `have` to its end."""
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return match is not None and int(match[1]) == have and int(match[2]) + 1 == int(match[3])


def _forget(part: Path, task: Task, have: int) -> None:
    part.unlink()
    _etag(part).unlink(missing_ok=True)
    task.advance(-have)


def _verify(url: str, part: Path, size: int | None, sha256: str | None) -> None:
    have = _length(part)
    wrong = f"{have:,} bytes, expected {size:,}" if size is not None and have != size else ""
    if not wrong and sha256 is not None:
        with open(part, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        wrong = f"SHA-256 {actual}, expected {sha256}" if actual != sha256 else ""
    if wrong:
        part.unlink()
        raise CaptuneError(f"What was downloaded from {url} has {wrong}.", "It was removed: run the command again.")


def _total(answer: Answer) -> int | None:
    match = re.search(r"/(\d{1,18})\s*$", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def remove_download(target: Path) -> None:
    """Remove what `fetch` left of a file that is not needed any more, whole or not."""
    part = target.with_name(target.name + ".part")
    for path in (target, part, _etag(part)):
        path.unlink(missing_ok=True)


def _length(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _etag(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _unreachable(host: str, url: str, error: WebError, part: Path) -> CaptuneError:
    partial = f" {_length(part):,} bytes are kept and the next run goes on from there." if _length(part) else ""
    return CaptuneError(
        f"{host} was not reached: {error}.{partial}",
        f"Check the network and run the command again, or download {url} elsewhere and point at the folder: "
        "captune prepare FOLDER --out DIR",
    )
