"""The plan of a training: its steps, memory and disk, and what cannot work."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captune.core.errors import CaptuneError, first_line
from captune.core.machine import (
    DiskFull,
    OutOfMemory,
    free_bytes,
    free_space,
    in_bytes,
    is_out_of_memory,
    machine_error,
    memory_error,
)
from captune.core.options.training import ChosenEpochs, TrainOptions
from captune.core.options.verbs import Config
from captune.core.runs import Run
from captune.training.resuming import equal_steps

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

# fp32: the gradient of a value that learns, and Adam's two averages of it.
GRADIENT, ADAM = 4, 8
# Checkpoints that stay besides the newest: the two best.
BEST = 2


@dataclass(frozen=True)
class TrainingPlan:
    """Optimizer steps of an epoch, of the whole training, and between two validations; epochs that stay."""

    per_epoch: int
    steps: int
    validate_every: int
    permanent: ChosenEpochs

    @classmethod
    def of(cls, options: TrainOptions, examples: int, processes: int = 1) -> TrainingPlan:
        """The plan for so many examples in an epoch, counted as the training loop counts."""
        batches = -(-examples // (options.batch_size * processes))
        per_epoch = max(1, -(-batches // options.gradient_accumulation))
        steps = options.max_steps or max(1, math.ceil(per_epoch * options.epochs))
        every = options.eval_steps or max(1, round(per_epoch * options.eval_every))
        return cls(per_epoch, steps, every, ChosenEpochs.parse(options.keep_epochs))

    @property
    def epochs(self) -> float:
        return self.steps / self.per_epoch

    @property
    def validations(self) -> int:
        """How many there will be; the last step always has one."""
        return -(-self.steps // self.validate_every)

    def stays(self, step: int) -> bool:
        """Whether the checkpoint of a step is never deleted."""
        return self.permanent.at(step, self.per_epoch)


def max_checkpoints(options: TrainOptions) -> int:
    """How many stay at once besides the best two; 0: all."""
    chosen = ChosenEpochs.parse(options.keep_epochs).count(options.epochs)
    return options.keep_checkpoints and options.keep_checkpoints + chosen


def plan_warnings(options: TrainOptions, plan: TrainingPlan, least: int = 0, lengths: Sequence[int] = ()) -> list[str]:
    """Options that cannot take effect in this training, each as a sentence that says what to change.

    `least` is the smallest number of tokens a caption may have, `lengths` those of the training references.
    """
    warnings = []
    if options.warmup_steps >= plan.steps:
        # The rate of step n, counted from 0, is n / warmup_steps of its peak.
        reached = (plan.steps - 1) / options.warmup_steps
        warnings.append(
            f"The warm-up is longer than the training: the learning rate rises for {options.warmup_steps} steps, and "
            f"there are {plan.steps} ({plan.epochs:.3g} epochs of {plan.per_epoch}). It will end at {reached:.0%} of "
            f"--learning-rate {options.learning_rate:g}. Give fewer --warmup-steps, or 0 and --warmup-ratio 0.05."
        )
    if options.early_stopping_patience >= plan.validations:
        warnings.append(
            f"Early stopping cannot happen: it takes more than {options.early_stopping_patience} validations, and "
            f"there will be {plan.validations}. Lower --early-stopping-patience or --eval-every."
        )
    beyond = plan.permanent.beyond(plan.epochs)
    if beyond:
        epochs = ", ".join(f"{epoch:g}" for epoch in beyond)
        warnings.append(f"--keep-epochs names {epochs}, and this training ends with epoch {plan.epochs:.3g}.")
    shorter = sum(length < least for length in lengths) / max(1, len(lengths))
    if shorter > 0.5:
        warnings.append(
            f"{shorter:.0%} of the training references are shorter than --min-new-tokens {least}: captions that must "
            "be longer repeat themselves. --min-new-tokens 0 lets them end."
        )
    return warnings


def cut_warning(cut: int, count: int, most: int) -> str:
    """Of `cut` references, out of `count`, that are longer than `most` tokens or than the model can read."""
    return (
        f"{cut:,} of {count:,} training references are cut: they have more than {most} tokens (--max-caption-tokens), "
        "or more than the model can read. Their beginning and the end token are learned."
    )


@contextmanager
def explained_limits(run: Run, config: Config, what: str) -> Iterator[None]:
    """Around a part of a training (`what` it does): errors for want of memory or disk say how to go on."""
    try:
        yield
    except (OutOfMemory, DiskFull) as error:
        command = _resume_command(run)
        if command in error.hint:
            raise
        hint = re.sub(r",? and run the command again\.", f", then: {command}", error.hint)
        less = _less_memory(run, config) if isinstance(error, OutOfMemory) else ""
        raise type(error)(error.message, less + hint) from error
    except CaptuneError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise memory_error(error, what, _less_memory(run, config) + _alternatives(config)) from error
        if "dataloader worker" in str(error).lower():
            raise CaptuneError(
                f"A process that reads images has died: {first_line(error)}",
                f"Often it was memory. With fewer: {_resume_command(run)} --loader-workers 0",
            ) from error
        known = machine_error(error)
        if isinstance(known, DiskFull):
            raise DiskFull(known.message, f"Free some space, then: {_resume_command(run)}") from error
        raise


def _resume_command(run: Run) -> str:
    """The command that goes on with a run, or begins one that has no folder yet."""
    return f"captune train --resume --out {run.path}" if Run.is_run(run.path) else "the same command"


def _less_memory(run: Run, config: Config) -> str:
    """The command that goes on with the same mathematics in less memory; empty where there is none."""
    learn = config.train
    flags = [] if learn.stage == "scst" else [equal_steps(learn.batch_size, learn.gradient_accumulation)]
    if not learn.gradient_checkpointing:
        flags.append("--gradient-checkpointing")
    flags = [flag for flag in flags if flag]
    if not flags:
        return ""
    each = " (or one of the two)" if len(flags) > 1 else ""
    return f"The same loss in less memory{each}: {_resume_command(run)} {' '.join(flags)}\n"


def _alternatives(config: Config) -> str:
    """What a new run could do with less, at other mathematics."""
    data, learn = config.data, config.train
    ways = {
        "--freeze vision --cache-features": not (data.cache_features or data.crop or data.flip or data.color_jitter),
        "--captions-per-image 1": learn.stage != "scst" and data.captions_per_image != 1,
        "--lora on": config.model.lora is None,
        "--precision bf16": config.run_on.precision in ("auto", "fp32"),
        "a smaller --image-size or --image-tokens, a smaller model": True,
    }
    return f"In a new run also: {', '.join(way for way, open_ in ways.items() if open_)}."


@dataclass(frozen=True)
class Needs:
    """Bytes of a training: of memory beside the batches, of its first checkpoint and of each later one."""

    weights: int
    learning: int
    first: int
    later: int

    def disk(self, checkpoints: int) -> int:
        return self.first + max(0, checkpoints - 1) * self.later


def estimate_needs(backbone: Backbone) -> Needs:
    """Those of a backbone as it is loaded, with what is to learn."""
    from captune.models.weights import LEAST

    parameters = list(backbone.model.parameters())
    values = sum(p.numel() for p in parameters if p.requires_grad)
    # What learns is in fp32 when it does, whatever it was loaded in.
    weights = sum(p.numel() * GRADIENT if p.requires_grad else p.nbytes for p in parameters)
    state = values * ADAM
    names = backbone.frozen_weights() if backbone.placed else frozenset()
    named = dict(backbone.model.named_parameters())
    frozen = sum(named[name].nbytes for name in names if name in named)
    shared = frozen if frozen >= LEAST else 0
    return Needs(weights, values * (GRADIENT + ADAM), weights + state, weights + state - shared)


def default_needs_message(backbone: Backbone) -> str:
    """What a training with default options would take of a loaded model, in words; it changes what is to learn."""
    backbone.freeze(backbone.frozen_by_default)
    needs = estimate_needs(backbone)
    memory = in_bytes(needs.weights + needs.learning)
    return f"training takes about {memory} of memory besides its batches, a first checkpoint {in_bytes(needs.first)}"


def needs_message(backbone: Backbone, run: Path, keep: int) -> str:
    """The needs of a training in a line, beside what is free; `keep` as in --keep-checkpoints."""
    needs = estimate_needs(backbone)
    all_of, weights, learning = map(in_bytes, (needs.weights + needs.learning, needs.weights, needs.learning))
    from captune.models.loading.devices import free_memory

    room = in_bytes(free_memory(backbone.device))
    memory = f"{all_of} of memory (weights {weights}, gradients and optimizer {learning}) and what its batches need"
    if keep:
        disk = f"up to {in_bytes(needs.disk(keep + BEST))} of disk for {keep + BEST} checkpoints"
    else:
        disk = f"{in_bytes(needs.first)} of disk for the first checkpoint and {in_bytes(needs.later)} for each other"
    free = free_bytes(run)
    short = free is not None and needs.disk(keep + BEST) > free
    hint = " That is too little: free some, or keep fewer (--keep-checkpoints 1)." if short else ""
    return f"Takes about {memory}; {room} free. Takes {disk}; {free_space(run)}.{hint}"
