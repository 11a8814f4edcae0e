"""`captune tune`: trainings with drawn options, each judged by its validation, the poor ones cut short."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.app.train import train
from captune.core.config import find_option, leaves, resolve
from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError, UsageError
from captune.core.files import write_json
from captune.core.folders import missing_folders
from captune.core.options import TuneConfig, TuneOptions
from captune.core.progress import SILENT, Progress
from captune.core.runs import SEARCH_JOURNAL, Run

if TYPE_CHECKING:
    import optuna

STOPPED = "stopped"
BEST = "best.json"
# Drawn where nothing else is asked for.
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
        known = {option: leaf for option, leaf in leaves(TuneConfig).items() if leaf.section != "tune"}
        name = find_option(name, known, "The search").name
        found = _RANGE.fullmatch(values.strip())
        try:
            if found:
                low, high = float(found[1]), float(found[2])
                whole = "." not in found[1] + found[2] and "e" not in (found[1] + found[2]).lower()
                if low < high and (low > 0 or not found[3]):
                    return cls(name, low=low, high=high, log=bool(found[3]), whole=whole)
            elif "|" in values:
                return cls(name, choices=tuple(part.strip() for part in values.split("|")))
        except ValueError:
            pass
        raise UsageError(
            f"'{text}' says no values to search over.",
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
    environment = os.environ if environment is None else environment
    axes = [Axis.parse(text) for text in (tuple(space) or DEFAULT_SPACE)]
    sets = tuple(sets)
    resolved = resolve(TuneConfig, preset=preset, file=config, environment=environment, flags=options, sets=sets)
    fixed = {name: value for name, value in options.items() if leaves(TuneConfig)[name].section != "tune"}
    clash = [axis.name for axis in axes if axis.name in fixed]
    if clash:
        raise UsageError(f"{clash[0]} is searched over and set at once.", f"Leave out --{clash[0].replace('_', '-')}.")
    folder = Path(out)
    missing = missing_folders(folder)
    new = not (folder / SEARCH_JOURNAL).exists()
    study = _open_study(folder, resolved.values.tune)
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
    trials = _Trials(study, folder, axes, resolved.values.tune, training, progress)
    trials.run()
    if trials.refusals.last is not None and study.trials[-1].user_attrs.get("error") == str(trials.refusals.last):
        if new and all(trial.state.name == "FAIL" for trial in study.trials):
            _remove(folder, missing)
        raise trials.refusals.last
    if trials.stopped is not None:
        done = sum(trial.state.is_finished() for trial in study.trials) - 1
        raise CaptuneError(
            f"Stopped by a signal. {done} trials are finished in {folder}.",
            "The same command goes on with the search.",
            code=trials.stopped,
        )
    return _finished(study, folder)


def _open_study(folder: Path, options: TuneOptions) -> optuna.Study:
    """The search that lies in a folder, or a new one."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise CaptuneError("captune tune needs optuna.", "pip install 'captune[tune]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name="captune",
        storage=JournalStorage(JournalFileBackend(str(folder / SEARCH_JOURNAL))),
        direction="minimize" if options.goal == "loss" else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=options.random_trials) if options.prune else None,
        load_if_exists=True,
    )
    # A search that goes on must not draw again what it drew before.
    seed = options.search_seed + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=options.random_trials)
    return study


def _remove(folder: Path, missing: Iterable[Path]) -> None:
    """Take away what a search that could not begin has made."""
    for path in folder.glob(f"{SEARCH_JOURNAL}*"):
        path.unlink(missing_ok=True)
    for made in missing:
        with suppress(OSError):  # something else lies in it
            made.rmdir()


