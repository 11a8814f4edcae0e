"""Jobs through the command line: what is printed, exit codes, files, and what a signal leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from captune.cli.main import run
from jobs import job, pictures, rows


def test_the_command(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["caption", "pics", "--model", "model", "--format", "jsonl", "--out", "out", "--shard-size", "8"]
    assert run([*command, "--dry-run"]) == 0
    assert capfd.readouterr().out == "20 images in 3 shards; 0 in 0 shards done\n"
    assert run(command) == 3
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "20 images, 2 failed" in captured.err
    assert "pics/003.png: " in captured.err
    assert "out/_job/failures.jsonl; take them again with --retry-failed" in captured.err
    assert run(command) == 0
    assert "is finished" in capfd.readouterr().err
    assert run([*command, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["done"] == 20
    for number, name in enumerate(("003", "017")):
        Path(f"pics/{name}.png").write_bytes(Path(f"pics/{number:03}.png").read_bytes())
    assert run([*command, "--retry-failed", "--quiet"]) == 0
    assert capfd.readouterr().err == ""


def test_flags_of_jobs_need_one(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "pics", "--model", "model", "--part", "1/2"]) == 2
    assert "--part is for jobs" in capfd.readouterr().err
    assert run(["caption", "pics", "--model", "model", "--out", "c.csv", "--format", "csv", "--part", "1/2"]) == 2
    assert "jobs in a folder" in capfd.readouterr().err


@pytest.mark.parametrize(("format", "name"), [("json", "c.json"), ("csv", "c.csv"), ("text", "folder/captions.txt")])
def test_a_file_of_several_pictures(here: Path, format: str, name: str) -> None:
    code = run(["caption", "pics", "--model", "model", "--format", format, "--out", name.removesuffix("/captions.txt")])
    assert code == 3
    text = Path(name).read_text()
    assert all(f"pics/{number:03}.png" in text for number in range(20))
    assert "flags" not in text
    assert not list(Path().rglob("*.job"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped(here: Path, number: int, code: int) -> None:
    pictures(Path("lots"), 60)
    script = (
        "import sys, time; sys.path.insert(0, sys.argv.pop(1)); import jobs; jobs.fake_loading();"
        "say = jobs.FakeCaptioner.generate;"
        "jobs.FakeCaptioner.generate = lambda *given: (time.sleep(0.2), say(*given))[1];"
        "from captune.cli.main import main; main()"
    )
    tests = str(Path(__file__).parent.parent)
    given = ["caption", "lots", "--model", "model", "--format", "jsonl", "--out", "out", "--shard-size", "8"]
    process = subprocess.Popen([sys.executable, "-c", script, tests, *given], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("out/captions-00000.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "shards are complete; the same command goes on" in said
    assert Path("out/_job/failures.jsonl").exists()
    assert 8 <= len(rows()) < 60
    assert job(inputs="lots").whole
    assert len(rows()) == 60


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "gone/model/x"],
        ["--min-new-tokens", "50", "--max-new-tokens", "9"],
        ["--language", "de"],
        ["--language", "de", "--format", "csv"],
    ],
)
def test_a_job_that_is_refused_leaves_nothing(here: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(here.rglob("*"))
    out = "out/new.csv" if "csv" in words else "out/new"
    model = [] if "--model" in words else ["--model", "model"]
    monkeypatch.undo()  # the model is really looked for
    monkeypatch.chdir(here)
    assert run(["caption", "pics", "--out", out, *model, *words]) in (1, 2)
    assert sorted(here.rglob("*")) == before
