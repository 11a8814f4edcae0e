"""What a round of learning is said to have shown."""

from __future__ import annotations

from typing import Any

import pytest

from captune.cli.verbs.learn import _sentence
from captune.library.learn import Round, Verdict

CIDER, TER = {"value": 0.1, "low": 0.05, "high": 0.2}, {"value": 0.3, "low": 0.2, "high": 0.4}


def around(verdict: Verdict, **differences: dict[str, float]) -> Round:
    facts: dict[str, Any] = {"former": {}, "new": {}, "differences": differences}
    return Round(1, "m", "run", "report.html", train=100, images=40, verdict=verdict, **facts)


@pytest.mark.parametrize(
    ("verdict", "ter", "otherwise"),
    [
        ("better", TER, ("ter",)),
        ("better", {"value": -0.3, "low": -0.4, "high": -0.2}, ()),
        ("better", {"value": 0.1, "low": -0.1, "high": 0.3}, ()),
        ("not told apart", TER, ()),
    ],
)
def test_a_score_that_tells_otherwise_is_named(verdict: Verdict, ter: dict[str, float], otherwise: tuple[str]) -> None:
    found = around(verdict, cider=CIDER, ter=ter)
    assert found.otherwise == otherwise
    assert found.to_json()["otherwise"] == list(otherwise)
    assert ("By TER it is worse" in _sentence(found)) == bool(otherwise)


def test_a_worse_model_may_be_better_by_another_score() -> None:
    worse = {"value": -0.1, "low": -0.2, "high": -0.05}
    found = around("worse", cider=worse, ter={"value": -0.3, "low": -0.4, "high": -0.2}, loss=TER)
    assert found.otherwise == ("ter",)
    assert "By TER it is better" in _sentence(found)
