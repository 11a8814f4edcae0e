"""Which validation of a training was the best: rules over its history.

A rule is a pure function of the scores of every validation, oldest first, to the index of
the best one. Scores are by name (`meteor`, `cider`, `bleu_4`, `rouge_l`, `loss`); a metric
that was not measured at every validation is left out. METEOR is first where it was
measured, else CIDEr-D. Rounding decides nothing: scores that are as good as zero count
as zero, and values that are equal but for rounding as equal. A validation whose score is no
finite number is never the best where another one's is.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.tables import Table
from captune.metrics import SPECS, MetricSpec, spec_of
from captune.metrics.report import AS_GOOD_AS_ZERO

Scores = Mapping[str, float]
Rule = Callable[[Sequence[Scores]], int]

# The metrics that rules weigh up, the first one measured being the primary, and their weights.
WEIGHTS = {"meteor": 0.4, "cider": 0.3, "bleu_4": 0.2, "rouge_l": 0.1}
TOLERANCE = 0.05
FLEXIBILITY = 0.02
# Sums in another order differ by about 1e-12 of their value; the smallest real change of a loss by far more.
ROUNDING = 1e-7
NOT_SCORES = ("runtime", "per_second", "images", "samples", "references")

RULES = Table(
    "selection rule",
    {
        "meteor-centric": "captune.training.selection:meteor_centric",
        "weighted-composite": "captune.training.selection:weighted_composite",
        "pareto": "captune.training.selection:pareto",
        "multi-criteria": "captune.training.selection:multi_criteria",
        "meteor": "captune.training.selection:highest_meteor",
        "cider": "captune.training.selection:highest_cider",
        "bleu": "captune.training.selection:highest_bleu",
        "rouge": "captune.training.selection:highest_rouge",
        "vqa-accuracy": "captune.training.selection:highest_vqa_accuracy",
        "loss": "captune.training.selection:lowest_loss",
    },
    group="captune.rules",
)


# What a rule over one metric is about.
SINGLE = {spec.rule: spec.name for spec in SPECS.values() if spec.rule}
OVER_SEVERAL = ("meteor-centric", "weighted-composite", "pareto", "multi-criteria")


def _spec(name: str) -> MetricSpec:
    """Of a score by its name, or by that in the history."""
    return spec_of(name.removeprefix("eval_"))


@dataclass(frozen=True)
class BestScore:
    """The best value of one validation score, and the epoch and step it was measured at."""

    value: float
    epoch: float
    step: int


@dataclass(frozen=True)
class Selection:
    """A validation that a rule chose: when, its scores, and the rule in words."""

    rule: str
    step: int
    epoch: float
    scores: dict[str, float]
    why: str


def as_finite(name: str, value: Any) -> float | None:
    """A score of a caption metric that is as good as zero as 0.0; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if _spec(name).higher_is_better and abs(value) < AS_GOOD_AS_ZERO:
        return 0.0
    return float(value)


def exceeds(new: float, best: float) -> bool:
    """Whether a value is higher by more than rounding."""
    return new > best and not math.isclose(new, best, rel_tol=ROUNDING, abs_tol=1e-12)


def improves(name: str, new: Any, best: Any) -> bool:
    """Whether a score is better than the best one before it; anything is better than none."""
    value, before = as_finite(name, new), as_finite(name, best)
    if value is None:
        return False
    sign = _spec(name).sign
    return before is None or exceeds(sign * value, sign * before)


def shown_score(name: str, value: float) -> str:
    """A score with its name as readers know it: `validation loss 2.345`, `BLEU-4 12.3` (x 100)."""
    if name == "loss":
        return f"validation loss {value:.4g}"
    return f"{SPECS[name].label if name in SPECS else name} {100 * value:.1f}"


def scores_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Validation scores in a line of the history, by name without `eval_`; what is no finite number is left out."""
    return {
        key.removeprefix("eval_"): float(value)
        for key, value in line.items()
        if key.startswith("eval_")
        and isinstance(value, int | float)
        and math.isfinite(value)
        and not key.endswith(NOT_SCORES)
    }


def best_scores(history: Sequence[Mapping[str, Any]]) -> dict[str, BestScore]:
    """The best of each validation score; of equals the earliest."""
    best: dict[str, BestScore] = {}
    for line in history:
        for name, value in scores_of(line).items():
            if name not in best or improves(name, value, best[name].value):
                best[name] = BestScore(value, float(line.get("epoch") or 0.0), int(line.get("step") or 0))
    return best


def choose(history: Sequence[Mapping[str, Any]], rule: str, steps: Collection[int] | None = None) -> Selection | None:
    """What `rule` chooses among the validations in a run's history, or among those at `steps`.

    The lowest loss where it finds nothing that it weighs up, or all of that is as good as zero; None where
    nothing was validated.
    """
    lines = [line for line in history if "eval_loss" in line and (steps is None or line["step"] in steps)]
    if not lines:
        return None
    scores = [
        {key.removeprefix("eval_"): value for key, value in line.items() if key.startswith("eval_")} for line in lines
    ]
    try:
        if not _has_signal(rule, scores):
            raise CaptuneError(f"All scores that {rule} weighs up are as good as zero.")
        chosen = RULES[rule](scores)
    except CaptuneError:
        rule = "loss"
        chosen = lowest_loss(scores)
    why = (RULES[rule].__doc__ or "").strip().splitlines()[0]
    return Selection(rule, lines[chosen]["step"], float(lines[chosen].get("epoch") or 0.0), dict(scores[chosen]), why)


def _has_signal(rule: str, scores: Sequence[Scores]) -> bool:
    """Whether any score that a rule of captune's weighs up is above zero; one of another package is left to itself."""
    names = [SINGLE[rule]] if rule in SINGLE else list(WEIGHTS) if rule in OVER_SEVERAL else []
    return rule == "loss" or not names or any(as_finite(name, one.get(name)) for one in scores for name in names)


