"""When to log, validate, save and stop: decided by step alone, so that a resumed run does the same."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from captune.core.runs import Ending, Reason, Run
from captune.inference.processes import ALONE, Processes
from captune.training.selection import SINGLE, choose, shown_score


def ending_at(state: TrainerState, reason: Reason, text: str, **details: Any) -> Ending:
    """An ending at the current step."""
    return Ending(reason, text, state.global_step, float(state.epoch or 0.0), details)


class Schedule(TrainerCallback):
    """Logs every `log_every` steps, validates and saves every `validate_every` and at the end; saves at `save_at`."""

    def __init__(self, *, log_every: int, validate_every: int, save_at: Callable[[int], bool]) -> None:
        self.log_every, self.validate_every, self.save_at = log_every, validate_every, save_at

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        last = state.global_step >= state.max_steps
        control.should_log = last or state.global_step % self.log_every == 0
        due = last or state.global_step % self.validate_every == 0
        control.should_evaluate, control.should_save = due, due or self.save_at(state.global_step)
        control.should_training_stop |= last
        return control


class EarlyStop(TrainerCallback):
    """Stops after `patience` validations (0: never) after the one that a selection rule finds best.

    It reads the run's history, so a resumed run stops where an uninterrupted one would.
    """

    def __init__(self, run: Run, rule: str, patience: int, processes: Processes = ALONE) -> None:
        self.run, self.rule, self.patience, self.processes = run, rule, patience, processes
        self.ending: Ending | None = None

    def exhausted(self) -> Ending | None:
        """Why training ends, where the last `patience` validations in the history brought nothing better."""
        history = self.run.history()
        best = choose(history, self.rule)
        if best is None:
            return None
        later = [line for line in history if "eval_loss" in line and line["step"] > best.step]
        if not len(later) >= self.patience > 0:
            return None
        last = later[-1]
        score = SINGLE.get(best.rule)
        value = best.scores.get(score) if score else None
        figure = f" ({shown_score(score, value)})" if score and value is not None else ""
        return Ending(
            "early-stopping",
            f"early stopping at epoch {last.get('epoch') or 0:g} (step {last['step']}): by {best.rule} the best of all "
            f"validations is that of epoch {best.epoch:g}{figure}, and the {len(later)} since brought nothing better "
            f"(--early-stopping-patience {self.patience})",
            int(last["step"]),
            float(last.get("epoch") or 0.0),
            {
                "metric": best.rule,
                "best": value,
                "best_step": best.step,
                "best_epoch": best.epoch,
                "patience": self.patience,
            },
        )

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        self.ending = self.processes.share(self.exhausted())
        control.should_training_stop |= self.ending is not None
        return control


class OnValidation(TrainerCallback):
    """Calls `watch` with the scores of every validation; what it raises ends the training."""

    def __init__(self, watch: Callable[[Mapping[str, float]], None]) -> None:
        self.watch = watch
        self.ending: Ending | None = None

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        try:
            self.watch({name.removeprefix("eval_"): value for name, value in (metrics or {}).items()})
        except Exception as error:
            pruned = type(error).__name__ == "TrialPruned"
            self.ending = ending_at(
                state,
                "pruned" if pruned else "watch",
                f"{'pruned by the search' if pruned else 'ended from outside'} after the validation of epoch "
                f"{state.epoch or 0:g} (step {state.global_step}): {str(error) or type(error).__name__}",
            )
            raise


class OnSave(TrainerCallback):
    """Calls `then` after every checkpoint."""

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.then()


class StopSignals(TrainerCallback):
    """On SIGTERM or Ctrl-C the current step is finished, a checkpoint written, and training stops.

    A second signal stops at once. `received` is the signal, or None. One that reaches a single
    process stops all after the same step.
    """

    def __init__(self, processes: Processes) -> None:
        self.received: int | None = None
        self.ending: Ending | None = None
        self.processes = processes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self.processes.any(self.received is not None):
            self.received = self.received or signal.SIGTERM
            control.should_save = control.should_training_stop = True
            name = signal.Signals(self.received).name
            text = f"stopped by {name} at epoch {state.epoch or 0:.4g} (step {state.global_step})"
            self.ending = ending_at(state, "signal", text, signal=name)
        return control
