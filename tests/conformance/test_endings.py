"""What a training keeps, what it warns of, and why it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import captune
from captune.core.progress import Silent
from captune.core.runs import Run
from captune.engine.validation import Validation

QUICK: dict[str, Any] = {
    "max_steps": 8,
    "batch_size": 2,
    "eval_steps": 4,
    "logging_steps": 2,
    "learning_rate": 1e-3,
    "validation_images": 0,
    "vocab_size": 100,
    "trackers": "none",
    "environment": {},
}


class Lines(Silent):
    """Keeps what was printed."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)


def train(data: Path, out: Path, **changed: Any) -> Run:
    return Run(captune.train(data, "new:blip-tiny", out, **{**QUICK, **changed}).run)


def test_a_validation_without_a_number_is_the_worst_and_ends_nothing(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([{"loss": float("nan"), "cider": 0.1}, {"loss": 2.0, "cider": 0.1}])
    monkeypatch.setattr(Validation, "__call__", lambda self: next(measured))
    progress = Lines()
    run = train(tiny_data, tmp_path / "run", progress=progress)
    assert [line["eval_loss"] for line in run.history() if "eval_loss" in line] == [None, 2.0]
    assert run.pointed("best-loss") == "checkpoint-8"
    assert any("No finite number at step 4: loss" in line for line in progress.warnings)
