from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import captune
from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.core.verbs import VERBS

# `captune models`, replaced by a verb that does BODY.
PROGRAM = """
import sys, time
import captune.cli.verbs.models as module
from captune.cli.flags import verb
from captune.cli.main import main
def models():
    {body}
module.app = verb(models)
sys.argv = ["captune", "models"]
main()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start captune with a verb of the test's own; ended at the end of the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(body: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(body=body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**{k: v for k, v in os.environ.items() if k != "CAPTUNE_TRACEBACK"}, **environment},
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line here; returns exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_every_verb(says: Any, arguments: list[str]) -> None:
    code, out, err = says(*arguments)
    assert code == 0
    assert all(verb in out for verb in VERBS)
    assert err == ""


def test_version(says: Any) -> None:
    assert says("--version") == (0, f"captune {captune.__version__}\n", "")


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_helps(says: Any, verb: str) -> None:
    code, out, err = says(verb, "-h")
    assert (code, err) == (0, "")
    assert f"captune {verb}" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["No such command 'trian'", "Did you mean 'train'?", "Try 'captune --help'"]),
        (["--verson"], ["--verson", "--version"]),
        (["train", "--epoch", "3"], ["--epoch", "--epochs", "Try 'captune train --help'"]),
        (["train", "--out", "x", "--epochs", "many"], ["--epochs", "valid number"]),
        (["train", "--out", "x", "--schedule", "cosin"], ["'--schedule': 'cosin' is not one of", "'cosine'"]),
        (["train"], ["No output folder", "--out RUN"]),
        (["train", "--out", "x", "--data", "d", "--model", "m", "--set", "train.epoch=3"], ["Did you mean 'epochs'?"]),
        (["train", "--out", "x", "--data", "d", "--model", "m", "--set", "epochs"], ["expected KEY=VALUE"]),
        (["train", "--out", "x", "--data", "d", "--model", "m", "--preset", "flickr"], ["There is no preset 'flickr'"]),
        (["train", "--out", "x", "--data", "d", "--model", "m", "--config", "no.yaml"], ["Cannot read", "no.yaml"]),
        (["train", "--out", "x", "--data", "d", "--model", "m", "--num-beams", "0"], ["--num-beams: 0 is not allowed"]),
        (["evaluate", "x"], ["Missing option '--data'"]),
        (["caption"], ["Missing argument 'INPUT...'"]),
        (["runs", "lst"], ["No such command 'lst'", "Did you mean 'list'?"]),
    ],
)
def test_wrong_usage_says_what_to_do(
    says: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.delenv("DATA_DIR", raising=False)
    code, out, err = says(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert all(word in err for word in words), err


def test_an_error_shows_message_and_hint_with_its_code(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise CaptuneError("The [disk] is full.", "Free some space.", code=7)

    monkeypatch.setattr("captune.models.families", fail)
    assert says("models") == (7, "", "error: The [disk] is full.\nFree some space.\n")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Stopped."), (signal.SIGTERM, 143, "Terminated.")]
)
def test_signals_end_with_one_line(start: Start, number: int, code: int, word: str) -> None:
    process = start("print('ready', flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err == f"{word} {VERBS['models'].when_stopped}\n"


def test_finally_runs_when_terminated(start: Start) -> None:
    process = start("try: print('ready', flush=True); time.sleep(60)\n    finally: print('tidied', file=sys.stderr)")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[1].startswith("tidied\n")


@pytest.mark.parametrize("body", ["print('x\\n' * 100_000)", "print('x')"])
def test_a_reader_that_leaves_is_no_error(start: Start, body: str) -> None:
    process = start(f"time.sleep(0.2); {body}")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=20)
    assert err == ""
    assert process.returncode == 1


def test_the_unexpected_is_short_and_tells_how_to_see_more(start: Start) -> None:
    thread = "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"
    process = start(f"{thread}; raise KeyError('weights')")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.splitlines()[0] == "A background thread failed: ZeroDivisionError: division by zero"
    assert err.splitlines()[1] == "error: Something unexpected went wrong: KeyError: 'weights'"
    assert "CAPTUNE_TRACEBACK=1" in err
    assert "Traceback" not in err


def test_a_traceback_when_asked_for(start: Start) -> None:
    process = start("raise KeyError('weights')", CAPTUNE_TRACEBACK="1")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in err


def test_no_colour_in_a_pipe_or_with_no_color(start: Start) -> None:
    process = start("raise KeyError('weights')", NO_COLOR="1", TERM="xterm-256color")
    assert "\x1b" not in process.communicate(timeout=20)[1]


@pytest.mark.slow
def test_completion_knows_verbs_and_options() -> None:
    def complete(words: str) -> str:
        count = len(words.split(" ")) - 1
        environment = {
            **os.environ,
            "_CAPTUNE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(count),
        }
        program = "from captune.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout

    assert complete("captune tr").split() == ["train"]
    assert "--learning-rate" in complete("captune train --lear").split()
