"""Open every picture once, in parallel, so that one bad picture costs one picture."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.progress import SILENT, Progress

TIMEOUT_SECONDS = 60.0
THUMB_BYTES = 192
WORKER = (sys.executable, "-m", "captune.data.verify_worker")
_START_SECONDS = 60.0
_KILLED = -9  # SIGKILL: what the kernel sends when memory is short
_PICTURES_PER_PROCESS = 16


@dataclass(frozen=True, slots=True)
class Look:
    """What opening a picture showed. `reason` is None for a good one; `kind` as in `ImageError`.

    `hash` is a 64-bit dHash, `thumb` an 8 × 8 RGB thumbnail (`THUMB_BYTES`), `digest` of the file's bytes.
    """

    index: int
    reason: str | None = None
    kind: str = ""
    width: int = 0
    height: int = 0
    hash: int = 0
    thumb: bytes = b""
    digest: str = ""


def verify(
    paths: Sequence[str],
    *,
    max_pixels: int,
    workers: int = 0,
    timeout: float = TIMEOUT_SECONDS,
    progress: Progress = SILENT,
) -> Iterator[Look]:
    """Open every path in `workers` processes (0: one a core); looks come as they are ready.

    A picture that kills its process (a crash in a decoder, memory) or takes longer than
    `timeout` seconds is a bad picture; the rest goes on in a new process.
    """
    count = min(workers or _cores(), max(1, len(paths) // _PICTURES_PER_PROCESS))
    todo = iter(range(len(paths)))
    lock = threading.Lock()
    done: queue.Queue[Look | BaseException | None] = queue.Queue(maxsize=1024)
    lanes = [_Lane(paths, todo, lock, done, max_pixels) for _ in range(count)]
    open_lanes = len(lanes)
    try:
        for lane in lanes:
            lane.start()
        with progress.task("Opening pictures", len(paths)) as task:
            while open_lanes:
                try:
                    item = done.get(timeout=0.5)
                except queue.Empty:
                    item = _NOTHING
                for lane in lanes:
                    lane.kill_if_overdue(timeout)
                if item is None:
                    open_lanes -= 1
                elif isinstance(item, BaseException):
                    raise item
                elif item is not _NOTHING:
                    task.advance()
                    yield item
    finally:
        for lane in lanes:
            lane.stop()


_NOTHING = Look(-1)


class _Lane(threading.Thread):
    """One worker process after another, fed one path at a time."""

    def __init__(
        self, paths: Sequence[str], todo: Iterator[int], lock: threading.Lock, done: queue.Queue[Any], max_pixels: int
    ) -> None:
        super().__init__(name="captune-verify", daemon=True)
        self._paths, self._todo, self._lock, self._done = paths, todo, lock, done
        self._max_pixels = max_pixels
        self._process: subprocess.Popen[str] | None = None
        self._since: float | None = None
        self._killed_at: float | None = None
        self._stopped = False

    def run(self) -> None:
        end: BaseException | None = None
        try:
            while not self._stopped and (index := self._next()) is not None:
                self._put(self._look(index))
        except (CaptuneError, OSError) as error:
            end = error
        finally:
            self._end_process()
        self._put(end)

    def stop(self) -> None:
        """End the process; what it was doing is dropped."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def kill_if_overdue(self, timeout: float) -> None:
        since = self._since
        process = self._process
        if since is not None and process is not None and time.monotonic() - since > timeout:
            self._killed_at = since
            process.kill()

    def _next(self) -> int | None:
        with self._lock:
            return next(self._todo, None)

    def _put(self, item: Look | BaseException | None) -> None:
        while not self._stopped:
            try:
                self._done.put(item, timeout=0.5)
            except queue.Full:
                continue
            return

    def _look(self, index: int) -> Look:
        while not self._stopped:
            if self._process is None:
                self._process = _start(self._max_pixels)
            since = self._since = time.monotonic()
            line = _ask(self._process, self._paths[index])
            self._since = None
            if line.endswith("\n"):
                return _read(index, json.loads(line))
            code = self._end_process()
            if self._killed_at == since:
                return Look(index, "takes too long to open", "damaged")
            if self._killed_at is None:
                return Look(index, _death(code), "memory" if code == _KILLED else "damaged")
            self._killed_at = None  # the kill was meant for the picture before: once more
        return Look(index, "not opened", "damaged")

    def _end_process(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if self._stopped:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # the process is gone, and what it had not read
                    pipe.close()
        return process.wait()


def _ask(process: subprocess.Popen[str], path: str) -> str:
    """The worker's answer, or "" where it is dead."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(path) + "\n")
        process.stdin.flush()
        return process.stdout.readline()
    except BrokenPipeError:
        return ""


def _start(max_pixels: int) -> subprocess.Popen[str]:
    """A worker that has said it is ready; a command of its own, so that no script is imported again."""
    package = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*WORKER, str(max_pixels)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            encoding="ascii",
        )
        watch = threading.Timer(_START_SECONDS, process.kill)
        watch.start()
        assert process.stdout is not None
        ready = process.stdout.readline()
        watch.cancel()
        if not ready:
            process.wait()
            complaints.seek(0)
            said = complaints.read().decode("utf-8", "replace").strip().splitlines()
            raise CaptuneError(
                f"Cannot start a process to open pictures: {said[-1] if said else 'it ended at once'}.",
                "Run `captune doctor` to see what is wrong with this Python.",
            )
    return process


def _read(index: int, said: dict[str, Any]) -> Look:
    if "reason" in said:
        return Look(index, str(said["reason"]), str(said["kind"]))
    width, height = said["size"]
    return Look(
        index,
        width=width,
        height=height,
        hash=int(said["hash"], 16),
        thumb=bytes.fromhex(said["thumb"]),
        digest=said["digest"],
    )


def _death(code: int) -> str:
    if code == _KILLED:
        return "its decoder was killed, perhaps for want of memory"
    if code < 0:
        return f"its decoder crashed ({signal.Signals(-code).name})"
    return f"its decoder ended the process (code {code})"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
