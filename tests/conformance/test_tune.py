"""The search over training options: drawn, pruned, resumed, and not ended by a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.app import tune as room
from captune.app.tune import Axis
from captune.core.errors import EXIT_INTERRUPTED, CaptuneError, UsageError
from captune.core.files import read_json

pytest.importorskip("optuna")
ONCE: dict[str, Any] = {
    "max_steps": 4,
    "eval_steps": 2,
    "batch_size": 6,
    "trackers": ("none",),
    "validation_images": 0,
    "goal": "loss",
    "random_trials": 2,
    "environment": {},
}


def test_a_search_finds_its_best_and_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    space = ["learning_rate=1e-6..1e-2:log", "captions_per_image=0|1"]
    first = captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=space, trials=2, prune=False, **ONCE)
    assert first.states == {"complete": 2}
    again = captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=space, trials=4, prune=False, **ONCE)
    assert again.states == {"complete": 4}
    assert again.value is not None
    assert first.value is not None
    assert again.value <= first.value
    kept = read_json(tmp_path / "best.json")
    assert kept["run"] == again.best.name
    assert set(kept["options"]) == {"learning_rate", "captions_per_image"}
    assert (tmp_path / "search.png").stat().st_size > 5000
    line = next(
        json.loads(text) for text in (again.best / "history.jsonl").read_text().splitlines() if "eval_loss" in text
    )
    assert line["eval_loss"] >= again.value
    config = (again.best / "config.yaml").read_text()
    assert f"captions_per_image: {kept['options']['captions_per_image']}" in config


def test_a_stopped_search_goes_on_with_what_was_stopped_and_draws_nothing_twice(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, drawn = room.train, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        drawn.append(kwargs["learning_rate"])
        if len(drawn) == 2:
            raise CaptuneError("Stopped by a signal.", "", code=EXIT_INTERRUPTED)
        return plain(*args, **kwargs)

    monkeypatch.setattr(room, "train", interrupted)
    asked = {"space": ["learning_rate=1e-6..1e-2:log"], "trials": 3, "prune": False, **ONCE}
    with pytest.raises(CaptuneError, match="1 trials are finished"):
        captune.tune(tiny_data, "new:blip-tiny", tmp_path, **asked)
    done = captune.tune(tiny_data, "new:blip-tiny", tmp_path, **asked)
    assert done.states == {"complete": 3, "stopped": 1}
    assert drawn[2] == drawn[1]
    assert len(set(drawn)) == 3


def test_a_failed_trial_does_not_end_the_search(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = room.train, []

    def unlucky(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        if len(calls) == 1:
            raise CaptuneError("The loss is not finite.", "")
        return plain(*args, **kwargs)

    monkeypatch.setattr(room, "train", unlucky)
    done = captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=["seed=1..9"], trials=3, **ONCE)
    assert done.states == {"fail": 1, "complete": 2}


def test_trials_that_lag_are_cut_short(tiny_data: Path, tmp_path: Path) -> None:
    once = {**ONCE, "max_steps": 8, "random_trials": 1}
    captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=["learning_rate=0.009..0.01"], trials=2, **once)
    done = captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=["learning_rate=1e-9..1e-8"], trials=4, **once)
    assert done.states["pruned"] >= 1


def test_when_all_fail_the_reason_is_said(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=r"(?s)No trial .* has succeeded"):
        captune.tune(tiny_data, "new:blip-nothing", tmp_path, space=["seed=1..9"], trials=1, **ONCE)


def test_what_can_be_searched() -> None:
    assert Axis.parse("learning_rate=1e-5..1e-3:log") == Axis("learning_rate", low=1e-5, high=1e-3, log=True)
    assert Axis.parse("num-beams=1..5") == Axis("num_beams", low=1, high=5, whole=True)
    assert Axis.parse("schedule=cosine|linear") == Axis("schedule", choices=("cosine", "linear"))
    for wrong in ("learnin_rate=1..2", "trials=1..2", "learning_rate", "learning_rate=3", "seed=5..2", "seed=0..5:log"):
        with pytest.raises(UsageError):
            Axis.parse(wrong)


def test_an_option_is_not_drawn_and_set_at_once(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="searched over and set at once"):
        captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=["batch_size=2|4"], **ONCE)


@pytest.mark.parametrize("options", [{"device": "cuda:9"}, {"precision": "fp16", "device": "cpu"}, {"lora": "r=none"}])
def test_a_search_that_cannot_begin_ends_and_leaves_nothing(
    tiny_data: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    begin = {"trials": 20, "space": ["learning_rate=1e-6..1e-2:log"], **ONCE, **options}
    with pytest.raises(CaptuneError) as caught:
        captune.tune(tiny_data, "new:blip-tiny", tmp_path / "searches" / "a", **begin)
    assert "No trial" not in caught.value.message
    assert list(tmp_path.iterdir()) == []
