"""How long a training will be, in steps, and what in its options cannot work out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from captune.core.epochs import ChosenEpochs
from captune.core.training_options import TrainOptions


@dataclass(frozen=True)
class TrainingPlan:
    """Optimizer steps of an epoch, of the whole training, and between two validations; epochs that stay."""

    per_epoch: int
    steps: int
    validate_every: int
    permanent: ChosenEpochs

    @classmethod
    def of(cls, options: TrainOptions, visits: int, processes: int = 1) -> TrainingPlan:
        """The plan for so many visits of pictures in an epoch, counted as the training loop counts."""
        batches = -(-visits // (options.batch_size * processes))
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


def most_checkpoints(options: TrainOptions) -> int:
    """How many stay at once besides the best two; 0: all."""
    chosen = ChosenEpochs.parse(options.keep_epochs).count(options.epochs)
    return options.keep_checkpoints and options.keep_checkpoints + chosen


def foreseen(options: TrainOptions, plan: TrainingPlan, least: int = 0, lengths: Sequence[int] = ()) -> list[str]:
    """What will not come about as the options say, each as a sentence with the way out.

    `least` is the smallest number of tokens a caption may have, `lengths` those of the training references.
    """
    found = []
    if options.warmup_steps >= plan.steps:
        # The rate of step n, counted from 0, is n / warmup_steps of its peak.
        reached = (plan.steps - 1) / options.warmup_steps
        found.append(
            f"The warm-up is longer than the training: the learning rate rises for {options.warmup_steps} steps, and "
            f"there are {plan.steps} ({plan.epochs:.3g} epochs of {plan.per_epoch}). It will end at {reached:.0%} of "
            f"--learning-rate {options.learning_rate:g}. Give fewer --warmup-steps, or 0 and --warmup-ratio 0.05."
        )
    if options.early_stopping_patience >= plan.validations:
        found.append(
            f"Early stopping cannot happen: it takes more than {options.early_stopping_patience} validations, and "
            f"there will be {plan.validations}. Lower --early-stopping-patience or --eval-every."
        )
    missing = plan.permanent.beyond(plan.epochs)
    if missing:
        epochs = ", ".join(f"{epoch:g}" for epoch in missing)
        found.append(f"--keep-epochs names {epochs}, and this training ends with epoch {plan.epochs:.3g}.")
    shorter = sum(length < least for length in lengths) / max(1, len(lengths))
    if shorter > 0.5:
        found.append(
            f"{shorter:.0%} of the training references are shorter than --min-new-tokens {least}: captions that must "
            "be longer repeat themselves. --min-new-tokens 0 lets them end."
        )
    return found
