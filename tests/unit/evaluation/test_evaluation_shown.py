"""What an evaluation shows to readers: a few captions, relative changes, whole captions beneath pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from captune.cli.terminal import print_captions, print_reports
from captune.core.records import Caption, ImageRecord
from captune.evaluation.report import figures
from captune.evaluation.report.scores import relative
from captune.evaluation.results import Evaluation
from captune.metrics.report import MetricReport, relative_change

LONG = "a man in a red shirt rides a brown horse along a sandy beach while two small dogs run beside them " * 6


@pytest.fixture
def evaluation() -> Evaluation:
    records = tuple(ImageRecord(f"{n:02}.jpg", f"{n:02}.jpg", (f"reference {n}", "another\none")) for n in range(10))
    scores = {
        "new": {"bleu_4": 0.25, "cider": 0.9, "loss": 1.5, "meteor": 0.2},
        "old": {"bleu_4": 0.20, "cider": 1e-16, "loss": 2.0, "meteor": 0.2},
    }
    reports = {name: MetricReport(found, images=10, references=20) for name, found in scores.items()}
    captions = {
        name: {record.id: Caption(f"{name} says {record.id}\x1b[2J", 0.5) for record in records} for name in scores
    }
    return Evaluation(reports, captions, records, {}, None)


def test_a_few_captions_stand_beside_all_their_references(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = evaluation.shown(3)
    assert rows == evaluation.shown(3), "the same ones each time"
    print_captions(rows, 10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 of 10 images, drawn by lot"
    first = rows[0]["id"]
    at = lines.index(first)
    assert lines[at + 1] == f"  new        new says {first}\ufffd[2J", "nothing that moves the cursor"
    assert lines[at + 3 : at + 5] == [f"  reference  reference {int(first[:2])}", "  reference  another one"]
    assert evaluation.shown(0) == []
    assert len(evaluation.shown(50)) == 10


def test_relative_changes_stand_beside_absolute_ones(
    evaluation: Evaluation, capsys: pytest.CaptureFixture[str]
) -> None:
    print_reports(evaluation.reports)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["bleu_4"].endswith("+5.0 (+25.0 %)")
    assert rows["loss"].endswith("-0.50 (-25.0 %)")
    assert rows["meteor"].endswith("+0.0 (+0.0 %)")
    assert rows["cider"].endswith("+90.0"), "there is no share of nothing"
    assert evaluation.relative() == {"old": {"bleu_4": pytest.approx(0.25), "loss": -0.25, "meteor": 0.0}}


@pytest.mark.parametrize(
    ("key", "new", "old", "share", "words"),
    [
        ("bleu_4", 0.3, 0.2, 0.5, "+50.0 %"),
        ("bleu_4", 0.1, 0.2, -0.5, "−50.0 %"),
        ("bleu_4", 0.1, 1.7e-4, None, "–"),
        ("bleu_4", 0.1, 0.0, None, "–"),
        ("loss", 1e-5, 2e-5, -0.5, "−50.0 %"),
        ("perplexity", 8.0, 10.0, -0.2, "−20.0 %"),
        ("cider", 0.50001, 0.5, 2e-5, "0.0 %"),
    ],
)
def test_shares_of_scores(key: str, new: float, old: float, share: float | None, words: str) -> None:
    found = relative_change(key, new, old)
    assert found is None if share is None else found == pytest.approx(share)
    assert relative(key, new, old) == words


@pytest.mark.parametrize(
    "text", [LONG, "x" * 200, "一只狗在草地上奔跑" * 20, "", "short", "e\u0301" * 60], ids=lambda text: text[:8]
)
def test_captions_beneath_pictures_are_whole(text: str) -> None:
    lines = figures._wrapped(text)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(figures._width(line) <= figures.WRAP for line in lines)


def test_a_sheet_grows_with_its_captions(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    for name, caption in (("short", "a dog"), ("long", LONG)):
        figures.draw_sheet([tmp_path / "a.png"], [[("m", caption)]], tmp_path / f"{name}-sheet.png")
    with Image.open(tmp_path / "short-sheet.png") as short, Image.open(tmp_path / "long-sheet.png") as long:
        grown = (long.height - short.height) / 110 * 72 / figures.LINE
    assert grown == pytest.approx(len(figures._wrapped(f"m: {LONG}")) - 1, abs=1)
