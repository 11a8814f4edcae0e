"""A tracker whose failures are warnings: the training goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captune.core.endings import Ending
from captune.core.errors import first_line
from captune.core.progress import Progress
from captune.core.runs import HISTORY, Run

SUCCESSES = ("all-epochs", "max-steps", "early-stopping", "scst-guard")


class GuardedTracker(TrainerCallback):
    """Passes on what happens to a tracker until that fails: then it warns once and leaves it alone.

    `begin` makes the tracker, from the first event on; `end` closes it, also where the training failed.
    """

    def __init__(self, name: str, run: Run, begin: Callable[[], Any], progress: Progress) -> None:
        self.name, self.run, self.progress = name, run, progress
        self.tracker: Any = None
        self.lost = False
        self.tracker = self._safely(begin)

    def _safely(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.lost:
            return None
        try:
            return act(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the training's
            self.lost = True
            self.progress.warn(
                f"The tracker {self.name} failed and gets nothing more: {first_line(error, with_type=True)}. "
                f"Training goes on; all figures are in {self.run.path / HISTORY}."
            )
            return None

    def end(self, ending: Ending, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Close the tracker, which learns why the training ended."""
        if not self.lost:
            self.tracker.ended, self.tracker.success = ending.text, ending.reason in SUCCESSES
            self._safely(self.tracker.on_train_end, args, state, control)
        self.lost = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(self._event, "on_train_begin", args, state, control, **kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(self._event, "on_epoch_end", args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(self._event, "on_step_end", args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(self._event, "on_log", args, state, control, **kwargs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(self._event, "on_evaluate", args, state, control, **kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._safely(self._event, "on_save", args, state, control, **kwargs)

    def _event(self, event: str, *args: Any, **kwargs: Any) -> None:
        getattr(self.tracker, event)(*args, **kwargs)
