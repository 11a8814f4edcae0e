"""Which validation of a training was the best: rules over its history.

A rule is a pure function of the scores of every validation, oldest first, to the index of
the best one. Scores are by name (`meteor`, `cider`, `bleu_4`, `rouge_l`, `loss`); a metric
that was not measured at every validation is left out. METEOR is first where it was
measured, else CIDEr-D.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.tables import Table

Scores = Mapping[str, float]
Rule = Callable[[Sequence[Scores]], int]

# The metrics that rules weigh up, the first one measured being the primary, and their weights.
WEIGHTS = {"meteor": 0.4, "cider": 0.3, "bleu_4": 0.2, "rouge_l": 0.1}
TOLERANCE = 0.05
FLEXIBILITY = 0.02

RULES = Table(
    "selection rule",
    {
        "meteor-centric": "captune.engine.selection:meteor_centric",
        "weighted-composite": "captune.engine.selection:weighted_composite",
        "pareto": "captune.engine.selection:pareto",
        "multi-criteria": "captune.engine.selection:multi_criteria",
        "meteor": "captune.engine.selection:highest_meteor",
        "cider": "captune.engine.selection:highest_cider",
        "bleu": "captune.engine.selection:highest_bleu",
        "rouge": "captune.engine.selection:highest_rouge",
        "vqa-accuracy": "captune.engine.selection:highest_vqa_accuracy",
        "loss": "captune.engine.selection:lowest_loss",
    },
    group="captune.rules",
)


# What a rule over one metric is about.
SINGLE = {
    "meteor": "meteor",
    "cider": "cider",
    "bleu": "bleu_4",
    "rouge": "rouge_l",
    "vqa-accuracy": "vqa_accuracy",
    "loss": "loss",
}


@dataclass(frozen=True)
class Choice:
    """A validation that a rule chose: when, its scores, and the rule in words."""

    rule: str
    step: int
    epoch: float
    scores: dict[str, float]
    why: str


def choose(history: Sequence[Mapping[str, Any]], rule: str, kept: Collection[int] | None = None) -> Choice | None:
    """What `rule` chooses among the validations in a run's history, or among those at the `kept` steps.

    The lowest loss where it finds nothing that it weighs up; None where nothing was validated.
    """
    lines = [line for line in history if "eval_loss" in line and (kept is None or line["step"] in kept)]
    if not lines:
        return None
    scores = [
        {key.removeprefix("eval_"): value for key, value in line.items() if key.startswith("eval_")} for line in lines
    ]
    try:
        chosen = RULES[rule](scores)
    except CaptuneError:
        rule = "loss"
        chosen = lowest_loss(scores)
    why = (RULES[rule].__doc__ or "").strip().splitlines()[0]
    return Choice(rule, lines[chosen]["step"], float(lines[chosen].get("epoch") or 0.0), dict(scores[chosen]), why)


def meteor_centric(history: Sequence[Scores]) -> int:
    """A higher METEOR wins, unless another metric falls by more than 5 % of what it was."""
    first, *others = measured(history)

    def better(new: Scores, best: Scores) -> bool:
        return new[first] > best[first] and all(new[name] >= (1 - TOLERANCE) * best[name] for name in others)

    return _climb(history, better)


def weighted_composite(history: Sequence[Scores]) -> int:
    """Highest weighted mean (METEOR 4, CIDEr-D 3, BLEU-4 2, ROUGE-L 1) of scores relative to their own highest."""
    names = measured(history)
    top = {name: max(scores[name] for scores in history) or 1.0 for name in names}
    return _first_best([sum(WEIGHTS[name] * scores[name] / top[name] for name in names) for scores in history])


def pareto(history: Sequence[Scores]) -> int:
    """A better metric wins if none gets worse."""
    names = measured(history)

    def better(new: Scores, best: Scores) -> bool:
        return all(new[name] >= best[name] for name in names) and any(new[name] > best[name] for name in names)

    return _climb(history, better)


def multi_criteria(history: Sequence[Scores]) -> int:
    """Higher metrics on average win, as long as METEOR falls by no more than 2 % of what it was."""
    names = measured(history)
    first = names[0]

    def better(new: Scores, best: Scores) -> bool:
        gains = [(new[name] - best[name]) / (best[name] or 1.0) for name in names]
        return new[first] >= (1 - FLEXIBILITY) * best[first] and sum(gains) > 0

    return _climb(history, better)


def highest_meteor(history: Sequence[Scores]) -> int:
    """Highest METEOR."""
    return _first_best(_all(history, "meteor"))


def highest_cider(history: Sequence[Scores]) -> int:
    """Highest CIDEr-D."""
    return _first_best(_all(history, "cider"))


def highest_bleu(history: Sequence[Scores]) -> int:
    """Highest BLEU-4."""
    return _first_best(_all(history, "bleu_4"))


def highest_rouge(history: Sequence[Scores]) -> int:
    """Highest ROUGE-L."""
    return _first_best(_all(history, "rouge_l"))


def highest_vqa_accuracy(history: Sequence[Scores]) -> int:
    """Highest accuracy of answers."""
    return _first_best(_all(history, "vqa_accuracy"))


def lowest_loss(history: Sequence[Scores]) -> int:
    """Lowest validation loss."""
    return _first_best([-loss for loss in _all(history, "loss")])


def measured(history: Sequence[Scores]) -> list[str]:
    """The weighed metrics that every validation has, the primary first.

    Raises `CaptuneError` where there is none.
    """
    names = [name for name in WEIGHTS if history and all(name in scores for scores in history)]
    if not names:
        raise CaptuneError(
            "No caption metric was measured at every validation.", "Train with --validation-images above 0."
        )
    return names


def _all(history: Sequence[Scores], name: str) -> list[float]:
    if not history or not all(name in scores for scores in history):
        raise CaptuneError(f"{name} was not measured at every validation.", "Choose a rule over what was measured.")
    return [scores[name] for scores in history]


def _climb(history: Sequence[Scores], better: Callable[[Scores, Scores], bool]) -> int:
    """The last of the validations that each were better than the best before them."""
    best = 0
    for index, scores in enumerate(history):
        if better(scores, history[best]):
            best = index
    return best


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