def meteor_centric(history: Sequence[Scores]) -> int:
    """A higher METEOR wins, unless another metric falls by more than 5 % of what it was."""
    names = measured(history)
    first, *others = names

    def better(new: Scores, best: Scores) -> bool:
        return exceeds(new[first], best[first]) and not any(
            exceeds((1 - TOLERANCE) * best[name], new[name]) for name in others
        )

    return _last_improvement(history, names, better)


def weighted_composite(history: Sequence[Scores]) -> int:
    """Highest weighted mean (METEOR 4, CIDEr-D 3, BLEU-4 2, ROUGE-L 1) of scores relative to their own highest."""
    names = measured(history)
    rows = _rows(history, names)
    top = {name: max(row[name] for row in rows if row) or 1.0 for name in names}
    return _first_best(
        [sum(WEIGHTS[name] * row[name] / top[name] for name in names) if row else -math.inf for row in rows]
    )


def pareto(history: Sequence[Scores]) -> int:
    """A better metric wins if none gets worse."""
    names = measured(history)

    def better(new: Scores, best: Scores) -> bool:
        return not any(exceeds(best[name], new[name]) for name in names) and any(
            exceeds(new[name], best[name]) for name in names
        )

    return _last_improvement(history, names, better)


def multi_criteria(history: Sequence[Scores]) -> int:
    """Higher metrics on average win, as long as METEOR falls by no more than 2 % of what it was."""
    names = measured(history)
    first = names[0]

    def better(new: Scores, best: Scores) -> bool:
        gains = [(new[name] - best[name]) / (best[name] or 1.0) for name in names]
        return not exceeds((1 - FLEXIBILITY) * best[first], new[first]) and sum(gains) > ROUNDING

    return _last_improvement(history, names, better)


def _best_of(metric: str, words: str) -> Rule:
    """The rule over one metric; `words` say it to a reader."""

    def rule(history: Sequence[Scores]) -> int:
        return _first_best([_spec(metric).sign * value for value in _all(history, metric)])

    rule.__doc__ = words
    return rule


highest_meteor = _best_of("meteor", "Highest METEOR.")
highest_cider = _best_of("cider", "Highest CIDEr-D.")
highest_bleu = _best_of("bleu_4", "Highest BLEU-4.")
highest_rouge = _best_of("rouge_l", "Highest ROUGE-L.")
highest_vqa_accuracy = _best_of("vqa_accuracy", "Highest accuracy of answers.")
lowest_loss = _best_of("loss", "Lowest validation loss.")


def measured(history: Sequence[Scores]) -> list[str]:
    """The weighed metrics that every validation has, the primary first.

    One that was a finite number at no validation is none. Raises `CaptuneError` where there is none.
    """
    names = [name for name in WEIGHTS if history and all(name in scores for scores in history)]
    names = [name for name in names if any(as_finite(name, scores[name]) is not None for scores in history)]
    if not any(_rows(history, names)):
        names = names[:1]  # no validation has finite numbers of them all
    if not names:
        raise CaptuneError(
            "No caption metric was measured at every validation.", "Train with --validation-images above 0."
        )
    return names


def _rows(history: Sequence[Scores], names: Sequence[str]) -> list[dict[str, float]]:
    """The scores of each validation; empty where one of them is no finite number."""
    rows = []
    for scores in history:
        values = {name: as_finite(name, scores[name]) for name in names}
        rows.append({name: value for name, value in values.items() if value is not None})
        if len(rows[-1]) < len(names):
            rows[-1] = {}
    return rows


def _all(history: Sequence[Scores], name: str) -> list[float]:
    if not history or not all(name in scores for scores in history):
        raise CaptuneError(f"{name} was not measured at every validation.", "Choose a rule over what was measured.")
    values = [as_finite(name, scores[name]) for scores in history]
    worst = -_spec(name).sign * math.inf
    return [worst if value is None else value for value in values]


def _last_improvement(history: Sequence[Scores], names: Sequence[str], better: Callable[[Scores, Scores], bool]) -> int:
    """The last of the validations that each were better than the best before them."""
    rows = _rows(history, names)
    best = 0
    for index, row in enumerate(rows):
        if row and (not rows[best] or better(row, rows[best])):
            best = index
    return best


def _first_best(values: Sequence[float]) -> int:
    best = 0
    for index, value in enumerate(values):
        if exceeds(value, values[best]):
            best = index
    return best
