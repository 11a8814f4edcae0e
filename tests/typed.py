"""Command lines typed in tests, each run by a copy of a process that has imported torch already."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent


@contextmanager
def warm_process(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a process that runs command lines; `folder` also gets `bin/captune`, which asks it."""
    address = str(folder / "warm")
    command = folder / "bin" / "captune"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{HERE / "warm_shim.py"}" "$@"\n')
    command.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, str(HERE / "warm_process.py"), address],
        env={**os.environ, **environment}, start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not _listens(address):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("The warm process did not start.")
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()


def _listens(address: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return Path(address).exists() and probe.connect_ex(address) == 0


@dataclass(frozen=True)
class Typed:
    """`captune` as typed in a folder: its words, the exit codes it may end with, what it reads."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(
        self, *words: object, folder: Path, code: int | tuple[int, ...] = 0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        around = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120", **self.environment}
        done = subprocess.run(
            [*self.command, *map(str, words)],
            cwd=folder, env=around, input="" if stdin is None else stdin, text=True, capture_output=True, timeout=300,
        )  # fmt: skip
        assert done.returncode in (code if isinstance(code, tuple) else (code,)), (
            f"{words}\n{done.stdout}\n{done.stderr}"
        )
        assert "Traceback" not in done.stderr
        return done
