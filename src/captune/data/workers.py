"""Processes that look at pictures: one that kills its process costs one picture."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from captune.core.errors import CaptuneError

TIMEOUT_SECONDS = 60.0
_START_SECONDS = 60.0
_STARTS = 3  # tries to start a process that is killed before it is ready
_DEATHS = 2  # of its processes in a row that an image is taken to be the cause of
_WATCH_SECONDS = 0.25
_LONGEST_LINE = 10_000
_KILLED = -9  # SIGKILL: what the kernel sends when memory is short

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a process said, and the bytes it attached; `reason` and `kind`, as in `ImageError`, where it failed."""

    said: dict[str, Any]
    attachment: bytes = b""


Send = Callable[[dict[str, Any], bytes], Reply]


class ProcessPool:
    """`count` processes of one command (see `answering`), each asked one thing at a time, in a `with` block.

    One that dies is replaced and asked once more, since another process may be to blame; what kills it twice, or is
    not answered within `timeout` seconds, is answered for. The processes end with this one, however that ends.
    """

    def __init__(self, command: Sequence[str], count: int, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self.count = count
        self._timeout = timeout
        self._lanes = [_Worker(command) for _ in range(count)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # one that runs is asked first
        for lane in self._lanes:
            self._idle.put(lane)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="captune-worker")
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="captune-watch", daemon=True).start()
        return self

    def start(self) -> Future[None]:
        """Start one of the processes before it is asked; the future raises `CaptuneError` where none can be."""
        return self._threads.submit(self._begin)

    def is_stuck(self, seconds: float) -> bool:
        """Whether no process can take another picture: each has worked on one for longer than `seconds`."""
        return all(lane.works_for() > seconds for lane in self._lanes)

    def submit(self, task: Callable[[Send], Found]) -> Future[Found]:
        """Run `task` in a thread with a process to ask; it may ask several times."""
        return self._threads.submit(self._run, task)

    def __exit__(self, *exc: object) -> None:
        """End the processes; what they were doing is dropped."""
        self.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._closed.set()
        for lane in self._lanes:
            lane.end()

    def kill(self) -> None:
        """Kill the processes and start no others; nothing is waited for."""
        for lane in self._lanes:
            lane.stop()

    def _run(self, task: Callable[[Send], Found]) -> Found:
        lane = self._idle.get()
        try:
            return task(lane.ask)
        finally:
            self._idle.put(lane)

    def _begin(self) -> None:
        lane = self._idle.get()
        try:
            lane.begin()
        finally:
            self._idle.put(lane)

    def _watch(self) -> None:
        while not self._closed.wait(_WATCH_SECONDS):
            for lane in self._lanes:
                lane.kill_if_overdue(self._timeout)


class _Worker:
    """One process after another, asked by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._since: float | None = None
        self._killed_at: float | None = None
        self._stopped = False

    def begin(self) -> subprocess.Popen[bytes]:
        """The process, started where it is not."""
        if self._process is None:
            self._process = _start(self._command)
        return self._process

    def works_for(self) -> float:
        """Seconds since it was asked what it has not answered yet, else 0."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def ask(self, question: dict[str, Any], attachment: bytes = b"") -> Reply:
        deaths = 0
        while not self._stopped:
            process = self.begin()
            if self._stopped:
                break
            since = self._since = time.monotonic()
            answer = _exchange(process, question, attachment)
            self._since = None
            if answer is not None:
                return answer
            code = self.end()
            if self._killed_at == since:
                return _failed("damaged", "takes too long to open")
            deaths += self._killed_at is None
            if deaths == _DEATHS:
                return _failed("memory" if code == _KILLED else "damaged", _death(code))
            self._killed_at = None  # the kill was meant for the picture before: once more
        return _failed("damaged", "not opened")

    def stop(self) -> None:
        """End the process; no other is started."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def end(self) -> int:
        """Wait for the process to end, which no longer gets questions; returns its exit code."""
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

    def kill_if_overdue(self, timeout: float) -> None:
        since = self._since
        process = self._process
        if since is not None and process is not None and time.monotonic() - since > timeout:
            self._killed_at = since
            process.kill()


def _exchange(process: subprocess.Popen[bytes], question: dict[str, Any], attachment: bytes) -> Reply | None:
    """The answer, or None where the process is dead."""
    assert process.stdin is not None
    assert process.stdout is not None
    told = {**question, "bytes": len(attachment)} if attachment else question
    try:
        process.stdin.write(json.dumps(told).encode("ascii") + b"\n")
        if attachment:
            process.stdin.write(attachment)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        said = json.loads(line)
        size = said.pop("bytes", 0)
        attached = process.stdout.read(size) if size else b""
    except BrokenPipeError:
        return None
    return Reply(said, attached) if len(attached) == size else None


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that has said it is ready; a command of its own, so that no script is imported again.

    One that is killed before that is started again. Raises `CaptuneError` where none becomes ready.
    """
    package = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
    for attempt in range(1, _STARTS + 1):
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        complaints: deque[bytes] = deque(maxlen=1)
        # What libraries print has to go somewhere: not to a file, whose disk may be full or not there.
        reader = threading.Thread(target=_read_lines, args=(process.stderr, complaints), daemon=True)
        reader.start()
        watch = threading.Timer(_START_SECONDS, process.kill)
        watch.start()
        assert process.stdout is not None
        assert process.stdin is not None
        ready = process.stdout.readline()
        watch.cancel()
        if ready:
            return process
        code = process.wait()
        reader.join(1.0)
        process.stdin.close()
        process.stdout.close()
        if code >= 0 or attempt == _STARTS:
            break
    said = complaints[0].decode("utf-8", "replace").strip() if complaints else _death(code)
    raise CaptuneError(
        f"Cannot start a process to open pictures: {said}.",
        "Run `captune doctor` to see what is wrong with this Python.",
    )


def _read_lines(stream: IO[bytes], last: deque[bytes]) -> None:
    """Read to the end; the last line that says something is left."""
    with stream:
        while line := stream.readline(_LONGEST_LINE):
            if line.strip():
                last.append(line)


def _failed(kind: str, reason: str) -> Reply:
    return Reply({"kind": kind, "reason": reason})


def _death(code: int) -> str:
    if code == _KILLED:
        return "its decoder was killed, perhaps for want of memory"
    if code < 0:
        return f"its decoder crashed ({signal.Signals(-code).name})"
    return f"its decoder ended the process (code {code})"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
