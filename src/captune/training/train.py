"""`captune train`: prepared data and a model in, a run folder out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.core.config import dump, resolve
from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError, UsageError
from captune.core.files import write_text
from captune.core.machine import gc_paused
from captune.core.options import TrainConfig
from captune.core.progress import SILENT, Progress
from captune.core.runs import CONFIG, POINTERS, SPLITS, Checkpoint, Run
from captune.datasets.prepared import TRAIN, PreparedData, read_prepared, read_split
from captune.inference.loading import move_to_device
from captune.inference.processes import Processes
from captune.metrics.ngrams import FILE as DOCUMENT_FREQUENCIES
from captune.metrics.ngrams import DocumentFrequencies
from captune.training import build as pieces
from captune.training.folder import (
    Start,
    all_done,
    forget_start,
    make_room,
    metrics_of,
    record_ending,
    recorded_ending,
    reserved,
    sum_up,
)
from captune.training.plan import most_checkpoints, told
from captune.training.resuming import (
    check_same_data,
    check_same_model,
    check_trained,
    data_facts,
    go_on,
    is_begun,
    model_facts,
    not_begun,
    resolve_resumed,
    restored,
)

if TYPE_CHECKING:
    from captune.models.backbone import Backbone


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
    if resume and not is_begun(run) and not (data and model):
        raise not_begun(run)
    with reserved(run, progress, first=processes.first):
        if processes.share(resume and processes.first and restored(run, progress)):
            manifest = run.manifest()
            data, model = data or manifest.get("data"), model or manifest.get("model")
            _check_processes(run, manifest, processes)
            resolved = resolve_resumed(run, config, preset, sets, environment, options)
        else:
            if resume and not (data and model):
                raise not_begun(run)
            if resume:
                progress.info(f"There is no run in {run.path} yet: it begins.")
            resolved = resolve(
                TrainConfig, preset=preset, file=config, environment=environment, flags=options, sets=sets
            )
            if data and model and processes.first:
                make_room(run, progress)
            processes.wait()  # the others find the room made
        if not data or not model:
            raise UsageError("Training needs --data and --model.", "For example: --data data --model new:blip-small")
        values = _with_repository(resolved.values, environment)
        # The start is told of an error before it is put into words, which tell of a folder that may be gone then.
        with told(run, values, "for this training"), Start(run, first=processes.first) as start:
            return _train(run, Path(data), str(model), values, progress, watch, processes, start)


def _check_processes(run: Run, manifest: Mapping[str, Any], processes: Processes) -> None:
    """Raises `UsageError` where a run would go on with another number of processes."""
    began = manifest.get("processes", 1)
    if began != processes.count:
        raise UsageError(
            f"The run {run.path} began with {began} processes and cannot go on exactly with {processes.count}.",
            "Start as many as before, or begin a new run from its best checkpoint: --model RUN --out NEW.",
        )


def _with_repository(values: TrainConfig, environment: Mapping[str, str]) -> TrainConfig:
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
    config: TrainConfig,
    progress: Progress,
    watch: Callable[[Mapping[str, float]], None] | None,
    processes: Processes,
    start: Start,
) -> TrainResult:
    with gc_paused():
        from captune.training.history import History
        from captune.training.loop.checkpoints import last_whole, planned_steps
        from captune.training.loop.schedule import Saved, StopSignals, Watched
        from captune.training.needs import needs_told

    started = time.monotonic()
    pieces.part_rates(config.train.part_learning_rates)
    pieces.check_shardable(config, processes)
    pieces.check_trackers(config, run)
    prepared = read_prepared(data)
    outside = config.tables.allow_outside
    splits = {name: read_split(data, name, allow_outside=outside) for name in (TRAIN, "val")}
    training, validation_records = splits.values()
    config = pieces.with_defaults(config, training)
    pieces.check_best_metric(config, progress)
    checkpoint, damaged = last_whole(run)
    if Run.is_run(run.path):
        check_same_model(run, model, config)
        facts = check_same_data(run, prepared, splits, progress)
        check_trained(run, checkpoint, damaged)
    else:
        facts = data_facts(prepared, splits)
    if checkpoint is not None and checkpoint.step == 0:
        checkpoint = None  # the untrained start holds no state to resume from; begin again
    backbone = pieces.build_backbone(
        # Adapters go on the model that the run began with; they are loaded with the rest of the state.
        str(checkpoint.path) if checkpoint and config.model.lora is None else model,
        training,
        config,
        new=model.startswith("new:"),
        processes=processes,
    )
    pieces.check_cacheable(backbone, config)
    processes.wait()  # all have looked at what was there
    if not processes.first:
        pass
    elif checkpoint is None:
        _begin(run, prepared, {**model_facts(model, config), **facts}, config, backbone, processes.count)
        with progress.task("Counting the words of the references"):
            DocumentFrequencies.of(
                (record.references for record in training), f"training references of {data.name}"
            ).save(run.path / DOCUMENT_FREQUENCIES)
    else:
        go_on(run, checkpoint, config, facts, damaged, progress)
    processes.wait()  # the run folder is there
    precision = move_to_device(backbone, config.run_on, training=True, processes=processes)
    progress.info(needs_told(backbone, run.path, most_checkpoints(config.train)))
    if not processes.first:
        processes.wait()
    cached = pieces.features(backbone, [*training, *validation_records], config, precision, progress)
    if processes.first:
        processes.wait()  # the others find all features made
    validation = pieces.validation(backbone, validation_records, config, precision, cached, progress, processes)
    history = History(run, progress, lambda: validation.samples)
    patience = pieces.early_stop(run, config, processes, progress)
    spent = patience.exhausted()
    if checkpoint is not None and (checkpoint.step >= planned_steps(checkpoint) or spent):
        if processes.first:
            record_ending(run, spent or all_done(config, checkpoint.step, checkpoint.epoch))
        return _finish(run, checkpoint, config, time.monotonic() - started, processes)
    with StopSignals(processes) as signals:
        callbacks = [*([history] if processes.first else []), patience, signals, *([Watched(watch)] if watch else [])]
        if config.train.push_to and processes.first:
            callbacks.append(Saved(_Publisher(run, config.train.push_to, progress)))
        trainer = pieces.trainer(
            run, backbone, training, validation, config, precision, cached, callbacks, progress, processes
        )
        if checkpoint is None and (model.startswith("new:") or config.train.stage == "scst"):
            trainer.save_start(measure=config.train.stage == "scst")
        if checkpoint is not None:
            trainer.resume_from(checkpoint)
        batch = f"to train with {config.train.batch_size} images and their references in a batch"
        start.learning()
        try:
            ending = recorded_ending(run, trainer, callbacks, config, progress, first=processes.first)
            with ending, told(run, config, batch):
                trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        except KeyboardInterrupt:
            signals.received = signals.received or 2
        finally:
            history.close()
    if signals.received is not None and trainer.state.global_step < trainer.state.max_steps:
        raise _stopped(run, signals.received)
    reached = run.last()
    assert reached is not None, "a training that ends has written its last checkpoint"
    return _finish(run, reached, config, time.monotonic() - started, processes)


class _Publisher:
    """Puts a run's best checkpoint on the Hub when it is another than before; a refusal ends nothing."""

    def __init__(self, run: Run, repo: str, progress: Progress) -> None:
        self.run, self.repo, self.progress, self.sent = run, repo, progress, ""

    def __call__(self) -> None:
        from captune.export.push import push

        best = self.run.pointed(POINTERS[0]) or ""
        if not best or best == self.sent:
            return
        self.sent = best
        try:
            push(str(self.run.path), self.repo, progress=self.progress)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the training's
            later = f"captune push {self.run.path} {self.repo}"
            reason = error.message if isinstance(error, CaptuneError) else f"{type(error).__name__}: {error}"
            self.progress.warn(f"{best} was not published: {reason} Later: {later}")
        else:
            self.progress.info(f"{best} is published as {self.repo}.")


