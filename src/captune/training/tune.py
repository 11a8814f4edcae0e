"""`captune tune`: trainings with sampled options, each judged by its validation, poor ones stopped early."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captune.core.config import find_option, leaves, resolve
from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError, UsageError
from captune.core.files import folders_to_make, write_json
from captune.core.files.locks import Locked, lock_file
from captune.core.machine import DiskFull
from captune.core.options import TuneOptions
from captune.core.progress import SILENT, Progress
from captune.core.runs import LOCK, SEARCH_JOURNAL, Run
from captune.training.train import train

if TYPE_CHECKING:
    import optuna


BEST = "best.json"
# Drawn where no space is given.
DEFAULT_SPACE = ("learning_rate=1e-5..5e-4:log", "batch_size=4|8|16", "label_smoothing=0..0.2", "warmup_ratio=0..0.2")
# So many trials that cannot begin for the same reason end a search.
_REFUSED = 2
_RANGE = re.compile(r"([-+.\deE]+)\.\.([-+.\deE]+)(:log)?")


@dataclass(frozen=True)
class Axis:
    """What an option may be: one of `choices`, or a number from `low` to `high`, evenly or by its logarithm."""

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @classmethod
    def parse(cls, text: str) -> Axis:
        """`learning_rate=1e-5..1e-3:log`, `batch_size=4|8|16` or `num_beams=1..5`."""
        name, _, values = text.partition("=")
        name = name.strip().replace("-", "_").removeprefix("__")
        known = {option: leaf for option, leaf in leaves("tune").items() if leaf.section != "tune"}
        name = find_option(name, known, "The search").name
        span = _RANGE.fullmatch(values.strip())
        try:
            if span:
                low, high = float(span[1]), float(span[2])
                whole = "." not in span[1] + span[2] and "e" not in (span[1] + span[2]).lower()
                if low < high and (low > 0 or not span[3]):
                    return cls(name, low=low, high=high, log=bool(span[3]), whole=whole)
            elif "|" in values:
                return cls(name, choices=tuple(part.strip() for part in values.split("|")))
        except ValueError:
            pass
        raise UsageError(
            f"'{text}' names no values to search over.",
            "For example: learning_rate=1e-5..1e-3:log, batch_size=4|8|16, label_smoothing=0..0.2",
        )

    def draw(self, trial: optuna.Trial) -> Any:
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Tuned:
    """A search: its folder, the best trial's run, value and options, and how the trials ended."""

    folder: Path
    best: Path | None
    value: float | None
    options: dict[str, Any]
    states: dict[str, int]


