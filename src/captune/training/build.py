"""From a configuration to a trainer: model, data, schedule, trackers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments

from captune.core.errors import CaptuneError, UsageError
from captune.core.machine import gc_paused
from captune.core.options import PARTS, GenerationOptions, TrainConfig
from captune.core.progress import Progress
from captune.core.runs import Run
from captune.training.plan import TrainingPlan, foreseen

if TYPE_CHECKING:
    import torch

    from captune.core.records import ImageRecord
    from captune.inference.features import Features
    from captune.inference.processes import Processes
    from captune.models.backbone import Backbone
    from captune.models.weights import Placing
    from captune.training.loop.schedule import EarlyStop
    from captune.training.loop.trainer import CaptionTrainer
    from captune.training.loop.validation import Validation


@gc_paused()
def build_backbone(
    model: str,
    training: list[ImageRecord],
    config: TrainConfig,
    *,
    new: bool,
    processes: Processes | None = None,
) -> Backbone:
    """The model as training begins with it: loaded or from scratch, prompt, dropout and frozen parts set."""
    from captune.core.model_names import is_new, is_pair
    from captune.decoding.settings import check_length, check_prompt, normalized
    from captune.inference.batches import clean_reference
    from captune.models.loading.loader import load_backbone, new_backbone, pair_backbone
    from captune.models.lora import Lora, add_lora

    options = config.model
    if config.run_on.quantize != "none" and options.lora is None:
        raise UsageError("Quantized weights do not learn.", "Train adapters on them: --lora on.")
    if new and config.run_on.quantize != "none":
        raise UsageError("A new model has no weights to quantize.", "Leave out --quantize.")
    if is_new(model):
        texts = (
            clean_reference(text) if config.data.clean_captions else text
            for record in training
            for text in (*record.references, *filter(None, (record.question,)))
        )
        backbone = new_backbone(
            model, texts, seed=config.train.seed, image_size=options.image_size, vocab_size=options.vocab_size
        )
    elif is_pair(model):
        backbone = pair_backbone(model, seed=config.train.seed, image_size=options.image_size)
    else:
        backbone = load_backbone(
            model,
            image_size=options.image_size,
            quantize=config.run_on.quantize,
            placing=_placing(model, config, processes),
        )
    if options.train_prompt is not None:
        backbone.prompt = options.train_prompt
    if options.dropout is not None:
        backbone.set_dropout(options.dropout)
    if options.lora is None:
        backbone.freeze(_frozen(type(backbone), config, new=new))
    else:
        add_lora(backbone, Lora.parse(options.lora))
    changed = config.generation.model_dump(exclude_defaults=True)
    backbone.generation = {**backbone.generation, **changed}
    # What no validation could search for is refused before the first step.
    search = normalized(GenerationOptions(**backbone.generation))
    if not config.train.validation_images:
        search = search.model_copy(update={"max_new_tokens": 1, "min_new_tokens": 0})
    check_prompt(backbone.prompt if search.prompt is None else search.prompt, search)
    for prompt in (backbone.prompt, search.prompt):
        check_length(1 + len(backbone.tokenize(prompt or "")), backbone.max_length, search)
    return backbone


def _frozen(family: type[Backbone], config: TrainConfig, *, new: bool) -> list[str]:
    """The parts that do not learn, with what `auto` stands for."""
    frozen: tuple[str, ...] = config.model.freeze
    if "auto" in frozen:
        frozen = ("none",) if new else family.frozen_by_default
    return [part for part in frozen if part != "none"]


def _placing(model: str, config: TrainConfig, processes: Processes | None) -> Placing:
    """How a model is loaded that is trained: what is frozen for good in the type to compute in, where that may be."""
    from captune.inference.loading import placing_for
    from captune.models.loading.loader import model_info
    from captune.models.weights import FP32

    if config.train.shard or config.model.lora is not None:
        return FP32  # shares of the weights, and sums of adapters and weights, are of one type
    frozen = _frozen(model_info(model).family, config, new=False)
    return placing_for(model, config.run_on, learns=[part for part in PARTS if part not in frozen], processes=processes)


def part_rates(pairs: Sequence[str]) -> dict[str, float]:
    """Learning rates by part, of `part=rate`; raises `UsageError` for anything else."""
    found = {}
    for pair in pairs:
        part, _, rate = pair.partition("=")
        try:
            found[part] = float(rate)
        except ValueError:
            found[part] = -1.0
        if part not in PARTS or not found[part] >= 0:
            raise UsageError(
                f"--part-learning-rates: '{pair}' is not understood.",
                f"For example: --part-learning-rates vision=1e-6; parts: {', '.join(PARTS)}.",
            )
    return found


def with_defaults(config: TrainConfig, training: Sequence[ImageRecord]) -> TrainConfig:
    """The configuration with what `auto` stands for in this training; answers are measured as answers."""
    from captune.metrics.measure import ANSWERS, metric_names, metrics_for

    learn = config.train
    asked = any(record.question for record in training)
    if asked and learn.stage == "scst":
        raise UsageError("scst rewards captions, and this data has questions.", "Leave out --stage scst.")
    rule: str = learn.best_metric
    metrics = metrics_for(asked, learn.validation_metrics)
    if rule == "auto":
        wished = {"vqa-accuracy": asked and ANSWERS in metrics, "cider": learn.stage == "scst"}
        measured = metric_names(metrics)
        rule = next((r for r, wish in wished.items() if wish and r.replace("-", "_") in measured), "meteor-centric")
    changed = {"best_metric": rule, "validation_metrics": metrics}
    return config.model_copy(update={"train": learn.model_copy(update=changed)})


def check_best_metric(config: TrainConfig, progress: Progress) -> None:
    """What a best checkpoint is chosen by must be among the scores of a validation."""
    from captune.metrics.measure import measure, metric_names
    from captune.training.selection import SINGLE, WEIGHTS

    learn = config.train
    metric_names(learn.validation_metrics)
    rules = {"--best-metric": learn.best_metric}
    if learn.early_stopping_patience and learn.early_stopping_metric != "auto":
        rules["--early-stopping-metric"] = learn.early_stopping_metric
    if set(rules.values()) == {"loss"} or not learn.validation_images:
        return
    tried = measure({"a": "a dog"}, {"a": ["a dog"]}, learn.validation_metrics, resamples=0, progress=progress)
    for flag, rule in rules.items():
        wanted = SINGLE.get(rule)
        if rule == "loss" or wanted in tried.scores or (not wanted and any(name in tried.scores for name in WEIGHTS)):
            continue
        others = [rule for rule, name in SINGLE.items() if name in tried.scores or rule == "loss"]
        why = tried.settings.get("left_out", {}).get(wanted, "It is not among --validation-metrics.")
        raise CaptuneError(
            f"Validations will not measure {wanted or 'any of ' + ', '.join(WEIGHTS)}, which {flag} "
            f"{rule} asks for. {why}",
            f"Choose another {flag} ({', '.join(others)}), or other --validation-metrics.",
        )


def check_trackers(config: TrainConfig, run: Run) -> None:
    """Trackers, and a repository of the Hub, that could not be used are refused before anything begins."""
    from captune.export.push import check_login, check_repo
    from captune.training.trackers import TRACKERS

    for name in config.train.trackers:
        # One of another package may be older than the check.
        if name != "none" and (check := getattr(TRACKERS[name], "check", None)):
            check(run)
    if config.train.push_to:
        check_repo(config.train.push_to)
        check_login()


def check_shardable(config: TrainConfig, processes: Processes) -> None:
    """Weights are shared out among several processes, in the number type they learn in."""
    if config.train.shard and processes.count == 1:
        raise UsageError(
            "--shard shares the model out among processes, and there is one.",
            "Start several: torchrun --nproc-per-node 2 -m captune train …; or leave it out.",
        )
    if config.train.shard and config.run_on.quantize != "none":
        raise UsageError("Quantized weights cannot be shared out.", "Leave out --shard or --quantize.")


def check_cacheable(backbone: Backbone, config: TrainConfig) -> None:
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


def features(
    backbone: Backbone, records: list[ImageRecord], config: TrainConfig, precision: torch.dtype, progress: Progress
) -> Features | None:
    """Cached features of all pictures that have a reference, where they are asked for."""
    from captune.inference.features import cached_features

    if not config.data.cache_features:
        return None
    images = [record.image for record in records if record.references]
    return cached_features(
        backbone, images, autocast=precision, batch_size=config.eval.eval_batch_size, progress=progress
    )


def validation(
    backbone: Backbone,
    records: list[ImageRecord],
    config: TrainConfig,
    precision: torch.dtype,
    features: Features | None,
    progress: Progress,
    processes: Processes,
) -> Validation:
    """What a validation does; raises `CaptuneError` where no picture has a reference."""
    from captune.training.loop.validation import Validation

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
        features=features,
        processes=processes,
        progress=progress,
    )


def early_stop(run: Run, config: TrainConfig, processes: Processes, progress: Progress) -> EarlyStop:
    """What ends a training early; the terminal gets what it waits for."""
    from captune.training.loop.schedule import EarlyStop

    learn = config.train
    rule = learn.best_metric if learn.early_stopping_metric == "auto" else learn.early_stopping_metric
    patience = learn.early_stopping_patience
    if patience:
        watched = "the validation loss" if rule == "loss" else rule
        progress.info(
            f"Early stopping watches {watched}: {patience} validations without a better one end the training."
        )
    return EarlyStop(run, rule, patience, processes)


@gc_paused()
def trainer(
    run: Run,
    backbone: Backbone,
    training: list[ImageRecord],
    validation: Validation,
    config: TrainConfig,
    precision: torch.dtype,
    features: Features | None,
    callbacks: list[Any],
    progress: Progress,
    processes: Processes,
) -> CaptionTrainer:
    """The training loop, ready to begin."""
    from captune.inference.batches import Augmentation, CaptionDataset, make_examples
    from captune.metrics.reward import CiderReward
    from captune.training.loop.schedule import Schedule
    from captune.training.loop.scst import Guard, NumberedDataset, SelfCritical, SelfCriticalTrainer
    from captune.training.loop.trainer import CaptionTrainer
    from captune.training.trackers import TRACKERS, GuardedTracker

    data, learn = config.data, config.train
    examples = make_examples(
        training,
        backbone,
        longest=data.max_caption_tokens,
        # A reward is of a picture and all its references.
        per_image=0 if learn.stage == "scst" else data.captions_per_image,
        clean=data.clean_captions,
    )
    change = Augmentation(learn.seed, data.crop, data.flip, data.color_jitter)
    plan = TrainingPlan.of(learn, len(examples), processes.count)
    least = GenerationOptions(**backbone.generation).min_new_tokens
    # The end of a caption is no word of it.
    lengths = [len(r.tokens) - r.given - 1 for example in examples for r in example.references] if least else []
    for sentence in foreseen(learn, plan, least, lengths):
        progress.warn(sentence)
    schedule = Schedule(log_every=learn.logging_steps, validate_every=plan.validate_every, save_at=plan.stays)
    callbacks = [schedule, *callbacks]
    last = run.last()
    for name in learn.trackers:
        if name != "none" and processes.first:
            begin = partial(
                TRACKERS[name], run, lambda: validation.samples, config.model_dump(), last.step if last else 0
            )
            callbacks.append(GuardedTracker(name, run, begin, progress))
    arguments = training_arguments(
        run.path,
        device=backbone.device,
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
    kind: type[CaptionTrainer] = CaptionTrainer
    shown: type[CaptionDataset] = CaptionDataset
    more: dict[str, Any] = {}
    if learn.stage == "scst":
        kind, shown = SelfCriticalTrainer, NumberedDataset
        references = {n: example.record.references for n, example in enumerate(examples)}
        longest = GenerationOptions(**backbone.generation).max_new_tokens
        how = SelfCritical(learn.scst_samples, learn.scst_search, learn.scst_baseline, learn.scst_references, longest)
        more = {"reward": CiderReward(references), "how": how}
        callbacks.append(Guard(run, learn.scst_guard, progress))
    return kind(
        backbone,
        shown(examples, backbone.pixels, change, features),
        run,
        arguments,
        order_seed=learn.seed,
        validate=validation,
        best_metric=learn.best_metric,
        rates=part_rates(learn.part_learning_rates),
        keep_checkpoints=learn.keep_checkpoints,
        stays=plan.stays,
        label_smoothing=learn.label_smoothing,
        recompute=learn.gradient_checkpointing,
        processes=processes,
        shard=learn.shard,
        callbacks=callbacks,
        **more,
    )


# The one place where both libraries' words meet.
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def training_arguments(
    folder: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    epochs: float,
    max_steps: int,
    batch_size: int,
    gradient_accumulation: int,
    learning_rate: float,
    weight_decay: float,
    adam_beta2: float,
    schedule: str,
    warmup_steps: float,
    max_grad_norm: float,
    seed: int,
    loader_workers: int,
) -> TrainingArguments:
    """Arguments of the loop alone: logging, validation, saving and trackers are captune's own.

    `warmup_steps` below 1 is a share of all steps.
    """
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        adam_beta2=adam_beta2,
        lr_scheduler_type=SCHEDULES[schedule],
        warmup_steps=warmup_steps,
        max_grad_norm=max_grad_norm,
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=loader_workers,
        optim="adamw_torch_fused",
        use_cpu=device.type == "cpu",
        bf16=precision is torch.bfloat16,
        fp16=precision is torch.float16,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        # CLIP's last norm serves a vector that captions do not use.
        ddp_find_unused_parameters=True,
    )
