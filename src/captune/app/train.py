"""`captune train`: prepared data and a model in, a run folder out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from captune.core.config import Resolved, dump, resolve
from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError, UsageError
from captune.core.files import write_json, write_text
from captune.core.options import GenerationOptions, TrainConfig
from captune.core.progress import SILENT, Progress
from captune.core.runs import CONFIG, SPLITS, TRAIN_METRICS, Checkpoint, Run
from captune.data.prepared import TRAIN, read_prepared, read_split
from captune.metrics.document_frequencies import FILE as DOCUMENT_FREQUENCIES
from captune.metrics.document_frequencies import DocumentFrequencies

if TYPE_CHECKING:
    import torch

    from captune.core.records import ImageRecord
    from captune.engine.features import Features
    from captune.engine.trainer import CaptionTrainer
    from captune.engine.validation import Validation
    from captune.models.backbone import Backbone

# A resumed run may differ in these from how it began; in nothing else.
FREE_TO_CHANGE = ("loader_workers", "logging_steps", "keep_checkpoints", "trackers", "sample_captions", "device")


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
    **options: Any,
) -> TrainResult:
    """Train `model` on the prepared folder `data` and leave a run in `out`.

    `model` is a folder, a run, a Hub id, or `new:FAMILY-SIZE` for one from scratch.
    Options are those of `captune train --help`. With `resume`, an interrupted run goes on
    from its last whole checkpoint exactly as if it had not stopped; `data`, `model` and
    options are then taken from the run. Raises `CaptuneError` (code 130 or 143 after a
    signal, with a checkpoint written).
    """
    if not str(out):
        raise UsageError("No output folder was given.", "Give --out RUN.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CaptuneError(
            "Training on several devices at once is not in this version.",
            "Start `captune train` once, without torchrun or accelerate launch; raise --gradient-accumulation instead.",
        )
    run = Run(out)
    environment = os.environ if environment is None else environment
    if resume and Run.is_run(run.path):
        manifest = run.manifest()
        data, model = data or manifest["data"], model or manifest["model"]
        resolved = _resolve_resumed(run, config, preset, sets, environment, options)
    else:
        if Run.is_run(run.path) or (run.path.is_dir() and any(run.path.iterdir())):
            raise CaptuneError(
                f"The folder {run.path} is not empty.",
                "Go on with it by --resume, or choose another --out."
                if Run.is_run(run.path)
                else "Choose another --out.",
            )
        if not data or not model:
            raise UsageError("Training needs --data and --model.", "For example: --data data --model new:blip-small")
        resolved = resolve(TrainConfig, preset=preset, file=config, environment=environment, flags=options, sets=sets)
    return _train(run, Path(data), str(model), resolved.values, progress)


def _resolve_resumed(
    run: Run,
    config: Any,
    preset: str | None,
    sets: Iterable[str],
    environment: Mapping[str, str],
    options: Mapping[str, Any],
) -> Resolved[TrainConfig]:
    """The run's own configuration; what is given anew must agree, but for what cannot change the weights."""
    saved = resolve(TrainConfig, file=run.path / CONFIG)
    given = resolve(TrainConfig, preset=preset, file=config, environment=environment, flags=options, sets=sets)
    changed: dict[str, Any] = {}
    for key, source in given.sources.items():
        section, _, name = key.partition(".")
        new, old = getattr(getattr(given.values, section), name), getattr(getattr(saved.values, section), name)
        if new == old:
            continue
        if name not in FREE_TO_CHANGE:
            raise UsageError(
                f"{source}: the run {run.path} began with {name} = {old}, not {new}; it must go on as it began.",
                f"Leave it out, or start a new run with another --out. These may change: {', '.join(FREE_TO_CHANGE)}.",
            )
        changed[key] = new
    return resolve(TrainConfig, file=run.path / CONFIG, flags={key.partition(".")[2]: v for key, v in changed.items()})