def tune(
    data: str | os.PathLike[str],
    model: str,
    out: str | os.PathLike[str],
    *,
    space: Iterable[str] = (),
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Tuned:
    """Search over options of `captune train` with Optuna; the study lies in `out` and goes on where it stopped.

    `space` names what is drawn (`learning_rate=1e-5..1e-3:log`, `batch_size=4|8`); all other
    options hold for every trial. A trial that fails is marked and the search goes on; Ctrl-C
    ends it with what is finished. Raises `CaptuneError` where Optuna is not installed or no
    trial has succeeded.
    """
    axes = [Axis.parse(text) for text in (tuple(space) or DEFAULT_SPACE)]
    sets = tuple(sets)
    resolved = resolve("tune", preset=preset, file=config, environment=environment, flags=options, sets=sets)
    fixed = {name: value for name, value in options.items() if leaves("tune")[name].section != "tune"}
    clash = [axis.name for axis in axes if axis.name in fixed]
    if clash:
        raise UsageError(f"{clash[0]} is searched over and set at once.", f"Leave out --{clash[0].replace('_', '-')}.")
    training = partial(
        train,
        data,
        model,
        config=config,
        preset=preset,
        sets=[text for text in sets if not text.startswith("tune.")],
        progress=progress,
        environment=environment,
        **fixed,
    )
    return search(Path(out), axes, resolved.values.tune, training, progress)


def search(
    folder: Path, axes: Sequence[Axis], options: TuneOptions, training: Callable[..., Any], progress: Progress = SILENT
) -> Tuned:
    """Search over `axes`; `training` trains with what was drawn, as keywords beside `out`, `resume` and `watch`."""
    missing = folders_to_make(folder)
    new = not (folder / SEARCH_JOURNAL).exists()
    refusals = _Refusals()
    smallest = options.goal == "loss"
    with open_study(folder, smallest=smallest, prune=options.prune, random_trials=options.random_trials) as study:
        _Trials(study, folder, axes, options, training, progress, refusals).run()
        only_refused = new and all(trial.state.name == "FAIL" for trial in study.trials)
        if refusals.last is None:
            return _finished(study, folder)
    if only_refused:
        _remove(folder, missing)
    raise refusals.last


def _remove(folder: Path, missing: Iterable[Path]) -> None:
    """Remove what a search that could not begin has made."""
    for path in folder.glob(f"{SEARCH_JOURNAL}*"):
        path.unlink(missing_ok=True)
    for made in missing:
        with suppress(OSError):  # something else lies in it
            made.rmdir()


@dataclass(frozen=True)
class _Trials:
    """Trainings with drawn options, one after another."""

    study: optuna.Study
    folder: Path
    axes: Sequence[Axis]
    options: TuneOptions
    training: Callable[..., Any]
    progress: Progress
    refusals: _Refusals

    def run(self) -> None:
        """Train until as many trials are finished as the options say, or all are refused alike."""
        left = self.options.trials - sum(trial.state.is_finished() for trial in self.study.trials)
        with self.progress.task("Trials", max(left, 0)) as task:
            while left > 0 and self.refusals.last is None:
                trial, stopped = next_trial(self.study)
                self._try(trial, stopped=stopped)
                left -= 1
                task.advance(1)

    def _try(self, trial: optuna.Trial, *, stopped: bool) -> None:
        """Bring a trial to its end; raises `CaptuneError` on a signal or a full disk: the next search goes on."""
        import optuna

        try:
            self.study.tell(trial, self._train(trial, stopped=stopped))
        except optuna.TrialPruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except CaptuneError as error:
            full = isinstance(error, DiskFull)  # of the machine, not of what was drawn
            if full or error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
                done = sum(each.state.is_finished() for each in self.study.trials)
                raise type(error)(
                    f"{error.message if full else 'Stopped by a signal.'} {done} trials are finished in {self.folder}.",
                    f"{'Free some space: the' if full else 'The'} same command goes on with the search.",
                    code=error.code,
                ) from None
            trial.set_user_attr("error", str(error))
            self.refusals.note(error, begun=(self.folder / _name(trial)).exists())
            self.progress.info(f"trial {trial.number} failed: {error.message}")
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _train(self, trial: optuna.Trial, *, stopped: bool) -> float:
        """The value that a trial reaches, which goes on where it was stopped."""
        drawn = self._draw(trial)
        run, goal = Run(self.folder / _name(trial)), self.options.goal
        trial.set_user_attr("run", run.path.name)
        shown = ", ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in drawn.items()
        )
        self.progress.info(f"trial {trial.number}{' goes on' if stopped else ''}: {shown}")
        watch = _TrialWatch(trial, run, goal, prune=self.options.prune)
        self.training(out=run.path, resume=stopped, watch=watch, **drawn)
        value = best_value(run, goal)
        if value is None:
            raise CaptuneError(f"Trial {trial.number} measured no {goal}.", "Choose another --goal.")
        self.progress.info(f"trial {trial.number}: {goal} {value:.4f}")
        return value

    def _draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """The options of a trial: those that it has already, others by seeds of their own."""
        import optuna

        drawn = {}
        for number, axis in enumerate(self.axes):
            self.study.sampler = optuna.samplers.TPESampler(
                seed=seed_for(self.options.search_seed, trial.number, number),
                n_startup_trials=self.options.random_trials,
            )
            drawn[axis.name] = axis.draw(trial)
        return drawn


def _name(trial: optuna.Trial) -> str:
    return f"trial-{trial.number:03}"


