"""Trackers keep what a training tells them, without a login and after a restart."""

from __future__ import annotations

import errno
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import captune
from captune.core.errors import CaptuneError
from captune.core.machine import logged_in_to_wandb
from captune.core.runs import Run
from captune.training import trackers
from captune.training.trackers import TRACKERS
from recorded import RecordedProgress

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


def test_an_offline_wandb_run_can_be_moved_and_goes_on_where_it_was(tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run = resumed(tiny_data, tmp_path / "first" / "run", trackers=("wandb",))
    moved = tmp_path / "elsewhere"
    shutil.move(run.path, moved)
    files = sorted(moved.glob("wandb/offline-run-*/*.wandb"))
    found = [record for file in files for record in wandb_records(file)]
    steps = [record.history.step.num for record in found if record.WhichOneof("record_type") == "history"]
    assert steps == [1, 2, 3, 4], "no step twice, though the training went back to the first checkpoint"
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    assert [row["step"] for row in rows] == steps
    history = Run(moved).history()
    losses = [line["eval_loss"] for line in history if "eval_loss" in line]
    assert [row["best/loss"] for row in rows if "best/loss" in row] == [losses[0], min(losses)]
    axes = {record.metric.glob_name: record.metric.step_metric for record in found if record.HasField("metric")}
    assert (axes["training/*"], axes["validation/*"], axes["best/*"]) == ("step", "step", "step")
    summary = {
        ("/".join(one.nested_key) or one.key): one.value_json for record in found for one in record.summary.update
    }
    assert json.loads(summary["best/loss"]) == min(losses)
    assert "all 4 steps are done" in summary["ended"]
    artifacts = [record.artifact for record in found if record.HasField("artifact")]
    (best,) = {one.metadata for one in artifacts if "best-loss" in one.aliases}
    facts = json.loads(best)
    assert (facts["rule"], facts["data_digest"]) == ("loss", Run(moved).manifest()["data_digest"])
    assert facts["scores"]["loss"] == min(losses)
    paths = [entry.local_path for one in artifacts for entry in one.manifest.contents]
    assert sum(path.endswith("model.safetensors") for path in paths) >= 2
    media = [path for record in found for path in (file.path for file in record.files.files) if "media/" in path]
    assert len([path for path in media if path.endswith(".png")]) == 8, "four images of each validation"
    for path in paths:
        assert not Path(path).is_absolute()
        assert (moved / path).is_file(), path
    for path in media:
        assert any((file.parent / "files" / path).is_file() for file in files), path


def wandb_records(file: Path) -> Iterator[Any]:
    """Records of a .wandb file: a header of 7 bytes, then blocks of 32 KiB as in a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


class Failing(trackers.Tracker):
    """A place that is lost: `when` names the call that fails."""

    when = "figures"
    calls: ClassVar[list[str]] = []

    def __init__(self, *args: Any) -> None:
        self._call("begin")
        super().__init__(*args)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.when:
            raise OSError(errno.ENOSPC, "No space left on device")

    def figures(self, values: dict[str, float], step: int) -> None:
        self._call("figures")

    def sentences(self, samples: Any, step: int) -> None:
        self._call("sentences")

    def close(self, best: Any) -> None:
        self._call("close")


@pytest.mark.parametrize("when", ["begin", "figures", "sentences", "close"])
def test_a_tracker_that_is_lost_is_one_warning_and_is_left_alone(
    when: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "when", when)
    monkeypatch.setattr(Failing, "calls", [])
    monkeypatch.setattr(TRACKERS, "_loaded", {"tensorboard": Failing})
    progress = RecordedProgress()
    run = Run(captune.train(tiny_data, "new:blip-tiny", tmp_path / "run", progress=progress, **ONCE).run)
    assert run.manifest()["finished"] is True
    assert [line["step"] for line in run.history() if "eval_loss" in line] == [2, 4]
    (warning,) = [line for line in progress.warnings if "tracker" in line]
    assert "tensorboard failed and gets nothing more: OSError: [Errno 28] No space left on device" in warning
    assert Failing.calls.count(when) == 1
    assert Failing.calls[-1] == when


def test_trackers_are_closed_where_a_training_fails(tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    def enough(scores: Any) -> None:
        raise CaptuneError("Enough.")

    with pytest.raises(CaptuneError, match="Enough"):
        captune.train(tiny_data, "new:blip-tiny", tmp_path / "run", trackers=("mlflow",), watch=enough, **ONCE)
    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow").as_uri())
    (session,) = client.search_runs([e.experiment_id for e in client.search_experiments() if e.name == "captune"])
    assert session.info.status == "FAILED"
    assert "ended from outside" in session.data.tags["ended"]


@pytest.mark.parametrize(
    ("name", "environment", "about"),
    [
        ("wandb", {"WANDB_MODE": "on"}, "WANDB_MODE=on is no mode"),
        ("wandb", {"WANDB_MODE": "online"}, "needs a login"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "MLflow at http://127.0.0.1:9 cannot be used"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused_before_anything_begins(
    name: str, environment: dict[str, str], about: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(CaptuneError, match=about) as caught:
        captune.train(tiny_data, "new:blip-tiny", tmp_path / "run", trackers=(name,), **ONCE)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_publishing_without_a_login_is_refused_before_anything_begins(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HF_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(CaptuneError, match="no login for the Hugging Face Hub"):
        captune.train(tiny_data, "new:blip-tiny", tmp_path / "run", push_to="me/model", trackers="none", **ONCE)
    assert not (tmp_path / "run").exists()


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
    assert {"training/loss", "validation/cider", "best/cider"} <= set(session.data.metrics)
    logged = [one.step for one in client.get_metric_history(session.info.run_id, "training/loss")]
    assert logged == [1, 2, 3, 4], "no step twice"
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
    assert trackers.CaptionSample(str(tmp_path / "none.jpg"), "a", ["b"]).thumbnail() is None
