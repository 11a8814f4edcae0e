"""When to log, validate, save and stop: decided by step alone, so that a resumed run decides alike."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captune.core.runs import Run
from captune.engine.processes import Processes
from captune.engine.selection import choose


class Schedule(TrainerCallback):
    """Logs every `log_every` steps, validates and saves every `validate_every` and at the end."""

    def __init__(self, *, log_every: int, validate_every: int) -> None:
        self.log_every, self.validate_every = log_every, validate_every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        last = state.global_step >= state.max_steps
        control.should_log = last or state.global_step % self.log_every == 0
        due = last or state.global_step % self.validate_every == 0
        control.should_evaluate = control.should_save = due
        control.should_training_stop |= last
        return control


class EarlyStop(TrainerCallback):
    """Stops after `patience` validations (0: never) behind the one that a selection rule finds best.

    It reads the run's history, so a resumed run stops where an uninterrupted one would.
    """

    def __init__(self, run: Run, rule: str, patience: int, processes: Processes) -> None:
        self.run, self.rule, self.patience, self.processes = run, rule, patience, processes

    def exhausted(self) -> bool:
        """Whether the last `patience` validations in the history brought nothing better."""
        history = self.run.history()
        best = choose(history, self.rule)
        since = sum("eval_loss" in line and line["step"] > best.step for line in history) if best else 0
        return since >= self.patience > 0

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        control.should_training_stop |= self.processes.share(self.exhausted())
        return control


class Watched(TrainerCallback):
    """Hands the scores of every validation to somebody, who may raise."""

    def __init__(self, watch: Callable[[Mapping[str, float]], None]) -> None:
        self.watch = watch

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self.watch({name.removeprefix("eval_"): value for name, value in (metrics or {}).items()})


class Saved(TrainerCallback):
    """Calls somebody behind every checkpoint."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.then()


class StopSignals(TrainerCallback):
    """On SIGTERM or Ctrl-C the current step is finished, a checkpoint written, and training stops.

    A second signal stops at once. `received` is the signal, or None. One that reaches a single
    process stops all behind the same step.
    """

    def __init__(self, processes: Processes) -> None:
        self.received: int | None = None
        self.processes = processes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self.processes.any(self.received is not None):
            self.received = self.received or signal.SIGTERM
            control.should_save = control.should_training_stop = True
        return control


def steps_between(visits: int, batch_size: int, accumulation: int, epochs: float, devices: int = 1) -> int:
    """Optimizer steps in `epochs` epochs, as the trainer counts them; at least one."""
    batches = -(-visits // (batch_size * devices))
    return max(1, round(-(-batches // accumulation) * epochs))
