"""Where and when a figure was measured, and how two ways are timed against each other."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str) -> str:
    """One line: date, processor, cores, Python, and the versions of packages."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{date.today()}: {model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


@dataclass(frozen=True)
class Paired:
    """Seconds of two ways, measured in turn; `ratio` is how many times the second is faster."""

    first: tuple[float, ...]
    second: tuple[float, ...]
    # Billions of operations of a call, and how many of them the machine does in a second at most; 0: not known.
    work: float = 0.0
    peak: float = 0.0

    @property
    def ratio(self) -> float:
        return statistics.median(a / b for a, b in zip(self.first, self.second, strict=True))

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest ratio of a pair."""
        ratios = [a / b for a, b in zip(self.first, self.second, strict=True)]
        return min(ratios), max(ratios)

    def row(self, name: str) -> tuple[str, ...]:
        low, high = self.spread
        times = (f"{statistics.median(side):.3f} s" for side in (self.first, self.second))
        share = f"{100 * self.work / min(self.second) / self.peak:.0f} %" if self.peak else ""
        return (name, *times, f"{self.ratio:.1f}×", f"{low:.1f}–{high:.1f}", share)


def paired(
    first: Callable[[], object],
    second: Callable[[], object],
    repeats: int,
    clock: Callable[[Callable[[], object]], float] | None = None,
) -> Paired:
    """Seconds of two ways in turn, by default of CPU time; the first run of each does not count."""
    clock = clock or cpu_seconds
    first(), second()
    sides: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, way in zip(sides, (first, second), strict=True):
            side.append(clock(way))
    return Paired(tuple(sides[0]), tuple(sides[1]))


def cpu_seconds(way: Callable[[], object]) -> float:
    """CPU seconds of a call, child processes that ended in it included."""
    before = os.times()
    way()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def wall_seconds(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, numbers to the right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *rows))
