"""How long work reports itself; the terminal draws it, everything below only speaks to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Task(Protocol):
    """One bar."""

    def advance(self, steps: float = 1) -> None:
        """Move the bar by `steps`."""

    def note(self, text: str) -> None:
        """Show a few words behind the bar, such as the current loss."""

    def total(self, steps: float) -> None:
        """Set the number of steps once it is known."""


class Progress(Protocol):
    """Where work reports how far it is and what it has to say."""

    def task(self, label: str, total: float | None = None, done: float = 0) -> AbstractContextManager[Task]:
        """A bar of `total` steps (None: unknown) that is open within the `with` block.

        `done` steps were taken before, and say nothing about how fast it goes.
        """

    def info(self, text: str) -> None:
        """One line for the reader, kept on the screen."""

    def warn(self, text: str) -> None:
        """One line that the reader should not miss."""


class _SilentTask:
    def __enter__(self) -> _SilentTask:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, steps: float = 1) -> None:
        return None

    def note(self, text: str) -> None:
        return None

    def total(self, steps: float) -> None:
        return None


class Silent:
    """Reports nothing: the default of the Python functions."""

    def task(self, label: str, total: float | None = None, done: float = 0) -> AbstractContextManager[Task]:
        return _SilentTask()

    def info(self, text: str) -> None:
        return None

    def warn(self, text: str) -> None:
        return None


SILENT = Silent()


def track(items: Iterable[T], progress: Progress, label: str, total: float | None = None) -> Iterator[T]:
    """Yield `items` and move a bar by one for each."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with progress.task(label, total) as task:
        for item in items:
            yield item
            task.advance()
