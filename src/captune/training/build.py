"""Everything that a training needs, built from its configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from captune.captions.prompts.template import Template
from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError, UsageError, first_line
from captune.core.machine import gc_paused
from captune.core.model_names import is_new, is_pair
from captune.core.options import PARTS, GenerationOptions
from captune.core.options.verbs import Config
from captune.core.progress import Progress
from captune.core.records import ImageRecord
from captune.core.runs import POINTERS, Ending, Run
from captune.decoding.encoding import check_length, check_prompt, prompt_for
from captune.decoding.generate import normalized
from captune.export.push import push
from captune.inference.batches import Augmentation, CaptionDataset, TrainingExample, clean_reference, make_examples
from captune.inference.features import CachedFeatures, cached_features
from captune.inference.loading import move_to_device, placing_for
from captune.inference.processes import Processes
from captune.metrics.ngrams import FILE as DOCUMENT_FREQUENCIES
from captune.metrics.ngrams import DocumentFrequencies
from captune.metrics.reward import CiderReward
from captune.models.backbone import Backbone
from captune.models.loading.adapters import base_of
from captune.models.loading.loader import load_backbone, model_info, new_backbone, pair_backbone
from captune.models.lora import Lora, add_lora
from captune.models.weights import FP32, Placing
from captune.training.folder import StartGuard, all_done, begin_run, record_ending
from captune.training.history import History
from captune.training.inputs import TrainingInputs, part_rates
from captune.training.loop.checkpoints import planned_steps
from captune.training.loop.schedule import EarlyStop, OnSave, OnValidation, Schedule, StopSignals, ending_at
from captune.training.loop.scst import Guard, NumberedDataset, SelfCritical, SelfCriticalTrainer
from captune.training.loop.trainer import CaptionTrainer
from captune.training.loop.validation import Validation
from captune.training.plan import (
    TrainingPlan,
    cut_warning,
    explained_limits,
    max_checkpoints,
    needs_message,
    plan_warnings,
)
from captune.training.resuming import model_facts, resume_run
from captune.training.trackers import TRACKERS, GuardedTracker

# The library's names of the schedules.
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@gc_paused()
def load_model(inputs: TrainingInputs) -> Backbone:
    """The model that the training begins or goes on with."""
    checkpoint, config = inputs.checkpoint, inputs.config
    backbone = build_backbone(
        # Adapters go on the model that the run began with; they are loaded with the rest of the state.
        str(checkpoint.path) if checkpoint and config.model.lora is None else inputs.model,
        inputs.training,
        config,
        new=inputs.new,
        processes=inputs.processes,
    )
    check_cacheable(backbone, config)
    return backbone


def build_backbone(
    model: str, training: list[ImageRecord], config: Config, *, new: bool, processes: Processes | None = None
) -> Backbone:
    """The model as training begins with it: loaded or from scratch, prompt, dropout and frozen parts set."""
    options = config.model
    Template.of(options.train_prompt or "")  # raises for a field that there is not
    if config.run_on.quantize != "none" and options.lora is None:
        raise UsageError("Quantized weights do not learn.", "Train adapters on them: --lora on.")
    if options.save_adapter_only and (options.lora is None or options.image_size is not None):
        raise UsageError(
            "--save-adapter-only keeps adapters on a model as it is: it goes with --lora, and without --image-size.",
            "Add --lora on, or leave it out.",
        )
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
        torch.manual_seed(config.train.seed)
        add_lora(backbone, Lora.parse(options.lora))
        backbone.adapter_base = base_of(model) if options.save_adapter_only else None
    changed = config.generation.model_dump(exclude_defaults=True)
    backbone.generation = {**backbone.generation, **changed}
    _check_prompts(backbone, config)
    return backbone


def _check_prompts(backbone: Backbone, config: Config) -> None:
    """Raise `UsageError` for prompts that no validation could search behind, before the first step."""
    search = normalized(GenerationOptions(**backbone.generation))
    if not config.train.validation_images:
        search = search.model_copy(update={"max_new_tokens": 1, "min_new_tokens": 0})
    check_prompt(backbone.prompt if search.prompt is None else search.prompt, search)
    if config.train.stage == "scst" and Template.of(backbone.prompt).fields:
        raise UsageError(
            f"--stage scst has one prompt for all images, and '{backbone.prompt}' differs from image to image.",
            "Give one without fields: --train-prompt 'a picture of'",
        )
    codec = backbone.codec.under(search)
    for prompt in (backbone.prompt, search.prompt):
        check_length(len(codec.start(prompt_for(prompt or "", ""))), codec.max_length, search)


def _frozen(family: type[Backbone], config: Config, *, new: bool) -> list[str]:
    """The parts that do not learn, with what `auto` stands for."""
    frozen: tuple[str, ...] = config.model.freeze
    if "auto" in frozen:
        frozen = ("none",) if new else family.frozen_by_default
    return [part for part in frozen if part != "none"]


def _placing(model: str, config: Config, processes: Processes | None) -> Placing:
    """How a model is loaded that is trained: what is frozen for good in the type to compute in, where that may be."""
    if config.train.shard:
        return FP32  # shards of the weights are of one type
    if config.model.lora is not None:
        adapted = model_info(model).family.adapts_half
        return placing_for(model, config.run_on, training=True, processes=processes) if adapted else FP32
    frozen = _frozen(model_info(model).family, config, new=False)
    return placing_for(model, config.run_on, learns=[part for part in PARTS if part not in frozen], processes=processes)


def check_cacheable(backbone: Backbone, config: Config) -> None:
    """Features can be cached where images are the same in every epoch and the vision part does not learn."""
    data = config.data
    if data.cache_features and (data.crop or data.flip or data.color_jitter):
        raise UsageError(
            "--cache-features keeps one view of an image, and --crop, --flip or --color-jitter make many.",
            "Leave one of them out.",
        )
    parts, needed = backbone.parts(), backbone.encoding_parts
    if data.cache_features and any(parameter.requires_grad for part in needed for parameter in parts[part]):
        raise UsageError(
            f"--cache-features needs a {' and a '.join(needed)} part that does not learn.",
            f"Add --freeze {','.join(needed)}, or leave it out.",
        )


def open_run(inputs: TrainingInputs, backbone: Backbone) -> None:
    """Begin the run in its folder, or have the folder stand where the checkpoint stood; the first process does."""
    run, config, progress = inputs.run, inputs.config, inputs.progress
    with inputs.processes.first_does() as first:  # all have read what was there
        if first and inputs.checkpoint is not None:
            resume_run(run, inputs.checkpoint, config, inputs.facts, inputs.damaged, progress)
        elif first:
            facts = {**model_facts(inputs.model, config), **inputs.facts}
            begin_run(run, inputs.data, facts, config, backbone, inputs.processes.count)
            with progress.task("Counting the words of the references"):
                references = (record.references for record in inputs.training)
                source = f"training references of {inputs.data.folder.name}"
                DocumentFrequencies.of(references, source).save(run.path / DOCUMENT_FREQUENCIES)


def is_complete(inputs: TrainingInputs) -> bool:
    """Whether the run has nothing left to train; then its ending is recorded."""
    run, config, checkpoint = inputs.run, inputs.config, inputs.checkpoint
    if checkpoint is None:
        return False
    ending = EarlyStop(run, _early_stopping_rule(config), config.train.early_stopping_patience).exhausted()
    if ending is None and checkpoint.step < planned_steps(checkpoint):
        return False
    if inputs.processes.first:
        record_ending(run, ending or all_done(config, checkpoint.step, checkpoint.epoch))
    return True


@dataclass(frozen=True)
class Training:
    """Everything that a training needs."""

    inputs: TrainingInputs
    history: History
    signals: StopSignals
    trainer: CaptionTrainer

    def fit(self, start: StartGuard) -> None:
        """Train to the end; `start` learns when the first step is due. Raises `CaptuneError` after a signal."""
        inputs, trainer, signals = self.inputs, self.trainer, self.signals
        run, config, checkpoint = inputs.run, inputs.config, inputs.checkpoint
        with signals:
            if checkpoint is not None:
                trainer.resume_from(checkpoint)
            elif inputs.new or config.train.stage == "scst":
                trainer.save_start(measure=config.train.stage == "scst")
            what = f"to train with {config.train.batch_size} images and their references in a batch"
            start.keep()
            try:
                with self._recorded_ending(), explained_limits(run, config, what):
                    trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
            except KeyboardInterrupt:
                signals.received = signals.received or 2
            finally:
                self.history.close()
        if signals.received is not None and trainer.state.global_step < trainer.state.max_steps:
            raise _stopped(run, signals.received)

    @contextmanager
    def _recorded_ending(self) -> Iterator[None]:
        """Record in the run why the training within the block ended; errors pass through."""
        inputs, trainer = self.inputs, self.trainer
        run, first = inputs.run, inputs.processes.first
        if first:
            record_ending(run, None)
        try:
            yield
        except BaseException as error:
            ending = self._callback_ending() or _error_ending(error, trainer)
            if first:
                with suppress(CaptuneError):  # a full disk: the error that ends the training is the one to report
                    record_ending(run, ending)
            self._end_trackers(ending)
            raise
        state = trainer.state
        stopped = None if state.global_step >= state.max_steps else self._callback_ending()
        ending = stopped or all_done(inputs.config, state.global_step, float(state.epoch or 0.0))
        if first:
            record_ending(run, ending)
            inputs.progress.info(f"Training ended: {ending.text}.")
        self._end_trackers(ending)

    def _callback_ending(self) -> Ending | None:
        """Why a callback stopped the training, if one did."""
        endings = (getattr(callback, "ending", None) for callback in self.trainer.callback_handler.callbacks)
        return next((ending for ending in endings if isinstance(ending, Ending)), None)

    def _end_trackers(self, ending: Ending) -> None:
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, GuardedTracker):
                callback.end(ending, self.trainer.args, self.trainer.state, self.trainer.control)


def build(
    inputs: TrainingInputs, backbone: Backbone, watch: Callable[[Mapping[str, float]], None] | None = None
) -> Training:
    """Put the model on its device and build all that trains it; `watch` gets the scores of every validation."""
    run, config, processes, progress = inputs.run, inputs.config, inputs.processes, inputs.progress
    precision = move_to_device(backbone, config.run_on, training=True, processes=processes)
    progress.info(needs_message(backbone, run.path, max_checkpoints(config.train)))
    with processes.first_goes_ahead():  # the others find all features made
        features = _features(inputs, backbone, precision)
    validation = _validation(inputs, backbone, precision, features)
    history, signals = History(run, progress, lambda: validation.samples), StopSignals(processes)
    callbacks: list[TrainerCallback] = [*([history] if processes.first else []), _early_stop(inputs), signals]
    if watch:
        callbacks.append(OnValidation(watch))
    if config.train.push_to and processes.first:
        callbacks.append(OnSave(_Publisher(run, config.train.push_to, progress)))
    trainer = _trainer(inputs, backbone, validation, precision, features, callbacks)
    return Training(inputs, history, signals, trainer)


def _features(inputs: TrainingInputs, backbone: Backbone, precision: torch.dtype) -> CachedFeatures | None:
    """Cached features of all images that have a reference, where they are asked for."""
    config = inputs.config
    if not config.data.cache_features:
        return None
    images = [record.image for record in (*inputs.training, *inputs.validation) if record.references]
    return cached_features(
        backbone, images, autocast=precision, batch_size=config.eval.eval_batch_size, progress=inputs.progress
    )


def _validation(
    inputs: TrainingInputs, backbone: Backbone, precision: torch.dtype, features: CachedFeatures | None
) -> Validation:
    """What a validation does; raises `CaptuneError` where no image has a reference."""
    config = inputs.config
    if not any(record.references for record in inputs.validation):
        raise CaptuneError(
            "The validation split has no image with references.", "Prepare the data with a val split, e.g. 80/10/10."
        )
    return Validation(
        backbone,
        inputs.validation,
        GenerationOptions(**backbone.generation),
        images=config.train.validation_images,
        metrics=config.train.validation_metrics,
        shown=config.train.sample_captions,
        max_caption_tokens=config.data.max_caption_tokens,
        batch_size=config.eval.eval_batch_size,
        autocast=precision,
        features=features,
        processes=inputs.processes,
        progress=inputs.progress,
    )


def _early_stopping_rule(config: Config) -> str:
    rule: str = config.train.early_stopping_metric
    return config.train.best_metric if rule == "auto" else rule


def _early_stop(inputs: TrainingInputs) -> EarlyStop:
    """What ends a training early; the terminal gets what it waits for."""
    rule, patience = _early_stopping_rule(inputs.config), inputs.config.train.early_stopping_patience
    if patience:
        watched = "the validation loss" if rule == "loss" else rule
        inputs.progress.info(
            f"Early stopping watches {watched}: {patience} validations without a better one end the training."
        )
    return EarlyStop(inputs.run, rule, patience, inputs.processes)


def _trainer(
    inputs: TrainingInputs,
    backbone: Backbone,
    validation: Validation,
    precision: torch.dtype,
    features: CachedFeatures | None,
    callbacks: Sequence[TrainerCallback],
) -> CaptionTrainer:
    """The training loop, ready to begin."""
    data, learn = inputs.config.data, inputs.config.train
    self_critical = learn.stage == "scst"
    examples = make_examples(
        inputs.training,
        backbone,
        max_tokens=data.max_caption_tokens,
        # A reward is of an image and all its references.
        per_image=0 if self_critical else data.captions_per_image,
        clean=data.clean_captions,
    )
    plan = TrainingPlan.of(learn, len(examples), inputs.processes.count)
    _warn_of(plan, examples, inputs, backbone)
    schedule = Schedule(log_every=learn.logging_steps, validate_every=plan.validate_every, save_at=plan.stays)
    callbacks = [schedule, *callbacks, *_trackers(inputs, validation)]
    kind: type[CaptionTrainer] = CaptionTrainer
    dataset: type[CaptionDataset] = CaptionDataset
    more: dict[str, Any] = {}
    if self_critical:
        kind, dataset = SelfCriticalTrainer, NumberedDataset
        more = _self_critical(examples, inputs.config, backbone)
        callbacks.append(Guard(inputs.run, learn.scst_guard, inputs.progress))
    augmentation = Augmentation(learn.seed, data.crop, data.flip, data.color_jitter)
    return kind(
        backbone,
        dataset(examples, backbone.pixels, augmentation, features),
        inputs.run,
        _arguments(inputs, backbone.device, precision),
        order_seed=learn.seed,
        validate=validation,
        best_metric=learn.best_metric,
        rates=part_rates(learn.part_learning_rates),
        keep_checkpoints=learn.keep_checkpoints,
        stays=plan.stays,
        label_smoothing=learn.label_smoothing,
        recompute=learn.gradient_checkpointing,
        processes=inputs.processes,
        shard=learn.shard,
        callbacks=callbacks,
        **more,
    )


def _warn_of(
    plan: TrainingPlan, examples: Sequence[TrainingExample], inputs: TrainingInputs, backbone: Backbone
) -> None:
    """Warn of options that cannot take effect in this training."""
    least = GenerationOptions(**backbone.generation).min_new_tokens
    references = [reference for example in examples for reference in example.references]
    # The end of a caption is no word of it.
    lengths = [len(one.tokens) - one.prompt_length - 1 for one in references] if least else []
    for sentence in plan_warnings(inputs.config.train, plan, least, lengths):
        inputs.progress.warn(sentence)
    cut = sum(reference.cut for reference in references)
    if cut:
        inputs.progress.warn(cut_warning(cut, len(references), inputs.config.data.max_caption_tokens))


def _trackers(inputs: TrainingInputs, validation: Validation) -> list[TrainerCallback]:
    """The trackers, in the first process."""
    run, config, step = inputs.run, inputs.config, inputs.checkpoint.step if inputs.checkpoint else 0
    names = [name for name in config.train.trackers if name != "none"] if inputs.processes.first else []
    begin = {
        name: partial(TRACKERS[name], run, lambda: validation.samples, config.model_dump(), step) for name in names
    }
    return [GuardedTracker(name, run, begin[name], inputs.progress) for name in names]


def _self_critical(examples: Sequence[TrainingExample], config: Config, backbone: Backbone) -> dict[str, Any]:
    """What self-critical training needs besides: the reward, and how captions are sampled."""
    learn, max_tokens = config.train, GenerationOptions(**backbone.generation).max_new_tokens
    how = SelfCritical(learn.scst_samples, learn.scst_search, learn.scst_baseline, learn.scst_references, max_tokens)
    return {"reward": CiderReward({n: one.record.references for n, one in enumerate(examples)}), "how": how}


def _arguments(inputs: TrainingInputs, device: torch.device, precision: torch.dtype) -> TrainingArguments:
    """The library's options of the loop alone: logging, validation, saving and trackers are captune's own."""
    learn = inputs.config.train
    return TrainingArguments(
        output_dir=str(inputs.run.path),
        num_train_epochs=learn.epochs,
        max_steps=learn.max_steps or -1,
        per_device_train_batch_size=learn.batch_size,
        gradient_accumulation_steps=learn.gradient_accumulation,
        learning_rate=learn.learning_rate,
        weight_decay=learn.weight_decay,
        adam_beta2=learn.adam_beta2,
        lr_scheduler_type=SCHEDULES[learn.schedule],
        warmup_steps=learn.warmup_steps or learn.warmup_ratio,  # below 1: a share of all steps
        max_grad_norm=learn.max_grad_norm,
        seed=learn.seed,
        data_seed=learn.seed,
        dataloader_num_workers=inputs.config.data.loader_workers,
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


def _error_ending(error: BaseException, trainer: CaptionTrainer) -> Ending:
    state = trainer.state
    if isinstance(error, KeyboardInterrupt):
        return ending_at(state, "signal", f"stopped at once by a second signal after step {state.global_step}")
    reason = first_line(error, with_type=not isinstance(error, CaptuneError))
    return ending_at(state, "error", f"an error after step {state.global_step}: {reason}", error=type(error).__name__)


class _Publisher:
    """Publishes a run's best checkpoint on the Hub when it changes; a failure is a warning."""

    def __init__(self, run: Run, repo: str, progress: Progress) -> None:
        self.run, self.repo, self.progress, self.published = run, repo, progress, ""

    def __call__(self) -> None:
        best = self.run.pointed(POINTERS[0]) or ""
        if not best or best == self.published:
            return
        self.published = best
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
    state = (
        f"Everything up to {last.name} (epoch {last.epoch:.2f}) is kept" if last else "No checkpoint was written yet"
    )
    return CaptuneError(
        f"Stopped by a signal. {state} in {run.path}.",
        f"Go on with: captune train --resume --out {run.path}",
        code=EXIT_TERMINATED if signal_number == 15 else EXIT_INTERRUPTED,
    )