def _stopped(run: Run, signal_number: int) -> CaptuneError:
    last = run.last()
    kept = f"Everything up to {last.name} (epoch {last.epoch:.2f}) is kept" if last else "No checkpoint was written yet"
    return CaptuneError(
        f"Stopped by a signal. {kept} in {run.path}.",
        f"Go on with: captune train --resume --out {run.path}",
        code=EXIT_TERMINATED if signal_number == 15 else EXIT_INTERRUPTED,
    )


def _begin(
    run: Run,
    data: PreparedData,
    facts: Mapping[str, Any],
    config: TrainConfig,
    backbone: Backbone,
    processes: int,
) -> None:
    """Write down what the run is before its first step."""
    from captune.core.machine import versions

    forget_start(run)
    parameters = list(backbone.model.parameters())
    # The manifest is first and holds the options too: with it the folder is known to be captune's own, and goes on.
    run.write_manifest(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            **facts,
            "family": backbone.family,
            "seed": config.train.seed,
            "processes": processes,
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "parts": {name: sum(p.numel() for p in part) for name, part in backbone.parts().items()},
            "versions": versions(),
            "finished": False,
            "options": config.model_dump(mode="json"),
        }
    )
    write_text(run.path / CONFIG, dump(config))
    write_text(run.path / SPLITS, (data.folder / SPLITS).read_text(encoding="utf-8"))


def _finish(run: Run, reached: Checkpoint, config: TrainConfig, seconds: float, processes: Processes) -> TrainResult:
    """Sum the run up in its folder; the first process writes, all return it."""
    if processes.first:
        sum_up(run, reached, config, seconds)
    processes.wait()
    return TrainResult(run.path, run.checkpoint("best").path, metrics_of(run))
