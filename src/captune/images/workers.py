"""Worker processes that open images: an image that crashes its decoder costs one row.

Hand-written: the pools of the standard library and loky fail as a whole when a worker dies. Pebble fails one item,
but starts its workers through `multiprocessing`: by a fork of a process with threads, or importing the caller's script.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from PIL import AvifImagePlugin

from captune.core.errors import CaptuneError

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 1.0


def end_with_parent() -> None:
    """Have this process killed when its parent is gone; called once, early.

    On Linux the kernel does it, also in the middle of a decoder that lets no other thread run. The kernel takes the
    end of the thread that started this process for the parent's. Elsewhere a thread checks every second.
    """
    parent = os.getppid()
    if not _by_kernel():
        threading.Thread(target=_watch, args=(parent,), name="captune-parent", daemon=True).start()
    if os.getppid() != parent:  # it ended in between
        os._exit(1)


def _by_kernel() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    except (OSError, AttributeError):  # a system without it
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


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


TIMEOUT_SECONDS = 60.0
_START_SECONDS = 60.0
_STARTS = 3  # tries to start a process that is killed before it is ready
_DEATHS = 2  # of its processes in a row that an image is taken to be the cause of
WATCH_SECONDS = 0.25
_MAX_LINE_BYTES = 10_000
_KILLED = -9  # SIGKILL: what the kernel sends when memory is short

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's JSON `fields` and the bytes attached; after a failure with `reason` and `kind`, as in `ImageError`."""

    fields: dict[str, Any]
    attachment: bytes = b""


Send = Callable[[dict[str, Any], bytes], Reply]


class ProcessPool:
    """`count` processes of one command (see `answering`), with one request each at a time, in a `with` block.

    A process that dies is replaced and gets the request once more, since something else may have killed it. A request
    that kills two, or takes more than `timeout` seconds, gets a failure as its reply. The processes end with this one,
    however that ends.
    """

    def __init__(self, command: Sequence[str], count: int, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self.count = count
        self._timeout = timeout
        self._workers = [_Worker(command) for _ in range(count)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # one that runs comes first
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="captune-worker")
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="captune-watch", daemon=True).start()
        return self

    def start(self) -> Future[None]:
        """Start one of the processes ahead of requests; the future raises `CaptuneError` where it cannot start."""
        return self._threads.submit(self._start_one)

    def is_stuck(self, seconds: float) -> bool:
        """Whether every process has worked on its request for longer than `seconds`."""
        return all(worker.busy_seconds() > seconds for worker in self._workers)

    def submit(self, task: Callable[[Send], Result]) -> Future[Result]:
        """Run `task` in a thread with a process to send requests to."""
        return self._threads.submit(self._run, task)

    def __exit__(self, *exc: object) -> None:
        """End the processes; unfinished work is dropped."""
        self.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._closed.set()
        for worker in self._workers:
            worker.end()

    def kill(self) -> None:
        """Kill the processes and start no others; nothing is waited for."""
        for worker in self._workers:
            worker.stop()

    def _run(self, task: Callable[[Send], Result]) -> Result:
        worker = self._idle.get()
        try:
            return task(worker.send)
        finally:
            self._idle.put(worker)

    def _start_one(self) -> None:
        worker = self._idle.get()
        try:
            worker.started()
        finally:
            self._idle.put(worker)

    def _watch(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            for worker in self._workers:
                worker.kill_if_overdue(self._timeout)


class _Worker:
    """One process after another, used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._since: float | None = None
        self._killed_at: float | None = None
        self._stopped = False

    def started(self) -> subprocess.Popen[bytes]:
        """The running process, started if there is none."""
        if self._process is None:
            self._process = _start(self._command)
        return self._process

    def busy_seconds(self) -> float:
        """Seconds since the request that has no reply yet, else 0."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def send(self, request: dict[str, Any], attachment: bytes = b"") -> Reply:
        deaths = 0
        while not self._stopped:
            process = self.started()
            if self._stopped:
                break
            since = self._since = time.monotonic()
            reply = _exchange(process, request, attachment)
            self._since = None
            if reply is not None:
                return reply
            code = self.end()
            if self._killed_at == since:
                return _failed("damaged", "takes too long to open")
            deaths += self._killed_at is None
            if deaths == _DEATHS:
                return _failed("memory" if code == _KILLED else "damaged", _death(code))
            self._killed_at = None  # the kill was meant for the image before: once more
        return _failed("damaged", "not opened")

    def stop(self) -> None:
        """End the process; no other is started."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def end(self) -> int:
        """Close the pipes of the process and wait for its end; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if self._stopped:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # the process is gone, and so is what it had not read
                    pipe.close()
        return process.wait()

    def kill_if_overdue(self, timeout: float) -> None:
        since = self._since
        process = self._process
        if since is not None and process is not None and time.monotonic() - since > timeout:
            self._killed_at = since
            process.kill()


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any], attachment: bytes) -> Reply | None:
    """The reply, or None where the process is dead."""
    assert process.stdin is not None
    assert process.stdout is not None
    header = {**request, "bytes": len(attachment)} if attachment else request
    try:
        process.stdin.write(json.dumps(header).encode("ascii") + b"\n")
        if attachment:
            process.stdin.write(attachment)
        process.stdin.flush()
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        fields = json.loads(line)
        size = fields.pop("bytes", 0)
        attached = process.stdout.read(size) if size else b""
    except BrokenPipeError:
        return None
    return Reply(fields, attached) if len(attached) == size else None


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process that has reported that it is ready; started again where it is killed before that.

    It runs a command of its own, so that the caller's script is not imported again. Raises `CaptuneError` where none
    becomes ready.
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
        last_line: deque[bytes] = deque(maxlen=1)
        # What libraries print has to go somewhere: not to a file, whose disk may be full or not there.
        reader = threading.Thread(target=_read_lines, args=(process.stderr, last_line), daemon=True)
        reader.start()
        timer = threading.Timer(_START_SECONDS, process.kill)
        timer.start()
        assert process.stdout is not None
        assert process.stdin is not None
        ready = process.stdout.readline()
        timer.cancel()
        if ready:
            return process
        code = process.wait()
        reader.join(1.0)
        process.stdin.close()
        process.stdout.close()
        if code >= 0 or attempt == _STARTS:
            break
    reason = last_line[0].decode("utf-8", "replace").strip() if last_line else _death(code)
    raise CaptuneError(
        f"Cannot start a process to open images: {reason}.",
        "Run `captune doctor` to see what is wrong with this Python.",
    )


def _read_lines(stream: IO[bytes], last: deque[bytes]) -> None:
    """Read a stream to its end; its last line that is not blank is left in `last`."""
    with stream:
        while line := stream.readline(_MAX_LINE_BYTES):
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