class _Refusals:
    """Counts trials in a row that could not begin for the same reason; `last` is the error once there are enough."""

    def __init__(self) -> None:
        self.last: CaptuneError | None = None
        self._messages: list[str] = []

    def note(self, error: CaptuneError, *, begun: bool) -> None:
        """Note how a trial failed: what was drawn is not to blame where all were refused alike."""
        self._messages.append("" if begun else error.message)
        enough = len(self._messages) >= _REFUSED and len(set(self._messages)) == 1 and not begun
        self.last = error if enough else None


class _TrialWatch:
    """Reports every validation to a trial, and ends the training where Optuna prunes the trial."""

    def __init__(self, trial: optuna.Trial, run: Run, goal: str, *, prune: bool) -> None:
        self.trial, self.run, self.goal, self.prune = trial, run, goal, prune

    def __call__(self, scores: Mapping[str, float]) -> None:
        import optuna

        if self.goal not in scores:
            return
        # Counted in the history, which goes on with a training that was stopped.
        steps = sum(f"eval_{self.goal}" in line for line in self.run.history()) - 1
        if steps not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
            self.trial.report(float(scores[self.goal]), steps)
        if self.prune and self.trial.should_prune():
            raise optuna.TrialPruned(f"poor after {steps + 1} validations")


def best_value(run: Run, goal: str) -> float | None:
    """The best of a run's validations."""
    values = [value for line in run.history() if (value := line.get(f"eval_{goal}")) is not None]
    if not values:
        return None
    return float(min(values) if goal == "loss" else max(values))


def _finished(study: optuna.Study, folder: Path) -> Tuned:
    from captune.training.history import draw_search

    states: dict[str, int] = {}
    for trial in study.trials:
        state = trial.state.name.lower()
        states[state] = states.get(state, 0) + 1
    done = [trial for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    if not done:
        errors = [trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs]
        raise CaptuneError(
            f"No trial of {folder} has succeeded{': ' + errors[-1] if errors else ''}.",
            "Mend what fails, then run the same command again: it goes on.",
        )
    best = study.best_trial
    draw_search([(trial.params, trial.value or 0.0) for trial in done], folder / "search.png")
    write_json(
        folder / BEST, {"value": best.value, "options": best.params, "run": best.user_attrs["run"], "trials": states}
    )
    return Tuned(folder, folder / best.user_attrs["run"], best.value, dict(best.params), states)


@contextmanager
def open_study(folder: Path, *, smallest: bool, prune: bool, random_trials: int) -> Iterator[optuna.Study]:
    """The study in a folder, made where there is none; no other search writes to it within the block.

    The trial with the `smallest` value is the best, or that with the largest; with `prune`, poor ones are cut short
    once `random_trials` are done. Raises `CaptuneError` where another search holds the folder, or without Optuna.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise CaptuneError("captune tune needs optuna.", "pip install 'captune[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = folder / SEARCH_JOURNAL
    try:
        with lock_file(folder / LOCK):
            _repair_journal(journal)
            yield optuna.create_study(
                study_name="captune",
                storage=JournalStorage(JournalFileBackend(str(journal))),
                direction="minimize" if smallest else "maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=random_trials) if prune else None,
                load_if_exists=True,
            )
    except Locked as error:
        raise CaptuneError(
            f"Another search{f' ({error.owner})' if error.owner else ''} writes to {folder}.",
            "Let it go on, or end it; or choose another --out.",
        ) from None


def _repair_journal(journal: Path) -> None:
    """Remove the lock and the cut line of a killed search: Optuna would wait half a minute for the lock, and never
    read on after the line.
    """
    for left in journal.parent.glob(f"{journal.name}.lock*"):
        left.unlink(missing_ok=True)
    if not journal.is_file():
        return
    with open(journal, "r+b") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def next_trial(study: optuna.Study) -> tuple[optuna.Trial, bool]:
    """The trial that was stopped before its end, or a new one; and whether it was stopped."""
    from optuna.trial import Trial, TrialState

    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if running:
        return Trial(study, running[0]._trial_id), True
    return study.ask(), False


def seed_for(search_seed: int, trial: int, axis: int) -> int:
    """The seed of one draw: it does not depend on what this process drew before."""
    return int(np.random.SeedSequence([search_seed, trial, axis]).generate_state(1)[0])
