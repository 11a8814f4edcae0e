"""A job that is killed at any of its steps and run again ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.core.files.paths import MARK
from captune.inference.captioner import Captioner
from captune.jobs.job import JobReport
from copies import Copy
from jobs import fake_loading, model_folder, pictures

BAD = (3, 17)
OPTIONS: dict[str, Any] = {"shard_size": 8, "batch_size": 3, "workers": 1}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    pictures(folder / "pics", 20, BAD)
    model_folder(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captioner, "load", Captioner.load)  # put back afterwards
    fake_loading()


def job(here: Path, out: str, **options: Any) -> JobReport:
    return captune.caption_job(here / "pics", here / out, model=str(here / "model"), **{**OPTIONS, **options})


def kill(warm: str, here: Path, step: int, out: str, **options: Any) -> int:
    given = [f"{name}={value}" for name, value in {"model": here / "model", **OPTIONS, **options}.items()]
    script = Path(__file__).parent.parent / "jobs.py"
    return Copy(warm, [str(step), str(here / "pics"), str(here / out), *given], script).wait()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a job but its locks, and the mark with the numbers that files have on this disk."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name != MARK
    }


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_every_step(warm: str, here: Path, format: str) -> None:
    report = job(here, f"whole-{format}", format=format)
    assert (report.pictures, report.done, report.failed, report.shards_done) == (20, 20, len(BAD), 3)
    expected = contents(here / f"whole-{format}")
    steps = 12  # list, its mark, manifest, look and shard three times, failures, duplicates, report
    for step in range(steps) if format == "jsonl" else (4, 8):
        out = f"killed-{format}-{step}"
        assert kill(warm, here, step, out, format=format) == -signal.SIGKILL
        assert contents(here / out).keys() != expected.keys()
        again = job(here, out, format=format)
        assert again.whole
        assert contents(here / out) == expected
    assert kill(warm, here, steps, f"never-{format}", format=format) == 0


def test_killed_again_and_again(warm: str, here: Path) -> None:
    for _ in range(8):
        kill(warm, here, 3, "often")  # each run gets at most one shard further
    job(here, "often")
    assert contents(here / "often") == contents(here / "whole-jsonl")


def test_what_stands_in_the_folder_after_a_kill_is_whole(warm: str, here: Path) -> None:
    kill(warm, here, 6, "part")
    shards = sorted((here / "part").glob("captions-*"))
    assert [shard.name for shard in shards] == ["captions-00000.jsonl"]
    assert [json.loads(line)["image"] for line in shards[0].read_text().splitlines()] == [
        str(here / "pics" / f"{number:03}.png") for number in range(8)
    ]
    assert list((here / "part").rglob("*.part"))  # what was being written stands aside, under a hidden name
    job(here, "part")
    assert not list((here / "part").rglob("*.part"))


def test_a_retry_that_is_killed(warm: str, here: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 20, BAD)
    model_folder(tmp_path / "model")
    job(tmp_path, "one")
    job(tmp_path, "two")
    for number in BAD:
        (tmp_path / "pics" / f"{number:03}.png").write_bytes((tmp_path / "pics" / "004.png").read_bytes())
    done = job(tmp_path, "one", retry_failed=True)
    assert (done.failed, done.captioned) == (0, 2)
    for step in range(4):
        assert kill(warm, tmp_path, step, "two", retry_failed=True) == -signal.SIGKILL
    job(tmp_path, "two", retry_failed=True)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6])
def test_a_file_made_by_a_job_that_was_killed(warm: str, here: Path, step: int) -> None:
    out = f"file-{step}.csv"
    code = kill(warm, here, step, out, format="csv")
    assert code == -signal.SIGKILL
    assert not (here / out).exists()
    job(here, out, format="csv")
    job(here, "file.csv", format="csv")
    assert (here / out).read_bytes() == (here / "file.csv").read_bytes()
    assert not (here / f"{out}.job").exists()
