"""Look back on training runs: list, show, compare."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import read_json, read_yaml
from captune.core.runs import (
    CONFIG,
    EVAL,
    POINTERS,
    TRAIN_METRICS,
    Run,
    checkpoint_damage,
    ending_reason,
    ending_text,
    find_runs,
)
from captune.training.selection import RULES, BestScore, best_scores, choose, scores_of


@dataclass(frozen=True)
class RunSummary:
    """A run in one row.

    `best` is by score name without `eval_`, `size` in bytes, `problem` empty for a sound run.
    `ended` says why the training ended, in a sentence, `reason` in a few words (empty where no end is recorded).
    `damaged` says of checkpoints whose files are missing or of another size what is wrong; no file is read for it.
    """

    path: str
    created: str = ""
    model: str = ""
    finished: bool = False
    epochs: float = 0.0
    steps: int = 0
    best: dict[str, BestScore] = field(default_factory=dict)
    checkpoints: tuple[str, ...] = ()
    pointers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    problem: str = ""
    ended: str = ""
    reason: str = ""
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """`finished`, `stopped` (or still running), or `broken`."""
        return "broken" if self.problem else "finished" if self.finished else "stopped"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "state": self.state}


@dataclass(frozen=True)
class RunDetail:
    """All that a run says about itself; `evaluation` and `metrics` are empty where they were not written."""

    summary: RunSummary
    manifest: dict[str, Any]
    config: dict[str, Any]
    validations: tuple[dict[str, Any], ...]
    training: tuple[dict[str, Any], ...]
    metrics: dict[str, Any]
    evaluation: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "summary": self.summary.to_json()}


@dataclass(frozen=True)
class ValidatedStep:
    """One validation of a training: its scores, the rules that pick it, and its checkpoint if that was kept."""

    epoch: float
    step: int
    scores: dict[str, float]
    picked_by: tuple[str, ...]
    checkpoint: str | None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    `differences` holds the options that are not the same everywhere, one value a run;
    `validations` every validation of each run.
    """

    runs: tuple[RunSummary, ...]
    differences: dict[str, tuple[Any, ...]]
    validations: tuple[tuple[ValidatedStep, ...], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [run.to_json() for run in self.runs],
            "differences": self.differences,
            "validations": {
                run.path: [asdict(step) for step in steps]
                for run, steps in zip(self.runs, self.validations, strict=True)
            },
        }


def list_runs(folder: str | os.PathLike[str] = "runs") -> list[RunSummary]:
    """The runs in a folder, oldest first; a broken one is listed with its problem.

    Raises `CaptuneError` where the folder does not exist.
    """
    if not Path(folder).is_dir():
        raise CaptuneError(
            f"There is no folder {folder}.", "Name the folder that holds your runs: captune runs list FOLDER"
        )
    return sorted((_summary_or_problem(run) for run in find_runs(folder)), key=lambda s: (s.created, s.path))


def show_run(path: str | os.PathLike[str]) -> RunDetail:
    """Everything about one run; raises `CaptuneError` where `path` is not a run."""
    run = _run(path)
    history = run.history()
    return RunDetail(
        summary=_summary(run),
        manifest=run.manifest(),
        config=_config(run),
        validations=tuple(line for line in history if scores_of(line)),
        training=tuple(line for line in history if "loss" in line),
        metrics=_if_there(run.path / TRAIN_METRICS),
        evaluation=_if_there(run.path / EVAL),
    )


def compare_runs(paths: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Runs side by side, and the checkpoints of each; raises `CaptuneError` for a folder that is no run."""
    if not paths:
        raise CaptuneError("There is nothing to compare.", "For example: captune runs compare runs/a runs/b")
    runs = [_run(path) for path in paths]
    summaries = tuple(_summary(run) for run in runs)
    flat = [
        {"model": summary.model, **_data(run.manifest()), **_flat(_config(run))}
        for run, summary in zip(runs, summaries, strict=True)
    ]
    keys = dict.fromkeys(key for options in flat for key in options)
    differences = {
        key: tuple(options.get(key) for options in flat)
        for key in keys
        if any(options.get(key) != flat[0].get(key) for options in flat)
    }
    return Comparison(summaries, differences, tuple(_validated(run) for run in runs))


def _validated(run: Run) -> tuple[ValidatedStep, ...]:
    lines = [line for line in run.history() if scores_of(line)]
    scores = [scores_of(line) for line in lines]
    picks: dict[int, list[str]] = {}
    for name in RULES:
        choice = choose(lines, name)
        if choice is not None and choice.rule == name:  # one over nothing that this run measured picks nothing
            picks.setdefault(choice.step, []).append(name)
    saved = {checkpoint.step: checkpoint.name for checkpoint in run.checkpoints()}
    return tuple(
        ValidatedStep(
            float(line.get("epoch", 0)),
            int(line.get("step", 0)),
            values,
            tuple(picks.get(int(line.get("step", 0)), ())),
            saved.get(int(line.get("step", 0))),
        )
        for line, values in zip(lines, scores, strict=True)
    )


def _run(path: str | os.PathLike[str]) -> Run:
    # `runs/x@last` names a checkpoint elsewhere; here its run is meant.
    folder = path if Path(path).exists() else str(path).partition("@")[0]
    if not Run.is_run(folder):
        reason = "it has no manifest.json and config.yaml" if Path(folder).is_dir() else "there is no such folder"
        raise CaptuneError(f"{path} is not a run: {reason}.", "captune runs list FOLDER shows the runs in a folder.")
    return Run(folder)


def _summary_or_problem(run: Run) -> RunSummary:
    try:
        return _summary(run)
    except CaptuneError as error:
        return RunSummary(path=str(run.path), size=_size(run.path), problem=error.message)


def _summary(run: Run) -> RunSummary:
    manifest, history = run.manifest(), run.history()
    # A training that was stopped may have saved more steps than it logged.
    checkpoints = run.checkpoints()
    damaged = {c.name: checkpoint_damage(c.path, sizes_only=True) for c in checkpoints}
    epochs = [float(line["epoch"]) for line in history if "epoch" in line] + [c.epoch for c in checkpoints]
    steps = [int(line["step"]) for line in history if "step" in line] + [c.step for c in checkpoints]
    pointed = {pointer: run.pointed(pointer) for pointer in POINTERS}
    return RunSummary(
        path=str(run.path),
        created=str(manifest.get("created", "")),
        model=str(manifest.get("model", "")),
        finished=bool(manifest.get("finished", False)),
        epochs=max(epochs, default=0.0),
        steps=max(steps, default=0),
        best=best_scores(history),
        checkpoints=tuple(c.name for c in checkpoints),
        pointers={pointer: name for pointer, name in pointed.items() if name},
        size=_size(run.path),
        ended=ending_text(manifest),
        reason=ending_reason(manifest),
        damaged={name: what for name, what in damaged.items() if what},
    )


def _config(run: Run) -> dict[str, Any]:
    config = read_yaml(run.path / CONFIG)
    return config if isinstance(config, dict) else {}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, values in config.items()
        for name, value in (values.items() if isinstance(values, dict) else [("", values)])
    }


def _data(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: manifest.get(key) for key in ("data", "data_digest")}


def _if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; what links point to is counted once, where it lies."""
    return sum(
        path.lstat().st_size
        for root, _, names in os.walk(folder)
        for path in (Path(root) / name for name in names)
        if not path.is_symlink()
    )
