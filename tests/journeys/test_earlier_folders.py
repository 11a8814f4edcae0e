"""Folders that earlier versions made (`tests/earlier/make.py`, run with that version) open and go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from captune.inference.match import Embeddings
from scripts import ROOT
from typed import Typed

EARLIER = ROOT / "tests" / "earlier"
VERSIONS = sorted(path.name for path in EARLIER.iterdir() if (path / "finished").is_dir())


@pytest.fixture(params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what that version made, where it may be written to."""
    shutil.copytree(EARLIER / request.param, tmp_path / "made")
    made = tmp_path / "made"
    for file in made.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".yaml", ".csv"):
            file.write_bytes(file.read_bytes().replace(b"/made", str(made).encode()))
    return made


def rows(folder: Path) -> list[dict[str, object]]:
    shards = sorted(folder.glob("captions-*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def test_a_killed_run_goes_on_to_what_the_finished_one_became(folder: Path, captune: Typed) -> None:
    assert len(history(folder / "killed")) < len(history(folder / "finished"))
    captune("train", "--out", "killed", "--resume", folder=folder)
    resumed, finished = history(folder / "killed"), history(folder / "finished")
    assert [row["step"] for row in resumed] == [row["step"] for row in finished]
    for ours, theirs in zip(resumed, finished, strict=True):
        assert ours.keys() == theirs.keys()
        for name in {"loss", "eval_loss"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3)
    shown = captune("runs", "show", "killed", folder=folder).stdout
    assert "finished" in shown


def test_a_begun_job_goes_on_and_a_finished_one_does_nothing(folder: Path, captune: Typed) -> None:
    job = ("caption", "images", "--model", "finished", "--format", "jsonl", "--shard-size", "2")
    first = (folder / "begun" / "captions-00000.jsonl").read_bytes()
    captune(*job, "--batch-size", "2", "--out", "begun", folder=folder)
    assert (folder / "begun" / "captions-00000.jsonl").read_bytes() == first
    assert [row["caption"] for row in rows(folder / "begun")] == [row["caption"] for row in rows(folder / "captions")]
    before = {file: file.stat().st_mtime_ns for file in (folder / "captions").iterdir() if file.is_file()}
    captune(*job, "--out", "captions", folder=folder)
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize("format", ["sidecar", "tar"])
def test_a_finished_job_of_another_format_does_nothing(format: str, folder: Path, captune: Typed) -> None:
    out = folder / f"{format}s"
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.suffix != ".lock"}
    captune("caption", "images", "--model", "finished", "--format", format, "--out", out, folder=folder)
    assert {file: file.read_bytes() for file in before} == before


def test_a_run_and_its_export_caption_as_they_did(folder: Path, captune: Typed) -> None:
    earlier = [row["caption"] for row in rows(folder / "captions")]
    for model in ("finished", "onnx"):
        captune("caption", "images", "--model", model, "--format", "jsonl", "--out", f"by-{model}", folder=folder)
        assert [row["caption"] for row in rows(folder / f"by-{model}")] == earlier


def test_prepared_data_and_an_evaluation_are_read(folder: Path, captune: Typed) -> None:
    captune("evaluate", "finished", "--data", "data", "--out", "again", folder=folder)
    earlier, now = (
        json.loads((folder / name / "eval_bleu.json").read_text())["models"]["finished"]["scores"]
        for name in ("evaluation", "again")
    )
    assert now == pytest.approx(earlier, rel=1e-3, abs=1e-6)
    captune("compare", "evaluation", "again", folder=folder)


def test_embeddings_are_read(folder: Path) -> None:
    embeddings = Embeddings.load(str(folder / "vectors.npz"))
    assert (embeddings.model, embeddings.vectors.shape) == ("/made/matcher", (8, 16))
    assert [Path(image).name for image in embeddings.images] == [f"{number:02}.png" for number in range(8)]
