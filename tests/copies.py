"""Processes that start at once, for tests that stop them or join several: copies of a warm one (warm_process.py)."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path


class Copy:
    """`captune WORDS`, or a script with its words, in a process of its own; used as a `Popen` is.

    `stdout` and `stderr` are there when it has ended.
    """

    def __init__(
        self, warm: str, words: list[str], script: Path | None = None, folder: Path | None = None, **environment: str
    ) -> None:
        self.returncode: int | None = None
        self.stdout = self.stderr = ""
        self._printed = [os.memfd_create(name) for name in ("stdout", "stderr")]
        self._answers = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._answers.settimeout(60)
        self._answers.connect(warm)
        around = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environment}
        request = {
            "words": words,
            "folder": str(folder or os.getcwd()),
            "environment": around,
            "script": script and str(script),
        }
        with open(os.devnull) as nothing:
            files = [nothing.fileno(), *self._printed]
            socket.send_fds(self._answers, [json.dumps(request).encode() + b"\n"], files)
            self.pid = int(self._line())

    def until_it_prints(self, timeout: float = 60) -> None:
        """Wait until something stands on stdout."""
        end = time.monotonic() + timeout
        while not os.fstat(self._printed[0]).st_size:
            assert self.poll() is None, self.stderr
            assert time.monotonic() < end, "nothing is printed"
            time.sleep(0.01)

    def poll(self) -> int | None:
        if self.returncode is not None:
            return self.returncode
        gone = not _lives(self.pid)
        if select.select([self._answers], [], [], 0)[0]:
            code = int(self._line() or -signal.SIGKILL)
            end = time.monotonic() + 20
            while _lives(self.pid) and time.monotonic() < end:
                time.sleep(0.005)
            self.returncode = code
        elif gone:  # its loader workers, which are to end as well, still have the connection
            self.returncode = -signal.SIGKILL
        if self.returncode is not None:
            self._answers.close()
            self.stdout, self.stderr = (os.pread(file, os.fstat(file).st_size, 0).decode() for file in self._printed)
            for file in self._printed:
                os.close(file)
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"process {self.pid} did not end")
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if _lives(self.pid):
            os.kill(self.pid, number)

    def _line(self) -> str:
        """A line of the answer; empty where the process ended without one."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self._answers.recv(1)
            if not byte:
                return ""
            line += byte
        return line.decode()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def run(
    warm: str, *words: str, processes: int = 1, script: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command line or a script; as several processes it finds what torch's launcher would have set."""
    around = [{**environment, **each} for each in (_launched(processes) if processes > 1 else [{}])]
    copies = [Copy(warm, list(words), script, **each) for each in around]
    end = time.monotonic() + 300
    while any(copy.poll() is None for copy in copies):
        if any(copy.returncode for copy in copies) or time.monotonic() > end:
            time.sleep(0.5)
            for copy in copies:  # as the launcher does it
                copy.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    code = max((copy.wait() for copy in copies), key=abs)
    return subprocess.CompletedProcess(
        words, code, "".join(copy.stdout for copy in copies), "".join(copy.stderr for copy in copies)
    )


def _launched(processes: int) -> list[dict[str, str]]:
    """What torch's launcher sets for each of so many processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
