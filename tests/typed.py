"""Command lines typed in tests, each run by a copy of a process that has imported torch already."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).resolve().parent


def start_warm_process(environment: Mapping[str, str], tests: int) -> str:
    """The address of a process that runs command lines, beside it `bin/captune`, which asks it.

    It ends soon after the process `tests`, and takes its folder away.
    """
    folder = Path(mkdtemp(prefix="captune-"))  # not in pytest's: the name of a socket is short
    address = str(folder / "warm")
    command = folder / "bin" / "captune"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{HERE / "warm_shim.py"}" "$@"\n')
    command.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, str(HERE / "warm_process.py"), address, str(tests)],
        env={**os.environ, **environment}, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not listens(address):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError("The warm process did not start.")
        time.sleep(0.05)
    return address


def listens(address: str) -> bool:
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
