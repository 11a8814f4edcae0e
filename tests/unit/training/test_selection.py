"""Rules that name the best validation."""

from __future__ import annotations

from typing import Any

import pytest

from captune.core.errors import CaptuneError
from captune.training.selection import RULES, best_scores, choose, measured


def history(**columns: tuple[float, ...]) -> list[dict[str, float]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


HISTORY = history(
    meteor=(0.20, 0.24, 0.245, 0.25),
    cider=(0.50, 0.70, 0.90, 0.60),
    bleu_4=(0.10, 0.20, 0.19, 0.15),
    rouge_l=(0.40, 0.45, 0.44, 0.46),
    vqa_accuracy=(0.3, 0.6, 0.7, 0.8),
    loss=(3.0, 2.5, 2.6, 2.7),
)


@pytest.mark.parametrize(
    ("rule", "best"),
    [
        ("meteor-centric", 2),  # the last has the highest METEOR, but CIDEr-D fell by a third
        ("weighted-composite", 2),
        ("pareto", 1),  # afterwards BLEU-4 falls
        ("multi-criteria", 2),
        ("meteor", 3),
        ("cider", 2),
        ("bleu", 1),
        ("rouge", 3),
        ("vqa-accuracy", 3),
        ("loss", 1),
    ],
)
def test_what_each_rule_picks(rule: str, best: int) -> None:
    assert RULES[rule](HISTORY) == best


@pytest.mark.parametrize("rule", RULES)
def test_of_equals_the_earliest(rule: str) -> None:
    assert RULES[rule]([HISTORY[1], HISTORY[1], HISTORY[1]]) == 0


@pytest.mark.parametrize("rule", RULES)
def test_one_validation_is_the_best(rule: str) -> None:
    assert RULES[rule](HISTORY[:1]) == 0


def test_multi_criteria_lets_meteor_fall_a_little() -> None:
    pair = history(meteor=(0.250, 0.248), cider=(0.5, 0.6), bleu_4=(0.1, 0.1), rouge_l=(0.4, 0.4))
    assert RULES["multi-criteria"](pair) == 1
    assert RULES["meteor-centric"](pair) == 0
    pair[1]["meteor"] = 0.24
    assert RULES["multi-criteria"](pair) == 0


def test_without_meteor_cider_is_first() -> None:
    without = [{name: value for name, value in scores.items() if name != "meteor"} for scores in HISTORY]
    assert measured(without) == ["cider", "bleu_4", "rouge_l"]
    assert RULES["meteor-centric"](without) == 2
    with pytest.raises(CaptuneError, match="meteor was not measured"):
        RULES["meteor"](without)


def test_a_history_without_captions_has_loss_alone() -> None:
    losses = history(loss=(3.0, 2.0))
    assert RULES["loss"](losses) == 1
    with pytest.raises(CaptuneError, match="No caption metric"):
        RULES["pareto"](losses)


def test_scores_of_zero_are_no_error() -> None:
    flat = history(meteor=(0.0, 0.0), cider=(0.0, 0.0), bleu_4=(0.0, 0.1))
    assert RULES["weighted-composite"](flat) == 1
    assert RULES["multi-criteria"](flat) == 1


def lines(*scores: dict[str, float]) -> list[dict[str, Any]]:
    named = [{f"eval_{name}": value for name, value in each.items()} for each in scores]
    return [{"step": 10 * n, "epoch": n, **each} for n, each in enumerate(named, 1)]


def test_a_choice_says_when_and_why() -> None:
    choice = choose([{"step": 5, "loss": 4.0}, *lines(*HISTORY)], "meteor-centric")
    assert choice is not None
    assert (choice.rule, choice.step, choice.epoch) == ("meteor-centric", 30, 3.0)
    assert choice.scores == HISTORY[2]
    assert choice.why.startswith("A higher METEOR wins")


def test_the_choice_is_among_what_is_kept() -> None:
    choice = choose(lines(*HISTORY), "cider", {10, 40})
    assert choice is not None
    assert choice.step == 40


def test_without_captions_the_loss_decides() -> None:
    choice = choose(lines({"loss": 3.0}, {"loss": 2.0}, {"loss": 2.5}), "meteor-centric")
    assert choice is not None
    assert (choice.rule, choice.step) == ("loss", 20)
    assert choose([], "loss") is None


@pytest.mark.parametrize("rule", ["meteor-centric", "pareto", "weighted-composite", "multi-criteria"])
@pytest.mark.parametrize(
    "bleu_4",
    [(3e-17, 1e-17, 8e-18), (1.7e-4, 9e-5, 2e-9), (0.0, 1e-15, 0.0)],
    ids=["rounding", "no sequence of four words", "zero"],
)
def test_bleu_that_is_as_good_as_zero_decides_nothing(rule: str, bleu_4: tuple[float, ...]) -> None:
    rising = history(meteor=(0.08, 0.12, 0.15), cider=(0.01, 0.05, 0.09), bleu_4=bleu_4, rouge_l=(0.2, 0.25, 0.3))
    assert RULES[rule](rising) == 2
    assert RULES[rule](rising[::-1]) == 0


@pytest.mark.parametrize("rule", RULES)
def test_rounding_is_no_gain(rule: str) -> None:
    after = {name: value * (1 - 1e-12 if name == "loss" else 1 + 1e-12) for name, value in HISTORY[1].items()}
    assert RULES[rule]([HISTORY[1], after]) == 0


def test_rounding_is_no_loss() -> None:
    after = {**HISTORY[1], "meteor": 0.25, "rouge_l": HISTORY[1]["rouge_l"] * (1 - 1e-12)}
    assert RULES["pareto"]([HISTORY[1], after]) == 1
    assert RULES["multi-criteria"]([HISTORY[1], after]) == 1


@pytest.mark.parametrize(("rule", "column"), [("bleu", "bleu_4"), ("cider", "cider"), ("meteor", "meteor")])
def test_a_single_metric_of_dust_picks_the_first(rule: str, column: str) -> None:
    assert RULES[rule](history(**{column: (1e-18, 5e-17, 1e-4)})) == 0
    assert RULES[rule](history(**{column: (1e-18, 5e-17, 1e-3)})) == 2


def test_a_small_loss_is_no_dust() -> None:
    assert RULES["loss"](history(loss=(2e-5, 1e-5, 1.5e-5))) == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_a_validation_without_a_number_is_never_the_best(rule: str, nothing: Any) -> None:
    broken = dict.fromkeys(HISTORY[0], nothing)
    assert RULES[rule]([broken, HISTORY[0], HISTORY[1]]) == 2
    assert RULES[rule]([HISTORY[0], HISTORY[1], broken]) == 1
    choice = choose(lines(broken, HISTORY[0]), rule)
    assert choice is not None
    assert choice.step == 20


def test_best_scores_are_the_earliest_of_equals() -> None:
    best = best_scores(lines({"loss": 2.0, "bleu_4": 1e-17}, {"loss": 2.0 - 1e-13, "bleu_4": 2e-17}, {"loss": None}))
    assert (best["loss"].step, best["bleu_4"].step) == (10, 10)


@pytest.mark.parametrize("rule", ["bleu", "meteor-centric", "pareto", "weighted-composite", "multi-criteria"])
def test_where_all_scores_are_as_good_as_zero_the_loss_decides(rule: str) -> None:
    nothing = {"bleu_4": 3e-17, "cider": 0.0, "rouge_l": 1e-5}
    choice = choose(lines({**nothing, "loss": 3.0}, {**nothing, "loss": 2.0}, {**nothing, "loss": 2.5}), rule)
    assert choice is not None
    assert (choice.rule, choice.step) == ("loss", 20)