class _Trials:
    """Trainings with drawn options; `stopped` is the exit code of the signal that ended them."""

    def __init__(
        self,
        study: optuna.Study,
        folder: Path,
        axes: Sequence[Axis],
        options: TuneOptions,
        training: Callable[..., Any],
        progress: Progress,
    ) -> None:
        self.study, self.folder, self.axes, self.options = study, folder, axes, options
        self.training, self.progress = training, progress
        self.refusals = _Refusals()
        self.stopped: int | None = None

    def run(self) -> None:
        """Train until as many trials are finished as were wished for."""
        done = sum(t.state.is_finished() and STOPPED not in t.user_attrs for t in self.study.trials)
        left = self.options.trials - done
        if left <= 0:
            return
        with self.progress.task("Trials", left) as task:
            self.study.optimize(
                self._trial, n_trials=left, catch=(CaptuneError,), callbacks=[lambda *_: task.advance(1)]
            )

    def _trial(self, trial: optuna.Trial) -> float:
        drawn = {axis.name: axis.draw(trial) for axis in self.axes}
        run, goal = self.folder / f"trial-{trial.number:03}", self.options.goal
        trial.set_user_attr("run", run.name)
        shown = (
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in drawn.items()
        )
        self.progress.say(f"trial {trial.number}: {', '.join(shown)}")
        try:
            self.training(out=run, watch=_Watch(trial, goal, prune=self.options.prune), **drawn)
        except CaptuneError as error:
            self._failed(trial, error, begun=run.exists())
            raise
        value = best_value(Run(run), goal)
        if value is None:
            raise CaptuneError(f"Trial {trial.number} measured no {goal}.", "Choose another --goal.")
        self.progress.say(f"trial {trial.number}: {goal} {value:.4f}")
        return value

    def _failed(self, trial: optuna.Trial, error: CaptuneError, *, begun: bool) -> None:
        """Note why a trial failed, and end the search where the others would fail as well."""
        import optuna

        if error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED):
            self.study.stop()
            self.stopped = error.code
            trial.set_user_attr(STOPPED, True)
            self.study.enqueue_trial(trial.params)  # it is the first when the search goes on
            raise optuna.TrialPruned(STOPPED) from None
        trial.set_user_attr("error", str(error))
        if self.refusals.alike(error, begun=begun):
            self.study.stop()  # it is not what was drawn that cannot begin
        self.progress.say(f"trial {trial.number} failed: {error.message}")


class _Refusals:
    """Trials that could not begin, one after another, for the same reason; `last` once there are enough of them."""

    def __init__(self) -> None:
        self.last: CaptuneError | None = None
        self._messages: list[str] = []

    def alike(self, error: CaptuneError, *, begun: bool) -> bool:
        """Note how a trial failed; whether all so far were refused alike."""
        self._messages.append("" if begun else error.message)
        enough = len(self._messages) >= _REFUSED and len(set(self._messages)) == 1 and not begun
        self.last = error if enough else None
        return enough


class _Watch:
    """Tells a trial of every validation, and ends a training whose trial is not worth going on with."""

    def __init__(self, trial: optuna.Trial, goal: str, *, prune: bool) -> None:
        self.trial, self.goal, self.prune, self.steps = trial, goal, prune, 0

    def __call__(self, scores: Mapping[str, float]) -> None:
        import optuna

        if self.goal in scores:
            self.trial.report(float(scores[self.goal]), self.steps)
            self.steps += 1
            if self.prune and self.trial.should_prune():
                raise optuna.TrialPruned(f"poor after {self.steps} validations")


def best_value(run: Run, goal: str) -> float | None:
    """The best of a run's validations."""
    found = (line.get(f"eval_{goal}") for line in run.history())
    values = [value for value in found if value is not None]
    if not values:
        return None
    return float(min(values) if goal == "loss" else max(values))


def _finished(study: optuna.Study, folder: Path) -> Tuned:
    from captune.engine.figures import draw_search

    states: dict[str, int] = {}
    for trial in study.trials:
        state = STOPPED if STOPPED in trial.user_attrs else trial.state.name.lower()
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
        folder / BEST,
        {"value": best.value, "options": best.params, "run": best.user_attrs["run"], "trials": states},
    )
    return Tuned(folder, folder / best.user_attrs["run"], best.value, dict(best.params), states)
