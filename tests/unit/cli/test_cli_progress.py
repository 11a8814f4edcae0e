from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from captune.cli.progress import TerminalProgress, duration, rate
from captune.core.progress import track


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(seconds: float, steps: int, total: float | None) -> list[str]:
    """What a pipe gets from a task of `steps` steps that take `seconds` each."""
    stream, clock = io.StringIO(), Clock()
    with TerminalProgress(stream=stream, clock=clock).task("Working", total) as task:
        for _ in range(steps):
            clock.now += seconds
            task.advance()
    return stream.getvalue().splitlines()


def test_a_quick_task_says_nothing() -> None:
    assert lines_of(0.001, 100, 100) == []


def test_lines_come_at_most_every_ten_seconds() -> None:
    # 100 steps in 25 s: a tenth goes by every 2.5 s, but lines wait for ten seconds.
    assert lines_of(0.25, 100, 100) == [
        "Working: 40/100 (40 %), 4/s, 15 s left",
        "Working: 80/100 (80 %), 4/s, 5 s left",
        "Working: 100 in 25 s",
    ]


def test_lines_come_at_most_every_tenth() -> None:
    # 200 s: lines at each tenth, not every ten seconds of a longer job.
    assert len(lines_of(2.0, 100, 100)) == 11
    assert len(lines_of(5.0, 100, 100)) == 11


def test_a_long_task_says_something_every_minute() -> None:
    assert len(lines_of(30.0, 100, 100_000)) == 51


def test_an_unknown_total_still_moves() -> None:
    assert lines_of(1.0, 25, None) == ["Working: 10, 1/s", "Working: 20, 1/s", "Working: 25 in 25 s"]


def test_a_task_that_fails_is_not_done() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = TerminalProgress(stream=stream, clock=clock)

    def fails() -> Iterator[int]:
        clock.now += 100
        raise OSError("gone")
        yield 1

    with pytest.raises(OSError, match="gone"):
        list(track(fails(), progress, "Working", 10))
    assert stream.getvalue() == ""


def test_notes_and_messages() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = TerminalProgress(stream=stream, clock=clock)
    with progress.task("Training") as task:
        task.total(4)
        task.note("loss 1.5")
        progress.info("[bold] is no markup")
        progress.warn("careful")
        clock.now += 20
        task.advance(2)
    assert stream.getvalue().splitlines() == [
        "[bold] is no markup",
        "warning: careful",
        "Training: 2/4 (50 %), 6/min, 20 s left, loss 1.5",
        "Training: 2 in 20 s, loss 1.5",
    ]


def test_quiet_leaves_warnings() -> None:
    stream = io.StringIO()
    progress = TerminalProgress(quiet=True, stream=stream)
    progress.info("hello")
    assert list(track(range(3), progress, "Working")) == [0, 1, 2]
    progress.warn("careful")
    assert stream.getvalue() == "warning: careful\n"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen()
    progress = TerminalProgress(stream=screen)
    assert progress.drawn
    with progress.task("Outer", 2) as outer:
        with progress.task("Inner", 5) as inner:
            inner.advance(5)
            inner.note("[1/0] is no markup")
        progress.info("between")
        outer.advance(2)
    text = screen.getvalue()
    assert "Outer" in text
    assert "between" in text
    assert "2/2" in text
    # A second round starts a new set of bars.
    with progress.task("Again", 1):
        pass
    assert "Again" in screen.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert not TerminalProgress(stream=Screen()).drawn


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rates() -> None:
    assert rate(12.345) == "12.3/s"
    assert rate(11437.0) == "11,400/s"
    assert rate(0.5) == "30/min"
