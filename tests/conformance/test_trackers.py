"""Trackers keep what a training tells them, without a login and after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.core.errors import CaptuneError
from captune.core.logins import logged_in_to_wandb
from captune.core.runs import Run
from captune.engine import trackers

ONCE: dict[str, Any] = {
    "batch_size": 6,
    "max_steps": 4,
    "eval_steps": 2,
    "logging_steps": 1,
    "num_beams": 1,
    "max_new_tokens": 5,
    "validation_metrics": ("bleu", "cider"),
    "keep_checkpoints": 0,
    "environment": {},
}


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_RUN_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def resumed(data: Path, out: Path, **options: Any) -> Run:
    """A training that was stopped behind its first validation and went on."""
    import shutil

    captune.train(data, "new:blip-tiny", out, **{**ONCE, **options})
    shutil.rmtree(Run(out).last().path)
    return Run(captune.train(out=out, resume=True, environment={}).run)


def test_tensorboard_has_curves_captions_and_pictures(tiny_data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = resumed(tiny_data, tmp_path / "run", trackers=("tensorboard",))
    kept = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"images": 0})
    kept.Reload()
    assert {"training/loss", "validation/loss", "validation/cider"} <= set(kept.Tags()["scalars"])
    assert [event.step for event in kept.Scalars("validation/cider")] == [2, 4]
    assert len(kept.Tags()["images"]) == 4


def test_wandb_works_without_a_login(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "pictures")
    monkeypatch.setenv("WANDB_RUN_NAME", "first")
    run = resumed(tiny_data, tmp_path / "run", trackers=("wandb",))
    offline = sorted((run.path / "wandb").glob("offline-run-*"))
    assert len(offline) == 2, "one before the stop, one after"
    known = (run.path / "wandb-run.txt").read_text().strip()
    assert all(folder.name.endswith(known) for folder in offline), "they are one run for `wandb sync`"
    assert all(list(folder.glob("*.wandb")) for folder in offline)
    tables = list((run.path / "wandb").rglob("*.table.json"))
    assert tables
    table = json.loads(tables[0].read_text())
    assert table["columns"][:4] == ["picture", "name", "caption", "references"]
    assert {"bleu_4", "cider"} <= set(table["columns"])
    assert len(table["data"]) == 4


def test_mlflow_keeps_figures_settings_and_the_model(tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    run = resumed(tiny_data, tmp_path / "run", trackers=("mlflow",))
    client = MlflowClient(tracking_uri=(run.path / "mlflow").as_uri())
    (experiment,) = (e for e in client.search_experiments() if e.name == "captune")
    (session,) = client.search_runs([experiment.experiment_id])
    assert session.info.run_name == "run"
    assert session.info.status == "FINISHED"
    assert session.data.params["train.batch_size"] == "6"
    assert {"training/loss", "validation/cider"} <= set(session.data.metrics)
    assert {file.path for file in client.list_artifacts(session.info.run_id)} >= {"samples", "best-metric"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_how(
    name: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(CaptuneError, match=f"needs {name}") as caught:
        captune.train(tiny_data, "new:blip-tiny", tmp_path / "run", trackers=(name,), **ONCE)
    assert f"captune[{name}]" in caught.value.hint


def test_a_login_is_found_where_wandb_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not logged_in_to_wandb()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert logged_in_to_wandb()
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert logged_in_to_wandb()


def test_a_picture_that_is_gone_has_no_thumbnail(tmp_path: Path) -> None:
    assert trackers.Sample(str(tmp_path / "none.jpg"), "a", ["b"]).thumbnail() is None
