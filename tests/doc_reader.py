"""A reader who works through a page: one folder, one shell, one Python session, one server at a time."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import warm_shim
from doc_blocks import PYTHON, Block

HERE = Path(__file__).resolve().parent
# Options that nobody gave; what a page says itself wins.
SHORT = {
    "CAPTUNE_MAX_STEPS": "2", "CAPTUNE_TRIALS": "2", "CAPTUNE_MAX_NEW_TOKENS": "8", "CAPTUNE_RESAMPLES": "20",
    "CAPTUNE_VALIDATION_IMAGES": "4", "CAPTUNE_IMAGE_SIZE": "32", "CAPTUNE_TRACKERS": "none", "CAPTUNE_DEVICE": "cpu",
    "CAPTUNE_PRECISION": "fp32", "CAPTUNE_OPEN_BROWSER": "false",
    "CAPTUNE_SIGHT_CHECK": "false", "CAPTUNE_WRITE_FLAGGED": "true",
}  # fmt: skip
# What a page says itself and nobody wants to wait for.
LONG = {re.compile(r"--max-steps \d+"): "--max-steps 2", re.compile(r"\btrain=\d{3,}"): "train=40"}
SERVED = re.compile(r"127\.0\.0\.1:(8000|8501)")


class Failed(AssertionError):
    """A block that does not do what the page says."""


class Reader:
    """Runs the blocks of one page in `folder`, one after the other."""

    def __init__(self, folder: Path, warm: str, environment: Mapping[str, str], traced: Path) -> None:
        self.folder, self.warm, self.port = folder, warm, free_port()
        self.out, self.log, self.server = (folder.with_suffix(end) for end in (".out", ".log", ".server"))
        commands = f"{Path(warm).parent / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {
            **os.environ, **SHORT, **environment, "PATH": commands, "CAPTUNE_PORT": str(self.port), "DOC_WARM": warm,
            "DOC_SERVER": str(self.server), "DOC_TRACED": str(traced), "COLUMNS": "120",
        }  # fmt: skip
        self.session: socket.socket | None = None

    def run(self, block: Block) -> None:
        """Run a block, or compare it with what the last one printed; raises `Failed` with what was said."""
        if block.printed:
            self._compare(block)
            return
        if block.page.stem == "vlm":  # its images keep their own sizes
            self.environment.pop("CAPTUNE_IMAGE_SIZE", None)
        code = SERVED.sub(f"127.0.0.1:{self.port}", block.code)
        for long, short in LONG.items():
            code = long.sub(short, code)
        with open(self.log, "ab") as log, open(self.out, "ab") as out:  # the session writes behind what is there
            log.truncate(0)
            out.truncate(0)
            run = self._python if block.language == PYTHON else self._shell
            wrong = run(code, out.fileno(), log.fileno())
        if wrong:
            said = self.out.read_text(errors="replace")[-3000:] + self.log.read_text(errors="replace")[-3000:]
            raise Failed(f"{block.place}: {wrong}\n{block.code}\n{said}")

    def _compare(self, block: Block) -> None:
        printed = self.out.read_text(encoding="utf-8")
        if printed.strip() != block.code.strip():
            raise Failed(f"{block.place}: the page says\n{block.code}\nand the block before prints\n{printed}")

    def _shell(self, code: str, out: int, log: int) -> str:
        lines = [line for line in code.splitlines() if not line.startswith("pip install ")]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, stdout=out, stderr=log, timeout=300, check=False,
        )  # fmt: skip
        return f"exit code {done.returncode}" if done.returncode else ""

    def _python(self, code: str, out: int, log: int) -> str:
        if self.session is None:
            self.session = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.session.settimeout(300)
            self.session.connect(self.warm)
            request = {"folder": str(self.folder), "environment": self.environment}
            socket.send_fds(self.session, [json.dumps(request).encode() + b"\n"], [out, log])
            self.session.recv(1)  # it is ready: two lines in one packet would be one request
        self.session.sendall(json.dumps(code).encode() + b"\n")
        with self.session.makefile("r", encoding="utf-8") as answers:
            return str(json.loads(answers.readline() or '"the session ended"'))

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
        warm_shim.stop(str(self.server), self.port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
