"""`captune train`: prepared data and a model in, a run folder out."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.config import resolve
from captune.core.errors import UsageError
from captune.core.files import read_json
from captune.core.machine import gc_paused
from captune.core.options.verbs import Config
from captune.core.progress import SILENT, Progress
from captune.core.runs import TRAIN_METRICS, Run
from captune.inference.processes import Processes
from captune.training.folder import StartGuard, clear_untrained, locked_run, write_summary
from captune.training.plan import explained_limits
from captune.training.resuming import has_begun, no_run_error, resolve_resumed, restore_config


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its run folder, its best checkpoint, and the best validation scores."""

    run: Path
    best: Path
    metrics: dict[str, Any]


def train(
    data: str | os.PathLike[str] | None = None,
    model: str | None = None,
    out: str | os.PathLike[str] = "",
    *,
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    sets: Iterable[str] = (),
    resume: bool = False,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[Mapping[str, float]], None] | None = None,
    **options: Any,
) -> TrainResult:
    """Train `model` on the prepared folder `data` and leave a run in `out`.

    `model` is a folder, a run, a Hub id, or `new:FAMILY-SIZE` for one from scratch.
    Options are those of `captune train --help`. With `resume`, an interrupted run goes on
    from its last whole checkpoint exactly as if it had not stopped; `data`, `model` and
    options are then taken from the run. `watch` gets the scores of every validation; what it
    raises ends the training. Raises `CaptuneError` (code 130 or 143 after a
    signal, with a checkpoint written).
    """
    if not str(out):
        raise UsageError("No output folder was given.", "Give --out RUN.")
    run = Run(out)
    environment = os.environ if environment is None else environment
    processes = Processes.join(options.get("device"))
    progress = progress if processes.first else SILENT
    data = data or (None if resume and Run.is_run(run.path) else environment.get("DATA_DIR"))
    if resume and not has_begun(run) and not (data and model):
        raise no_run_error(run)
    with locked_run(run, progress, first=processes.first):
        if processes.share(resume and processes.first and restore_config(run, progress)):
            manifest = run.manifest()
            data, model = data or manifest.get("data"), model or manifest.get("model")
            _check_processes(run, manifest, processes)
            resolved = resolve_resumed(run, config, preset, sets, environment, options)
        else:
            if resume and not (data and model):
                raise no_run_error(run)
            if resume:
                progress.info(f"There is no run in {run.path} yet: it begins.")
            resolved = resolve("train", preset=preset, file=config, environment=environment, flags=options, sets=sets)
            with processes.first_does() as first:
                if data and model and first:
                    clear_untrained(run, progress)
        if not data or not model:
            raise UsageError("Training needs --data and --model.", "For example: --data data --model new:blip-small")
        values = _with_repository(resolved.values, environment)
        # The guard acts before the error is explained: the explanation names the folder, which may be gone by then.
        with explained_limits(run, values, "for this training"), StartGuard(run, first=processes.first) as start:
            return _train(run, Path(data), str(model), values, progress, watch, processes, start)


def _check_processes(run: Run, manifest: Mapping[str, Any], processes: Processes) -> None:
    """Raises `UsageError` where a run would go on with another number of processes."""
    began = manifest.get("processes", 1)
    if began != processes.count:
        raise UsageError(
            f"The run {run.path} began with {began} processes and cannot go on exactly with {processes.count}.",
            "Start as many as before, or begin a new run from its best checkpoint: --model RUN --out NEW.",
        )


def _with_repository(values: Config, environment: Mapping[str, str]) -> Config:
    """`push_to` auto as the repository that the environment names; raises `UsageError` where it names none."""
    if values.train.push_to != "auto":
        return values
    repo = environment.get("HF_REPO_NAME", "")
    if not repo:
        raise UsageError(
            "--push-to auto publishes to the repository in HF_REPO_NAME, which is not set.",
            "Set it to user/name, or give --push-to user/name.",
        )
    return values.model_copy(update={"train": values.train.model_copy(update={"push_to": repo})})


def _train(
    run: Run,
    data: Path,
    model: str,
    config: Config,
    progress: Progress,
    watch: Callable[[Mapping[str, float]], None] | None,
    processes: Processes,
    start: StartGuard,
) -> TrainResult:
    with gc_paused():
        from captune.training.build import build, is_complete, load_model, open_run
        from captune.training.inputs import read_inputs

    started = time.monotonic()
    inputs = read_inputs(run, data, model, config, processes, progress)
    backbone = load_model(inputs)
    open_run(inputs, backbone)
    if not is_complete(inputs):
        build(inputs, backbone, watch).fit(start)
    with processes.first_does() as first:
        if first:
            write_summary(run, inputs.config, time.monotonic() - started)
    return TrainResult(run.path, run.checkpoint("best").path, read_json(run.path / TRAIN_METRICS))
