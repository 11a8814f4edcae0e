"""Options of a training: its data, its model, and how it learns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from captune.core.options.option import Options, option

_ONE = re.compile(r"(every-)?(\d+(?:\.\d+)?|\.\d+)")


@dataclass(frozen=True)
class ChosenEpochs:
    """Single epochs, and distances of which every multiple is meant."""

    single: tuple[float, ...] = ()
    every: tuple[float, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str]) -> ChosenEpochs:
        """From `2`, `0.5` and `every-10`; raises `ValueError` for anything else."""
        found: dict[bool, list[float]] = {False: [], True: []}
        for word in words:
            match = _ONE.fullmatch(word)
            if match is None or not float(match[2]):
                raise ValueError(f"'{word}' is no epoch; for example 2,4,every-10")
            found[bool(match[1])].append(float(match[2]))
        return cls(tuple(found[False]), tuple(found[True]))

    def at(self, step: int, per_epoch: int) -> bool:
        """Whether an optimizer step is the one that ends a chosen epoch, of `per_epoch` steps each."""
        if step <= 0:
            return False
        if any(step == _step(epoch, per_epoch) for epoch in self.single):
            return True
        return any(
            step == _step(distance * max(1, round(step / (per_epoch * distance))), per_epoch) for distance in self.every
        )

    def count(self, epochs: float) -> int:
        """How many of them a training of `epochs` reaches."""
        multiples = (distance * n for distance in self.every for n in range(1, int(epochs / distance) + 1))
        return len({epoch for epoch in (*self.single, *multiples) if epoch <= epochs})

    def beyond(self, epochs: float) -> list[float]:
        """Those that a training of `epochs` does not reach."""
        return [epoch for epoch in (*self.single, *self.every) if epoch > epochs]


def _step(epoch: float, per_epoch: int) -> int:
    return max(1, round(per_epoch * epoch))


def epoch_words(value: Any) -> Any:
    """A single number, a word or several as a tuple of words, checked."""
    given = value if isinstance(value, list | tuple) else (value,)
    words = tuple(
        part.strip()
        for one in given
        for part in (f"{one:g}" if isinstance(one, float) else str(one)).split(",")
        if part.strip()
    )
    ChosenEpochs.parse(words)
    return words


# The names of training/selection.py's rules; metrics by the names of their scores are taken as well.
Best = Annotated[
    Literal[
        "auto", "meteor-centric", "weighted-composite", "pareto", "multi-criteria",
        "meteor", "cider", "bleu", "rouge", "vqa-accuracy", "loss",
    ],
    BeforeValidator(
        lambda value: {"bleu_4": "bleu", "rouge_l": "rouge", "vqa_accuracy": "vqa-accuracy"}.get(value, value)
    ),
]  # fmt: skip
PARTS = ("vision", "bridge", "text")


class DataOptions(Options, section="data", panel="Data in training"):
    """How prepared data reaches the model."""

    max_caption_tokens: int = option(40, "Longest reference in training, in tokens; longer ones are cut.", ge=2, le=512)
    captions_per_image: int = option(
        0, "References of an image in one training example; 0: all; 1: every pair is a separate example.", ge=0
    )
    clean_captions: bool = option(
        False, "Clean training references as BLIP's authors do: lower case, little punctuation, at most 30 words."
    )
    crop: float = option(0.0, "Random crop in training; at least 1 - crop of the image stays.", ge=0, lt=1)
    flip: bool = option(False, "Mirror images at random in training, unless a reference contains left or right.")
    color_jitter: float = option(0.0, "Random change of brightness, contrast and colour in training.", ge=0, lt=1)
    loader_workers: int = option(0, "Processes that open training images; 0: in the main process.", ge=0)
    cache_features: bool = option(
        False, "Store the features of a frozen vision part on disk (not with crop, flip, jitter)."
    )


class ModelOptions(Options, section="model", panel="Model"):
    """What is loaded and which of its parts learn."""

    freeze: tuple[Literal["auto", "none", "vision", "bridge", "text"], ...] = option(
        ("auto",), "Parts that are not trained: vision, bridge, text, none; auto: vision, and none in a new model."
    )
    image_size: int | None = option(
        None, "Side of the model's square input, in pixels; default: as the model was saved.", ge=8, le=2048
    )
    dropout: float | None = option(None, "Dropout of the text part; default: as the model was saved.", ge=0, lt=1)
    lora: str | None = option(
        None, "Train low-rank adapters instead of the weights: on, or r=16,alpha=32,dropout=0.05,targets=bridge+text."
    )
    save_adapter_only: bool = option(
        False, "With --lora: a checkpoint is the adapters beside the name of their model, in the layout of peft."
    )
    train_prompt: str | None = option(
        None,
        "Prompt before every reference in training and before every caption later, e.g. 'a picture of'; fields such as "
        "{names} are filled for each image.",
    )
    vocab_size: int = option(8000, "Largest vocabulary of a new model's tokenizer.", ge=64)


class TrainOptions(Options, section="train", panel="Training"):
    """How long and how a model learns."""

    epochs: float = option(5.0, "Passes over every reference of every image.", gt=0, env="NUM_EPOCHS")
    max_steps: int = option(0, "Stop after this many optimizer steps instead; 0: off.", ge=0)
    batch_size: int = option(8, "Images (with their references) per step and device.", ge=1, env="BATCH_SIZE")
    gradient_accumulation: int = option(1, "Batches per optimizer step.", ge=1)
    learning_rate: float = option(2e-5, "Peak learning rate.", gt=0)
    part_learning_rates: tuple[str, ...] = option(
        (), "Peak learning rates of single parts, such as vision=1e-6; others use --learning-rate."
    )
    weight_decay: float = option(0.05, "AdamW's weight decay.", ge=0)
    adam_beta2: float = option(0.999, "AdamW's second beta.", gt=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = option("cosine", "Learning-rate schedule after the warm-up.")
    warmup_ratio: float = option(0.05, "Share of the steps in which the learning rate rises.", ge=0, lt=1)
    warmup_steps: int = option(0, "Steps in which the learning rate rises; overrides the ratio; 0: off.", ge=0)
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm; 0: off.", ge=0)
    label_smoothing: float = option(0.0, "Share of the target probability that is spread over all tokens.", ge=0, lt=1)
    seed: int = option(42, "Seed of order, dropout and augmentation.", ge=0)
    logging_steps: int = option(50, "Optimizer steps between two log lines.", ge=1)
    eval_every: float = option(1.0, "Epochs between two validations.", gt=0)
    eval_steps: int = option(0, "Optimizer steps between two validations; overrides the epochs; 0: off.", ge=0)
    keep_checkpoints: int = option(2, "Newest checkpoints kept, besides the best two; 0: all.", ge=0)
    keep_epochs: Annotated[tuple[str, ...], BeforeValidator(epoch_words)] = option(
        (), "Epochs whose checkpoints are written and never deleted, such as 2,4,every-10."
    )
    best_metric: Best = option(
        "auto",
        "How best-metric is chosen: a rule over all validations (see the training guide), or one metric; "
        "auto: meteor-centric, for scst cider, for answers vqa-accuracy.",
    )
    early_stopping_patience: int = option(
        0, "Validations without an improvement of --early-stopping-metric before training stops; 0: off.", ge=0
    )
    early_stopping_metric: Best = option(
        "auto",
        "What early stopping watches: loss, or a rule or metric as in --best-metric; auto: the same as --best-metric.",
    )
    validation_images: int = option(500, "Images captioned at each validation; 0: none, only the loss.", ge=0)
    validation_metrics: tuple[str, ...] = option(("auto",), "Metrics of those captions; auto: as in captune evaluate.")
    sample_captions: int = option(4, "Captions shown beside their references at each validation.", ge=0)
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "none"], ...] = option(
        ("tensorboard",), "Trackers that get the scores, besides the run folder."
    )
    stage: Literal["xe", "scst"] = option(
        "xe", "xe: train on the references; scst: afterwards, on the CIDEr-D of captions that the model writes."
    )
    scst_samples: int = option(5, "Captions per image in a step of scst.", ge=2, le=64)
    scst_search: Literal["chance", "beams"] = option(
        "beams", "How these captions are generated: chance (sampling) or beams (beam search)."
    )
    scst_baseline: Literal["samples", "greedy"] = option(
        "samples", "Baseline of the reward: samples (other captions of the image) or greedy (its greedy caption)."
    )
    scst_references: float = option(
        0.0, "Share of the references' loss in scst, so that the language stays close to the references.", ge=0, lt=1
    )
    scst_guard: float = option(
        0.1, "Stop scst when CIDEr-D of a validation falls by this share below the best; 1: never.", gt=0, le=1
    )
    push_to: str | None = option(
        None, "Hub repository (user/name) to which each new best checkpoint is uploaded; auto: HF_REPO_NAME."
    )
    gradient_checkpointing: bool = option(False, "Needs less memory and more time.")
    shard: bool = option(False, "Split weights, gradients and optimizer state between the processes (FSDP).")
