"""How work reports its progress: the command line draws it, all other code only calls these methods."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

T = TypeVar("T")


class Task:
    """One bar; this one draws nothing."""

    def advance(self, steps: float = 1) -> None:
        """Move the bar by `steps`."""

    def note(self, text: str) -> None:
        """Show a short text behind the bar, such as the current loss."""

    def total(self, steps: float) -> None:
        """Set the number of steps once it is known."""


class Progress(Protocol):
    """Where work reports its progress, notes and warnings."""

    def task(self, label: str, total: float | None = None, done: float = 0) -> AbstractContextManager[Task]:
        """A bar of `total` steps (None: unknown), shown within the `with` block.

        `done` steps were taken earlier and do not count for the speed.
        """

    def info(self, text: str) -> None:
        """One line that stays on the screen."""

    def warn(self, text: str) -> None:
        """One line that the user should not miss."""


class Silent:
    """Reports nothing: the default of the Python functions."""

    def task(self, label: str, total: float | None = None, done: float = 0) -> AbstractContextManager[Task]:
        return nullcontext(Task())

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
