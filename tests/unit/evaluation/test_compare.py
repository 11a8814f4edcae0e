"""Evaluations that are already there, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.core.records import Caption, ImageRecord
from captune.evaluation.compare import compare
from captune.evaluation.results import Evaluation, write_evaluation
from captune.metrics.measure import measure

REFERENCES = {
    f"{n}.jpg": (f"a {colour} {animal} runs on the {place}", f"the {animal} is {colour}")
    for n, (colour, animal, place) in enumerate(
        (colour, animal, place)
        for colour in ("red", "black", "white")
        for animal in ("dog", "cat", "horse")
        for place in ("grass", "beach", "road")
    )
}
GOOD = {key: group[0] for key, group in REFERENCES.items()}
POOR = dict.fromkeys(REFERENCES, "a dog is black")
Evaluated = Callable[..., str]


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluated:
    """Writes what an evaluation of models leaves behind; the folder."""

    def write(name: str, references: dict[str, tuple[str, ...]] = REFERENCES, **models: dict[str, str]) -> str:
        folder = tmp_path / name
        folder.mkdir()
        records = tuple(ImageRecord(key, f"/pictures/{key}", group) for key, group in references.items())
        said = {model: {key: Caption(captions[key], 0.5) for key in references} for model, captions in models.items()}
        reports = {
            model: measure({key: captions[key] for key in references}, references, ["cider"], resamples=0)
            for model, captions in models.items()
        }
        write_evaluation(Evaluation(reports, said, records, {}, folder), folder, split="test")
        return str(folder)

    return write


def test_runs_are_measured_together_and_tested(evaluated: Evaluated) -> None:
    good, poor = evaluated("good", good=GOOD), evaluated("poor", poor=POOR, base=GOOD)
    found = compare([good, poor], resamples=200)
    assert list(found.reports) == [good, poor]
    assert found.scores["bleu_4"] == pytest.approx(1)
    assert found.reports[poor].scores["bleu_4"] < 0.2
    difference = found.comparisons[poor]["cider"]
    assert difference.images == len(REFERENCES)
    assert difference.value == pytest.approx(found.differences()[poor]["cider"])
    assert difference.low > 0
    assert difference.p_randomisation < 0.01


def test_one_folder_stands_for_all_its_models_the_first_first(evaluated: Evaluated) -> None:
    found = compare([evaluated("both", tuned=GOOD, base=POOR)])
    assert list(found.reports) == ["tuned", "base"]


@pytest.mark.slow
def test_what_is_written_can_be_compared_again(evaluated: Evaluated, tmp_path: Path) -> None:
    good, poor = evaluated("good", good=GOOD), evaluated("poor", poor=POOR)
    first = compare([good, poor], out=tmp_path / "out", resamples=100)
    again = compare([tmp_path / "out"], resamples=100)
    assert again.reports[good].scores == first.reports[good].scores
    assert again.comparisons == first.comparisons


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: dict(list(r.items())[1:]), "not evaluated on the same images: 1 only in the first"),
        (lambda r: {k: (g[0], "another") for k, g in r.items()}, "not evaluated against the same references"),
    ],
)
def test_different_pictures_or_references_are_refused(
    evaluated: Evaluated, change: Callable[[dict[str, tuple[str, ...]]], dict[str, tuple[str, ...]]], message: str
) -> None:
    good, other = evaluated("good", good=GOOD), evaluated("other", change(REFERENCES), poor=POOR)
    with pytest.raises(CaptuneError, match=message):
        compare([good, other])


def test_a_folder_without_an_evaluation_says_what_to_run(evaluated: Evaluated, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="holds no evaluation") as caught:
        compare([evaluated("good", good=GOOD), tmp_path])
    assert "captune evaluate" in caught.value.hint


def test_a_broken_row_is_named(evaluated: Evaluated) -> None:
    folder = evaluated("good", good=GOOD)
    path = Path(folder) / "eval_per_image.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:30], *lines[3:]]))
    with pytest.raises(CaptuneError, match="line 3: not a row of an evaluation"):
        compare([folder, folder])


def test_one_model_is_too_few(evaluated: Evaluated) -> None:
    with pytest.raises(CaptuneError, match="two models"):
        compare([evaluated("good", good=GOOD)])


def test_the_command_prints_differences_with_tests(evaluated: Evaluated, capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = evaluated("good", good=GOOD), evaluated("poor", poor=POOR)
    assert run(["compare", good, poor, "--metrics", "bleu,cider"]) == 0
    out, err = capsys.readouterr()
    assert f"{len(REFERENCES)} images" in out
    line = next(line for line in out.splitlines() if line.startswith("cider"))
    assert "p<0.001" in line or "p=0.0" in line
    assert "95 % intervals" in err
    assert run(["compare", good, poor, "--json", "--metrics", "cider"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparisons"][poor]["cider"]["images"] == len(REFERENCES)
