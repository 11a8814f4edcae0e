"""The model as a training begins with it: loaded or built, with the parts that learn."""

from __future__ import annotations

from captune.core.errors import UsageError
from captune.core.machine import gc_paused
from captune.core.model_names import is_new, is_pair
from captune.core.options import PARTS, GenerationOptions, TrainConfig
from captune.core.records import ImageRecord
from captune.decoding.settings import check_length, check_prompt, normalized
from captune.inference.batches import clean_reference
from captune.inference.loading import placing_for
from captune.inference.processes import Processes
from captune.models.backbone import Backbone
from captune.models.loading.loader import load_backbone, model_info, new_backbone, pair_backbone
from captune.models.lora import Lora, add_lora
from captune.models.weights import FP32, Placing
from captune.training.inputs import TrainingInputs


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
    model: str,
    training: list[ImageRecord],
    config: TrainConfig,
    *,
    new: bool,
    processes: Processes | None = None,
) -> Backbone:
    """The model as training begins with it: loaded or from scratch, prompt, dropout and frozen parts set."""
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
    if config.train.shard or config.model.lora is not None:
        return FP32  # shares of the weights, and sums of adapters and weights, are of one type
    frozen = _frozen(model_info(model).family, config, new=False)
    return placing_for(model, config.run_on, learns=[part for part in PARTS if part not in frozen], processes=processes)


def check_cacheable(backbone: Backbone, config: TrainConfig) -> None:
    """Features can be cached where images are the same in every epoch and the vision part does not learn."""
    data = config.data
    if data.cache_features and (data.crop or data.flip or data.color_jitter):
        raise UsageError(
            "--cache-features keeps one view of an image, and --crop, --flip or --color-jitter make many.",
            "Leave one of them out.",
        )
    if data.cache_features and any(parameter.requires_grad for parameter in backbone.parts()["vision"]):
        raise UsageError(
            "--cache-features needs a vision part that does not learn.", "Add --freeze vision, or leave it out."
        )