def _train(run: Run, data: Path, model: str, config: TrainConfig, progress: Progress) -> TrainResult:
    from captune.engine.checkpoints import last_whole, planned_steps, update_pointers
    from captune.engine.history import History, cut_history
    from captune.engine.schedule import EarlyStop, StopSignals

    started = time.monotonic()
    _check_best_metric(config, progress)
    prepared = read_prepared(data)
    training, validation_records = read_split(data, TRAIN), read_split(data, "val")
    checkpoint = last_whole(run)
    if checkpoint is not None and checkpoint.step == 0:
        checkpoint = None  # the untrained start holds no state to resume from; begin again
    backbone = build_backbone(
        str(checkpoint.path) if checkpoint else model, training, config, new=model.startswith("new:")
    )
    _check_cacheable(backbone, config)
    if checkpoint is None:
        _begin(run, data, prepared.digest, model, config, backbone)
        with progress.task("Counting the words of the references"):
            DocumentFrequencies.of(
                (record.references for record in training), f"training references of {data.name}"
            ).save(run.path / DOCUMENT_FREQUENCIES)
    else:
        progress.say(f"Resuming {run.path} from {checkpoint.name} (epoch {checkpoint.epoch:.2f}).")
        cut_history(run, checkpoint.step)
        update_pointers(run, config.train.best_metric)
    validation = _validation(backbone, validation_records, config, progress)
    history = History(run, progress, lambda: validation.samples)
    patience = EarlyStop(run, config.train.best_metric, config.train.early_stopping_patience)
    if checkpoint is not None and (checkpoint.step >= planned_steps(checkpoint) or patience.exhausted()):
        return _finish(run, checkpoint, config, time.monotonic() - started)
    with StopSignals() as signals:
        trainer = _trainer(run, backbone, training, validation, config, [history, patience, signals], progress)
        if checkpoint is None and model.startswith("new:"):
            trainer.save_start()
        if checkpoint is not None:
            trainer.resume_from(checkpoint)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
        except KeyboardInterrupt:
            signals.received = signals.received or 2
        finally:
            history.close()
    if signals.received is not None and trainer.state.global_step < trainer.state.max_steps:
        raise _stopped(run, signals.received)
    reached = last_whole(run)
    assert reached is not None, "a training that ends has written its last checkpoint"
    return _finish(run, reached, config, time.monotonic() - started)


def _stopped(run: Run, signal_number: int) -> CaptuneError:
    last = run.last()
    kept = f"Everything up to {last.name} (epoch {last.epoch:.2f}) is kept" if last else "No checkpoint was written yet"
    return CaptuneError(
        f"Stopped by a signal. {kept} in {run.path}.",
        f"Go on with: captune train --resume --out {run.path}",
        code=EXIT_TERMINATED if signal_number == 15 else EXIT_INTERRUPTED,
    )


def build_backbone(model: str, training: list[ImageRecord], config: TrainConfig, *, new: bool) -> Backbone:
    """The model as training begins with it: loaded or from scratch, prompt, dropout and frozen parts set."""
    from captune.engine.batches import clean_reference
    from captune.engine.loader import is_new, load_backbone, new_backbone

    options = config.model
    if is_new(model):
        texts = (clean_reference(r) if config.data.clean_captions else r for i in training for r in i.references)
        backbone = new_backbone(
            model, texts, seed=config.train.seed, image_size=options.image_size, vocab_size=options.vocab_size
        )
    else:
        backbone = load_backbone(model, image_size=options.image_size)
    if options.train_prompt is not None:
        backbone.prompt = options.train_prompt
    if options.dropout is not None:
        backbone.set_dropout(options.dropout)
    frozen = options.freeze
    if "auto" in frozen:
        frozen = ("none",) if new else ("vision",)
    backbone.freeze([part for part in frozen if part != "none"])
    changed = config.generation.model_dump(exclude_defaults=True)
    backbone.generation = {**backbone.generation, **changed}
    return backbone


def _check_best_metric(config: TrainConfig, progress: Progress) -> None:
    """What a best checkpoint is chosen by must be among the scores of a validation."""
    from captune.metrics.measure import measure, metric_names

    learn = config.train
    metric_names(learn.validation_metrics)
    if learn.best_metric == "loss" or not learn.validation_images:
        return
    tried = measure({"a": "a dog"}, {"a": ["a dog"]}, learn.validation_metrics, resamples=0, progress=progress)
    if learn.best_metric not in tried.scores:
        known = get_args(type(learn).model_fields["best_metric"].annotation)
        others = [name for name in known if name in tried.scores or name == "loss"]
        why = tried.settings.get("left_out", {}).get(learn.best_metric, "It is not among --validation-metrics.")
        raise CaptuneError(
            f"Validations will not measure '{learn.best_metric}', which --best-metric asks for. {why}",
            f"Choose another --best-metric ({', '.join(others)}), or other --validation-metrics.",
        )


def _begin(run: Run, data: Path, digest: str, model: str, config: TrainConfig, backbone: Backbone) -> None:
    """Write down what the run is before its first step."""
    from captune.engine.versions import versions

    parameters = list(backbone.model.parameters())
    write_text(run.path / CONFIG, dump(config))
    write_text(run.path / SPLITS, (data / SPLITS).read_text(encoding="utf-8"))
    run.write_manifest(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": sys.argv,
            "model": model,
            "family": backbone.family,
            "data": str(data.resolve()),
            "data_digest": digest,
            "seed": config.train.seed,
            "parameters": sum(p.numel() for p in parameters),
            "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
            "parts": {name: sum(p.numel() for p in part) for name, part in backbone.parts().items()},
            "versions": versions(),
            "finished": False,
        }
    )


