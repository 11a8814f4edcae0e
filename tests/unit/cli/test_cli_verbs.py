"""The verbs as commands, over stand-ins for the functions they call."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captune.captions.row import CaptionRow
from captune.cli.main import load, run
from captune.core.records import Caption
from captune.datasets.merge import Problem
from captune.datasets.prepared import SplitCount
from captune.evaluation.results import Evaluation
from captune.metrics.report import MetricReport

Says = Callable[..., tuple[int, str, str]]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Says:
    """Run a command line in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for `captune.api.caption.caption`: names with 'bad' fail; what it was given."""
    told: dict[str, Any] = {}

    def caption(inputs: list[str], **given: Any) -> Iterator[CaptionRow]:
        told.update(given, inputs=inputs)
        for name in inputs:
            if "bad" in name:
                yield CaptionRow(name, (), "error", "damaged", "m")
            else:
                yield CaptionRow(name, (Caption("a dog", 0.5), Caption("a cat", 0.25)), "ok", None, "m")

    monkeypatch.setattr("captune.api.caption.caption", caption)
    return told


def test_the_model_comes_from_the_environment_where_no_flag_names_one(
    says: Says, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAPTUNE_MODEL", "/models/mine")
    (tmp_path / "a.jpg").touch()
    says("caption", "a.jpg")
    assert heard["model"] == "/models/mine"
    says("caption", "a.jpg", "--model", "runs/x")
    assert heard["model"] == "runs/x"


@pytest.mark.parametrize("verb", ["serve", "app"])
def test_several_models_come_from_the_environment(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTUNE_MODEL", "mine=/models/mine base=org/base")
    assert load(verb).make_context(verb, []).params["model"] == ["mine=/models/mine", "base=org/base"]
    assert load(verb).make_context(verb, ["-m", "x"]).params["model"] == ["x"]


def test_one_picture_prints_its_captions_alone(says: Says, heard: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert says("caption", "a.jpg", "--model", "runs/x") == (0, "a dog\na cat\n", "")
    assert (heard["inputs"], heard["model"]) == (["a.jpg"], "runs/x")


def test_several_pictures_print_their_names(says: Says, heard: dict[str, Any]) -> None:
    code, out, _ = says("caption", "a.jpg", "b.jpg")
    assert code == 0
    assert out.splitlines()[0] == "a.jpg\ta dog"
    assert "b.jpg\ta dog" in out


@pytest.mark.parametrize(
    ("names", "code", "last"),
    [
        (["a.jpg", "bad.jpg"], 3, "warning: 1 of 2 images could not be captioned."),
        (["bad.jpg"], 1, "warning: 1 of 1 image could not be captioned."),
    ],
)
def test_bad_pictures_are_named_and_counted(
    says: Says, heard: dict[str, Any], names: list[str], code: int, last: str
) -> None:
    got, _, err = says("caption", *names, "--quiet")
    assert got == code
    assert err.splitlines() == ["warning: bad.jpg: damaged", last]


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (b"a.jpg\r\n\n  two words.jpg\n", ["a.jpg", "  two words.jpg"]),
        (b"two\nlines.jpg\0\0gr\xfcn.jpg\r\0", ["two\nlines.jpg", "gr\udcfcn.jpg\r"]),
    ],
)
def test_a_list_on_stdin(
    says: Says, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch, listed: bytes, names: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed), "utf-8"))
    code, out, _ = says("caption", "-", "--format", "jsonl")
    assert code == 0
    assert heard["inputs"] == names
    assert [json.loads(line)["caption"] for line in out.splitlines()] == ["a dog", "a dog"]


def test_stdin_of_a_person_is_not_waited_for(
    says: Says, heard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    code, _, err = says("caption", "-")
    assert code == 2
    assert "nothing is piped in" in err


def test_captions_into_a_file_leave_stdout_empty(says: Says, heard: dict[str, Any], tmp_path: Path) -> None:
    code, out, _ = says("caption", "a.jpg", "--format", "json", "--out", "c.json")
    assert (code, out) == (0, "")
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))[0]["caption"] == "a dog"


@pytest.mark.parametrize("given", [["--format", "csv"], ["--set", "caption.format=csv"]])
def test_the_format_comes_from_any_source(says: Says, heard: dict[str, Any], given: list[str]) -> None:
    assert says("caption", "a.jpg", *given)[1].startswith("image,caption,")


def test_an_unknown_format_stops_before_any_work(says: Says, heard: dict[str, Any]) -> None:
    code, _, err = says("caption", "a.jpg", "--format", "josn")
    assert code == 2
    assert "Did you mean 'json'?" in err
    assert "inputs" not in heard  # the rows are made one by one, and none was asked for


def test_only_flags_that_were_given_are_passed_on(says: Says, heard: dict[str, Any]) -> None:
    says("caption", "a.jpg", "--num-beams", "5", "--no-recursive")
    resolved = heard["config"]
    assert resolved.sources == {"generation.num_beams": "--num-beams", "caption.recursive": "--recursive"}
    assert (resolved.values.generation.num_beams, resolved.values.caption.recursive) == (5, False)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for `captune.evaluation.evaluate.evaluate`; what it was given."""
    told: dict[str, Any] = {}

    def evaluate(model: str, data: str, **given: Any) -> Any:
        told.update(given, model=model, data=data)
        scores = {"cider": 0.5, "bleu_4": 0.25, "perplexity": 12.5}
        worse = {"cider": 0.25, "bleu_4": 0.3, "perplexity": 20.0}
        reports = {model: MetricReport(scores, {"a": scores}, 3, 15)}
        reports |= {name: MetricReport(worse, {}, 3, 15) for name in given["against"]}
        return Evaluation(reports, {}, (), {}, Path("out"))

    monkeypatch.setattr("captune.evaluation.evaluate.evaluate", evaluate)
    return told


