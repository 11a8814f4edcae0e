"""Progress on the terminal: bars where someone watches, a plain line now and then where not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from captune.core.progress import Task
from captune.core.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

EVERY_SECONDS = 10.0
EVERY_SHARE = 0.1
AT_LEAST_EVERY_SECONDS = 60.0


class TerminalProgress:
    """`core.progress.Progress` on stderr.

    On a terminal every open task is a bar with rate and time left. Elsewhere a task writes
    a line at most every 10 seconds, when a tenth more is done or a minute has passed.
    `quiet` leaves only warnings.
    """

    def __init__(
        self, *, quiet: bool = False, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from captune.cli.terminal import console

        self.quiet = quiet
        self._clock = clock
        self._stream = stream
        self._console = console(stderr=True)
        if stream is not None:
            self._console.file = stream
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._open = 0

    @property
    def drawn(self) -> bool:
        """Whether bars are drawn, rather than lines written."""
        return self._console.is_terminal and not self._console.is_dumb_terminal and not self.quiet

    @contextmanager
    def task(self, label: str, total: float | None = None, done: float = 0) -> Iterator[Task]:
        if self.quiet:
            yield Task()
        elif self.drawn:
            with self._bar(label, total, done) as bar:
                yield bar
        else:
            line = _Lines(label, total, self._line, self._clock, done)
            yield line
            line.done()

    def info(self, text: str) -> None:
        if not self.quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        self._line(f"warning: {text}", style="yellow")

    def _line(self, text: str, style: str = "") -> None:
        from rich.text import Text

        # A running bar draws its lines through its own console, which is this one.
        self._console.print(Text(printable(text), style=style))

    @contextmanager
    def _bar(self, label: str, total: float | None, done: float) -> Iterator[Task]:
        with self._lock:
            if self._bars is None:
                self._bars = _bars(self._console)
                self._bars.start()
            self._open += 1
            bars = self._bars
            bar = bars.add_task(printable(label), total=total, completed=int(done), note="")
        try:
            yield _Bar(bars, bar)
        finally:
            with self._lock:
                self._open -= 1
                if self._open:
                    bars.remove_task(bar)
                else:
                    bars.stop()
                    self._bars = None


def _bars(screen: object) -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as Row
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Row) -> Text:
            speed = task.finished_speed or task.speed
            return Text(rate(speed) if speed else "", style="dim")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=screen,  # type: ignore[arg-type]
        expand=True,
        redirect_stdout=sys.stdout.isatty(),
    )


class _Bar(Task):
    def __init__(self, bars: Bars, bar: TaskID) -> None:
        self._bars, self._bar = bars, bar

    def advance(self, steps: float = 1) -> None:
        self._bars.advance(self._bar, steps)

    def note(self, text: str) -> None:
        self._bars.update(self._bar, note=printable(text))

    def total(self, steps: float) -> None:
        self._bars.update(self._bar, total=steps)


class _Lines(Task):
    """A task as lines of text."""

    def __init__(
        self, label: str, total: float | None, write: Callable[[str], None], clock: Callable[[], float], before: float
    ) -> None:
        self._label, self._total, self._write, self._clock = label, total, write, clock
        self._lock = threading.Lock()
        self._done = self._printed_done = self._before = before
        self._note = ""
        self._start = self._printed_at = clock()

    def advance(self, steps: float = 1) -> None:
        with self._lock:
            self._done += steps
            now = self._clock()
            waited = now - self._printed_at
            moved = (self._done - self._printed_done) / self._total if self._total else 1.0
            if waited >= EVERY_SECONDS and (moved >= EVERY_SHARE or waited >= AT_LEAST_EVERY_SECONDS):
                self._printed_at, self._printed_done = now, self._done
                self._write(self._text(now))

    def note(self, text: str) -> None:
        self._note = text

    def total(self, steps: float) -> None:
        self._total = steps

    def done(self) -> None:
        """The closing line, for a task that took long enough to be noticed."""
        took = self._clock() - self._start
        if took >= 1:
            steps = self._done - self._before
            done = f"{steps:g} in " if steps else ""
            self._write(f"{self._label}: {done}{duration(took)}{self._behind()}")

    def _text(self, now: float) -> str:
        took = now - self._start
        speed = (self._done - self._before) / took if took > 0 else 0.0
        text = f"{self._label}: {self._done:g}"
        if self._total:
            text += f"/{self._total:g} ({100 * self._done / self._total:.0f} %)"
        if speed:
            text += f", {rate(speed)}"
            if self._total and self._total > self._done:
                text += f", {duration((self._total - self._done) / speed)} left"
        return text + self._behind()

    def _behind(self) -> str:
        return f", {self._note}" if self._note else ""


def warn_failed(failed: Iterable[tuple[str, str]]) -> None:
    """A warning for each image that failed, with its reason."""
    progress = TerminalProgress()
    for image, reason in failed:
        progress.warn(f"{image}: {reason}")


def rate(per_second: float) -> str:
    """Steps in a second, or in a minute where that is easier to read."""
    if per_second >= 1000:
        return f"{float(f'{per_second:.3g}'):,.0f}/s"
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{60 * per_second:.3g}/min"


def duration(seconds: float) -> str:
    """Seconds as `8 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
