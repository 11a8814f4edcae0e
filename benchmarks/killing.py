"""Commands of captune that are killed again and again, against the same command left alone.

Shared by `train_kills.py`, `bulk_kills.py` and `output_kills.py`. Each command runs in a working folder of its own,
with temporary files and a cache of its own. It gets SIGKILL, by turns after a random time and at a random one of the
moments at which a file appears, goes or gets another name, at most `MOST` times; then the same command (or the one that
goes on) is left to its end. Then the working folder has to be that of the command left alone, no temporary file may be
left, and no process that the killed one had started may outlive it by more than `PATIENCE` seconds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST = 3
PATIENCE = 2.0
_SHOWN = 6
_MARK = "CAPTUNE_KILLED_WITH"
_NAMES_ONLY = {".lock", ".captune-written", "written", ".written-here"}


def contents(folder: Path) -> dict[str, Any]:
    """Every file of a folder by its name.

    Of what captune notes before it writes (a kill may leave digests of what never came), of locks and of inode numbers
    only the names; the folder's own place is left out of what files say.
    """
    found, here = {}, os.fsencode(folder)
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"a link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = (
                "" if path.name in _NAMES_ONLY or path.suffix == ".lock" else path.read_bytes().replace(here, b"")
            )
    return found


def nothing(folder: Path) -> None:
    """Lay nothing into a working folder."""


@dataclass(frozen=True)
class Case:
    """A command, by its arguments in a working folder, which `lay` fills before it begins.

    `again` is the command after a kill, where it is another one; `whole` a file that says that all is done, for
    commands that refuse to do it twice; `state` is what has to be the same in the end; `decoders`: a decoder is killed
    in place of the command, which has to go on.
    """

    name: str
    command: Sequence[str]
    again: Callable[[Path], Sequence[str]] | None = None
    whole: str = ""
    lay: Callable[[Path], None] = nothing
    state: Callable[[Path], dict[str, Any]] = contents
    decoders: bool = False


class Killing:
    """Runs cases in a folder; `rows` are a table of what became of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.rows: list[tuple[str, ...]] = []
        self.kills = self.different = 0

    def kill(self, case: Case, kills: int) -> None:
        """Kill a case so many times; what differs in the end is printed and counted."""
        here = self.folder / case.name.replace(" ", "-")
        alone = here / "alone"
        case.lay(_made(alone))
        started = time.monotonic()
        _, changes, failed = self._run(alone, case.command, float("inf"), None)
        if failed:
            sys.exit(f"{case.name}, left alone: {failed}")
        seconds = time.monotonic() - started
        print(f"{case.name}: {seconds:.0f} s alone, {changes} changes of its folder", flush=True)
        expected, attempts, count, different = case.state(alone), 0, 0, 0
        while count < kills:
            attempts += 1
            work = here / f"killed-{attempts}"
            case.lay(_made(work))
            found, left = "", min(MOST, kills - count)
            while not found:
                command = case.again(work) if case.again else case.command
                after = float("inf") if count % 2 else self.chance.uniform(0, seconds)
                change = self.chance.randint(1, changes) if count % 2 else None
                if not left:
                    after, change = float("inf"), None
                dead, _, found = self._run(work, command, after, change, decoders=case.decoders)
                if dead:
                    count, left = count + 1, left - 1
                    print(f"  {case.name}: kill {count} of working folder {attempts}, "
                          f"{'at a file' if change else f'after {after:.1f} s'}", flush=True)  # fmt: skip
                if not dead or case.decoders or (case.whole and (work / "here" / case.whole).exists()):
                    break
            found = found or difference(expected, case.state(work)) or _left_over(work, alone)
            if found:
                different += 1
                print(f"  {case.name}: {work.name} differs: {found}", flush=True)
            else:
                shutil.rmtree(work)
        self.rows.append((case.name, f"{seconds:.0f} s", str(count), str(attempts), str(different)))
        self.kills, self.different = self.kills + count, self.different + different
        print(_row(self.rows[-1]), flush=True)

    def ending(self) -> str:
        """A table of all cases (seconds alone, kills, commands that came to their end, those that differ), and its sum.

        Ends the process with an error where something differs.
        """
        head = ("command", "alone", "kills", "finished", "different")
        table = "\n".join(map(_row, [head, ("---", *["---:"] * 4), *self.rows]))
        if self.different:
            sys.exit(f"\n{table}\n\n{self.kills} kills: {self.different} commands differ")
        return f"\n{table}\n\n{self.kills} kills: all that was finished equals what was left alone"

    def _run(
        self, work: Path, command: Sequence[str], after: float, change: int | None, *, decoders: bool = False
    ) -> tuple[bool, int, str]:
        """Whether a command was killed, after so many seconds or changes of its folder; the changes; what was wrong."""
        mark = str(uuid.uuid4())
        process = subprocess.Popen(
            [sys.executable, "-m", "captune", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=work / "here",
            env={**os.environ, "TMPDIR": str(work / "tmp"), "CAPTUNE_CACHE": str(work / "cache"), _MARK: mark},
        )
        started, changes, before, dead = time.monotonic(), 0, _names(work / "here"), False
        with open(work / "errors", "w+b") as errors:
            assert process.stderr is not None
            os.set_blocking(process.stderr.fileno(), False)
            while process.poll() is None:
                errors.write(process.stderr.read() or b"")
                now = _names(work / "here")
                changes, before = changes + (now != before), now
                if not dead and (time.monotonic() - started > after or (change is not None and changes >= change)):
                    victim = self._decoder(mark, process.pid) if decoders else process.pid
                    if victim:
                        os.kill(victim, signal.SIGKILL)
                        dead = True
                time.sleep(0.003)
            errors.write(process.stderr.read() or b"")
            process.stderr.close()
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")
        dead = dead and (decoders or process.returncode == -signal.SIGKILL)  # it may have been done just before
        outliving = _outliving(mark)
        if outliving:
            return dead, changes, f"processes that outlive it: {outliving}"
        if process.returncode not in ((-signal.SIGKILL,) if dead and not decoders else (0, 3)):
            return dead, changes, f"captune {' '.join(command)}: exit code {process.returncode}\n{said[-2000:]}"
        return dead, changes, ""

    def _decoder(self, mark: str, parent: int) -> int:
        """One of the processes that a command has started, or 0."""
        children = [pid for pid in _processes(mark) if pid != parent]
        return self.chance.choice(children) if children else 0


def _made(work: Path) -> Path:
    for name in ("here", "tmp", "cache"):
        (work / name).mkdir(parents=True)
    return work


def _names(folder: Path) -> list[str]:
    return sorted(os.path.join(root, name) for root, *both in os.walk(folder) for names in both for name in names)


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """The first things that are otherwise than expected; empty where nothing is."""
    different = [
        f"{name} ({'missing' if name not in found else 'left over' if name not in expected else 'other content'})"
        for name in sorted({*expected, *found})
        if name not in expected or name not in found or expected[name] != found[name]
    ]
    return ", ".join(different[:_SHOWN]) + (f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else "")


def _left_over(work: Path, alone: Path) -> str:
    """Temporary files that an undisturbed command does not leave."""
    halves = [path for path in (work / "cache").rglob("*") if path.name.endswith(".part") or "building-" in path.name]
    left = [str(path.relative_to(work)) for path in [*(work / "tmp").iterdir(), *halves]]
    return f"temporary files: {', '.join(left)}" if len(left) > len(list((alone / "tmp").iterdir())) else ""


def _processes(mark: str) -> list[int]:
    """Processes that a command has started, itself among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended, or is another user's
    return found


def _outliving(mark: str) -> list[int]:
    """Processes of a command that are still there once it has ended and the time is over; they are ended here."""
    until = time.monotonic() + PATIENCE
    while (left := _processes(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