def test_models_side_by_side(says: Says, measured: dict[str, Any]) -> None:
    code, out, err = says("evaluate", "runs/x", "--data", "d", "--against", "base", "--limit-images", "3")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["cider"] == ["50.0", "25.0", "+25.0", "(+100.0", "%)"]
    assert lines["bleu_4"] == ["25.0", "30.0", "-5.0", "(-16.7", "%)"]
    assert lines["perplexity"] == ["12.50", "20.00", "-7.50", "(-37.5", "%)"]
    assert "Scores x 100" in err
    assert (measured["split"], measured["against"], measured["limit_images"]) == ("test", ("base",), 3)


def test_an_evaluation_as_json_has_scores_as_they_are(says: Says, measured: dict[str, Any]) -> None:
    told = json.loads(says("evaluate", "runs/x", "--data", "d", "--against", "base", "--json")[1])
    assert told["models"]["runs/x"]["scores"]["cider"] == 0.5
    assert told["differences"]["base"]["bleu_4"] == pytest.approx(-0.05)
    assert "per_image" not in told["models"]["runs/x"]


def test_the_data_folder_may_come_from_the_environment(
    says: Says, measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", "from-environment")
    assert says("evaluate", "runs/x")[0] == 0
    assert measured["data"] == "from-environment"


def test_training_ends_with_scores_and_commands(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def train(data: str, model: str, out: str, **given: Any) -> Any:
        told.update(given)
        return SimpleNamespace(
            run=Path(out),
            best=Path(out) / "checkpoints" / "checkpoint-9",
            metrics={"epoch": 2.0, "best_metric": "cider", "eval_cider": 0.5, "eval_loss": 1.25},
        )

    monkeypatch.setattr("captune.training.train.train", train)
    given = ["--data", "my data", "--model", "new:blip-tiny", "--out", "runs/x"]
    code, out, err = says("train", *given, "--freeze", "vision,text", "--preset", "flickr8k-quick", "--resume")
    assert code == 0
    assert "checkpoint-9" in out
    assert "50.0" in out
    assert "1.25" in out
    assert "captune evaluate runs/x --data 'my data' --against runs/x@checkpoint-0" in err
    assert (told["freeze"], told["preset"], told["resume"]) == (("vision", "text"), "flickr8k-quick", True)
    assert json.loads(says("train", *given, "--json")[1])["metrics"]["eval_cider"] == 0.5


def test_preparing_shows_splits_and_what_was_left_out(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    from captune.datasets.prepare import PrepareResult

    def prepare(source: str, out: str, **given: Any) -> PrepareResult:
        return PrepareResult(
            folder=Path(out),
            format="kaggle",
            why="captions.txt",
            how="80/10/10",
            splits={"train": SplitCount(8000, 40000), "test": SplitCount(1000, 5000)},
            problems=tuple(Problem(f"{n}.jpg", "damaged") for n in range(25)),
            duplicates=(),
            notes=("A note.",),
            digest="d",
            seconds=1.0,
        )

    monkeypatch.setattr("captune.datasets.prepare.prepare", prepare)
    code, out, err = says("prepare", "source", "--out", "d")
    assert code == 0
    assert "8,000" in out
    assert out.count("damaged") == 20
    assert "... and 5 more, see d/problems.csv." in err
    assert "A note." in err
    assert "captune train --data d " in err
    told = json.loads(says("prepare", "source", "--out", "d", "--json")[1])
    assert told["splits"]["train"] == {"images": 8000, "references": 40000}
    assert len(told["problems"]) == 25


def test_the_demo_ends_with_both_models_and_commands(says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    from captune.api.demo import DemoResult, DemoRow, DemoScores

    def demo(out: str, **given: Any) -> DemoResult:
        return DemoResult(
            folder=Path(out),
            images=300,
            scores={"untrained": DemoScores(0.0, 0.0, 0.01, 0.0), "trained": DemoScores(0.85, 0.7, 2.5, 0.4)},
            rows=(DemoRow("x/1.png", ("red circle",), "##ed", "a red circle .", True),),
            sheet=Path(out) / "captions.png",
            seconds={"train": 100.0},
            table="",
            next=(("captune", "caption", "photo.jpg"),),
        )

    monkeypatch.setattr("captune.api.demo.demo", demo)
    code, out, err = says("demo", "--out", "d")
    assert code == 0
    assert "objects named right         0.0      85.0" in out
    assert "1.png     ##ed        a red circle .   yes" in out
    assert "captune caption photo.jpg" in err
    assert json.loads(says("demo", "--json")[1])["scores"]["trained"]["cider"] == 2.5