def _validation(backbone: Backbone, records: list[ImageRecord], config: TrainConfig, progress: Progress) -> Validation:
    from captune.engine.validation import Validation

    device, precision = _device(config)
    backbone.model.to(device)
    if not any(record.references for record in records):
        raise CaptuneError(
            "The validation split has no picture with references.", "Prepare the data with a val split, e.g. 80/10/10."
        )
    return Validation(
        backbone,
        records,
        GenerationOptions(**backbone.generation),
        images=config.train.validation_images,
        metrics=config.train.validation_metrics,
        shown=config.train.sample_captions,
        longest=config.data.max_caption_tokens,
        batch_size=config.eval.eval_batch_size,
        autocast=precision,
        progress=progress,
    )


def _device(config: TrainConfig) -> tuple[torch.device, torch.dtype]:
    from captune.models.devices import choose_device, choose_precision

    device = choose_device(config.run_on.device)
    return device, choose_precision(config.run_on.precision, device)


def _check_cacheable(backbone: Backbone, config: TrainConfig) -> None:
    """Features can be kept where pictures look the same every time and the vision part stays as it is."""
    data = config.data
    if data.cache_features and (data.crop or data.flip or data.color_jitter):
        raise UsageError(
            "--cache-features keeps one view of a picture, and --crop, --flip or --color-jitter ask for many.",
            "Leave one of them out.",
        )
    if data.cache_features and any(parameter.requires_grad for parameter in backbone.parts()["vision"]):
        raise UsageError(
            "--cache-features needs a vision part that does not learn.", "Add --freeze vision, or leave it out."
        )


def _features(
    backbone: Backbone, training: list[ImageRecord], config: TrainConfig, progress: Progress
) -> Features | None:
    from captune.engine.features import cached_features

    if not config.data.cache_features:
        return None
    _, precision = _device(config)
    images = [record.image for record in training if record.references]
    return cached_features(
        backbone, images, autocast=precision, batch_size=config.eval.eval_batch_size, progress=progress
    )


def _trainer(
    run: Run,
    backbone: Backbone,
    training: list[ImageRecord],
    validation: Validation,
    config: TrainConfig,
    callbacks: list[Any],
    progress: Progress,
) -> CaptionTrainer:
    from captune.engine.arguments import training_arguments
    from captune.engine.batches import Augmentation, Visits, make_visits
    from captune.engine.history import TensorBoard
    from captune.engine.schedule import Schedule, steps_between
    from captune.engine.trainer import CaptionTrainer

    data, learn = config.data, config.train
    device, precision = _device(config)
    visits = make_visits(
        training,
        backbone,
        longest=data.max_caption_tokens,
        per_image=data.captions_per_image,
        clean=data.clean_captions,
    )
    change = Augmentation(learn.seed, data.crop, data.flip, data.color_jitter)
    every = learn.eval_steps or steps_between(
        len(visits), learn.batch_size, learn.gradient_accumulation, learn.eval_every
    )
    callbacks = [Schedule(log_every=learn.logging_steps, validate_every=every), *callbacks]
    if "tensorboard" in learn.trackers:
        last = run.last()
        callbacks.append(TensorBoard(run, lambda: validation.samples, last.step if last else 0))
    arguments = training_arguments(
        run.path,
        device=device,
        precision=precision,
        epochs=learn.epochs,
        max_steps=learn.max_steps,
        batch_size=learn.batch_size,
        gradient_accumulation=learn.gradient_accumulation,
        learning_rate=learn.learning_rate,
        weight_decay=learn.weight_decay,
        adam_beta2=learn.adam_beta2,
        schedule=learn.schedule,
        warmup_steps=learn.warmup_steps or learn.warmup_ratio,
        max_grad_norm=learn.max_grad_norm,
        seed=learn.seed,
        loader_workers=data.loader_workers,
    )
    return CaptionTrainer(
        backbone,
        Visits(visits, backbone.pixels, change, _features(backbone, training, config, progress)),
        run,
        arguments,
        order_seed=learn.seed,
        validate=validation,
        best_metric=learn.best_metric,
        keep_checkpoints=learn.keep_checkpoints,
        label_smoothing=learn.label_smoothing,
        recompute=learn.gradient_checkpointing,
        callbacks=callbacks,
    )


def _finish(run: Run, reached: Checkpoint, config: TrainConfig, seconds: float) -> TrainResult:
    from captune.engine.checkpoints import read_mark
    from captune.engine.figures import draw_losses

    best = run.checkpoint("best")
    history = run.history()
    losses = [line["loss"] for line in history if "loss" in line]
    metrics = {
        "epoch": reached.epoch,
        "steps": reached.step,
        "train_runtime": seconds,
        "train_loss": losses[-1] if losses else None,
        "best_metric": config.train.best_metric,
        "best_checkpoint": best.name,
        "best_epoch": best.epoch,
        **{f"eval_{name}": value for name, value in read_mark(best)["scores"].items()},
    }
    write_json(run.path / TRAIN_METRICS, metrics)
    draw_losses(history, run.path / "loss.png")
    run.write_manifest({**run.manifest(), "finished": True})
    return TrainResult(run.path, best.path, metrics)
