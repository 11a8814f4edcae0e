"""The search over training options: drawn, pruned, resumed, and not ended by a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.core.errors import EXIT_INTERRUPTED, CaptuneError, UsageError
from captune.core.files import read_json
from captune.core.files.locks import lock_file
from captune.core.machine import DiskFull
from captune.core.options import TuneOptions
from captune.core.runs import Run
from captune.training.tune import Axis, search

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


def test_a_stopped_search_ends_as_one_that_was_not(tmp_path: Path) -> None:
    stops = [(0, 1), (1, 0), (1, 2)]  # trial and validation
    begun: list[tuple[str, bool]] = []

    def trained(out: Path, *, watch: Any, resume: bool, **options: Any) -> None:
        """Four validations, of which those are there already that an earlier call made; a stop leaves them."""
        out.mkdir(parents=True, exist_ok=True)
        begun.append((out.name, resume))
        number = int(out.name.removeprefix("trial-"))
        for step in range(len(Run(out).history()), 4):
            loss = abs(options["learning_rate"] - 1e-3) / (step + options["batch_size"])
            with open(out / "history.jsonl", "a") as file:
                file.write(json.dumps({"step": step, "eval_loss": loss}) + "\n")
            watch({"loss": loss})
            if out.parent.name == "stopped" and stops and stops[0] == (number, step):
                stops.pop(0)
                raise CaptuneError("Stopped by a signal.", "", code=EXIT_INTERRUPTED)

    axes = [Axis.parse("learning_rate=1e-6..1e-2:log"), Axis.parse("batch_size=4..8")]
    options = TuneOptions(trials=5, goal="loss", random_trials=2)
    alone = search(tmp_path / "alone", axes, options, trained)
    for _ in (1, 2, 3):
        with pytest.raises(CaptuneError, match=r"\d trials are finished"):
            search(tmp_path / "stopped", axes, options, trained)
        (tmp_path / "stopped" / "study.journal.lock").symlink_to("study.journal")  # as a kill leaves them
        with open(tmp_path / "stopped" / "study.journal", "a") as journal:
            journal.write('{"op_code":')
    done = search(tmp_path / "stopped", axes, options, trained)
    assert (done.value, done.options, done.states) == (alone.value, alone.options, alone.states)
    assert sum(done.states.values()) == 5
    names = [[path.name for path in sorted((tmp_path / name).iterdir())] for name in ("alone", "stopped")]
    assert names[0] == names[1]
    histories = [
        [(tmp_path / name / f"trial-00{n}" / "history.jsonl").read_text() for n in range(5)]
        for name in ("alone", "stopped")
    ]
    assert histories[0] == histories[1]
    assert begun.count(("trial-001", True)) == 2


def test_two_searches_do_not_share_a_folder(tiny_data: Path, tmp_path: Path) -> None:
    with lock_file(tmp_path / ".lock"), pytest.raises(CaptuneError, match="Another search"):
        captune.tune(tiny_data, "new:blip-tiny", tmp_path, space=["seed=1..9"], trials=1, **ONCE)


def test_a_full_disk_costs_no_trial(tmp_path: Path) -> None:
    drawn = []

    def full(**kwargs: Any) -> Any:
        drawn.append(kwargs["learning_rate"])
        raise DiskFull("The disk is full.")

    options = TuneOptions(trials=1, goal="loss", random_trials=2)
    for _ in range(2):
        with pytest.raises(DiskFull, match=r"The disk is full\. 0 trials are finished") as caught:
            search(tmp_path, [Axis.parse("learning_rate=1e-6..1e-2:log")], options, full)
        assert "same command goes on" in caught.value.hint
    assert drawn[0] == drawn[1]


def test_a_failed_trial_does_not_end_the_search(tiny_data: Path, tmp_path: Path) -> None:
    calls = []
    once = {name: value for name, value in ONCE.items() if name not in ("goal", "random_trials")}

    def unlucky(**kwargs: Any) -> Any:
        calls.append(kwargs)
        if len(calls) == 1:
            raise CaptuneError("The loss is not finite.", "")
        return captune.train(tiny_data, "new:blip-tiny", **once, **kwargs)

    options = TuneOptions(trials=3, goal="loss", random_trials=2)
    done = search(tmp_path, [Axis.parse("seed=1..9")], options, unlucky)
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
