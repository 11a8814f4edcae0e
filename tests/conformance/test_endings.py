"""What a training keeps, what it warns of, and why it ended."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.cli.main import run as command
from captune.core.errors import CaptuneError
from captune.core.runs import Run
from captune.training.loop.validation import Validation
from recorded import RecordedProgress
from trained import train as quick


def train(data: Path, out: Path, **changed: Any) -> Run:
    return quick(data, out, **{"validation_images": 0, **changed})


def test_a_validation_without_a_number_is_the_worst_and_ends_nothing(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([{"loss": float("nan"), "cider": 0.1}, {"loss": 2.0, "cider": 0.1}])
    monkeypatch.setattr(Validation, "__call__", lambda self: next(measured))
    progress = RecordedProgress()
    run = train(tiny_data, tmp_path / "run", progress=progress)
    assert [line["eval_loss"] for line in run.history() if "eval_loss" in line] == [None, 2.0]
    assert run.pointed("best-loss") == "checkpoint-8"
    assert any("No finite number at step 4: loss" in line for line in progress.warnings)


def ended(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.manifest()["ended"]
    return found


def show(run: Run) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        command(["runs", "show", str(run.path)])
    return out.getvalue()


def test_chosen_epochs_stay_and_are_written_without_a_validation(tiny_data: Path, tmp_path: Path) -> None:
    run = train(
        tiny_data, tmp_path / "run", max_steps=0, epochs=8, batch_size=12, eval_steps=0, eval_every=3,
        keep_checkpoints=1, keep_epochs="2,every-4", learning_rate=1e-9,
    )  # fmt: skip
    best = {run.pointed("best-loss"), run.pointed("best-metric")}
    assert {c.name for c in run.checkpoints()} - best == {
        "checkpoint-0",
        "checkpoint-2",
        "checkpoint-4",
        "checkpoint-8",
    }
    assert run.checkpoint("epoch-2").step == 2
    assert [line["step"] for line in run.history() if "eval_loss" in line] == [3, 6, 8]
    assert ended(run)["reason"] == "all-epochs"
    assert "all 8 epochs are done" in show(run)


def test_early_stopping_watches_what_it_is_told_to_and_says_so(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([{"loss": 3.0 + n, "bleu_4": 0.1 + 0.01 * n, "cider": 0.1 + n} for n in range(8)])
    monkeypatch.setattr(Validation, "__call__", lambda self: next(measured))
    progress = RecordedProgress()
    options = {"early_stopping_patience": 2, "early_stopping_metric": "loss", "best_metric": "bleu", "eval_steps": 1}
    run = train(tiny_data, tmp_path / "run", progress=progress, validation_images=2, **options)
    assert run.checkpoints()[-1].step == 3
    assert run.pointed("best-metric") == "checkpoint-3"
    found = ended(run)
    assert found["reason"] == "early-stopping"
    assert found["details"] == {"metric": "loss", "best": 3.0, "best_step": 1, "best_epoch": 1 / 6, "patience": 2}
    assert "validation loss 3" in found["text"]
    assert any("Early stopping watches the validation loss: 2 validations" in line for line in progress.lines)
    assert any(line.startswith("Training ended: early stopping") for line in progress.lines)
    assert "early stopping at epoch" in show(run)
    assert json.loads((run.path / "train_metrics.json").read_text())["ended"] == found
    # Another patience is no other training: it goes on.
    captune.train(out=run.path, resume=True, early_stopping_patience=0, environment={})
    assert (ended(run)["reason"], run.checkpoints()[-1].step) == ("max-steps", 8)


def test_who_watches_and_what_fails_is_recorded(tiny_data: Path, tmp_path: Path) -> None:
    def enough(scores: Any) -> None:
        raise CaptuneError("Good enough.")

    with pytest.raises(CaptuneError, match="Good enough"):
        train(tiny_data, tmp_path / "watched", watch=enough)
    assert ended(Run(tmp_path / "watched"))["reason"] == "watch"
    with pytest.raises(CaptuneError, match="not finite"):
        train(tiny_data, tmp_path / "nan", learning_rate=1e30, max_grad_norm=0.0)
    run = Run(tmp_path / "nan")
    assert ended(run)["reason"] == "error"
    assert "not finite at step" in show(run)


def test_a_warm_up_that_never_ends_is_warned_of(tiny_data: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    train(tiny_data, tmp_path / "run", progress=progress, max_steps=2, warmup_steps=500)
    assert any("The warm-up is longer than the training" in line for line in progress.warnings)


def test_runs_without_a_recorded_end_open_and_go_on(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_data, tmp_path / "run", max_steps=2, eval_steps=1)
    manifest = {key: value for key, value in run.manifest().items() if key != "ended"}
    run.write_manifest(manifest)
    config = (run.path / "config.yaml").read_text().splitlines()
    new = ("keep_epochs", "early_stopping_metric")
    (run.path / "config.yaml").write_text("\n".join(line for line in config if not line.strip().startswith(new)))
    assert "does not record why" in show(run)
    run.write_manifest({**manifest, "finished": False})
    assert "killed" in show(run)
    captune.train(out=run.path, resume=True, environment={})
    assert ended(run)["reason"] == "max-steps"
