"""The Markdown of a report: every table stays a table, whatever captions hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from captune.evaluation.report.charts import Line, counted, curves, thinned, ticks
from captune.evaluation.report.data import read_report_data
from captune.evaluation.report.markdown import markdown, plain

CAPTIONS = ("a | b", "`code` *star* _under_", "two\nlines", "", "<b>bold</b> & [x](y)", "ends with \\")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models = {
        name: {
            "scores": {"cider": 0.5 + place, "loss": 2.0 - place},
            "settings": {"tokenizer": "ptb", "captions": {"distinct": 0.5, "vocabulary": 1234}, "beams": place}
            | {"left_out": {"spice": "SPICE needs Java.\nInstall it."}},
        }
        for place, name in enumerate(("runs/a|b", "runs/c"))
    }
    (tmp_path / "eval_bleu.json").write_text(json.dumps({"model": "runs/a|b", "split": "test", "models": models}))
    with open(tmp_path / "eval_per_image.jsonl", "w", encoding="utf-8") as file:
        for number, text in enumerate(CAPTIONS):
            said = {name: {"caption": text, "cider": number / 10 + place} for place, name in enumerate(models)}
            file.write(json.dumps({"id": f"{number}|.jpg", "image": "", "references": [text], "models": said}) + "\n")
    return tmp_path


def cells(line: str) -> list[str]:
    """Cells of a row, as GitHub splits it: a bar after a backslash is no border."""
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def test_every_row_has_as_many_cells_as_its_head(folder: Path) -> None:
    text = markdown(read_report_data(folder), "A | title")
    tables = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    assert len(tables) >= 8
    for one in tables:
        head, marks, *rows = one.strip().split("\n")
        assert all(re.fullmatch("-{3}:?", cell) for cell in cells(marks))
        assert rows
        assert {len(cells(row)) for row in rows} == {len(cells(head))} == {len(cells(marks))}


def test_it_says_scores_captions_and_settings(folder: Path) -> None:
    text = markdown(read_report_data(folder), "A | title")
    assert text.startswith("# A \\| title\n")
    assert "| CIDEr-D | 50.0 | **150.0** |" in text
    assert "| Loss | 2.00 | **1.00** |" in text
    assert "| CIDEr-D | −100.0 |" in text
    assert "a \\| b (0.0)" in text
    assert "| Different words | 1,234 | 1,234 |" in text
    assert "| beams | 0 | 1 |" in text
    assert "(empty) (30.0)" in text
    assert "spice was left out: SPICE needs Java." in text


def test_plain_words_mean_nothing_to_markdown() -> None:
    assert plain("a\n| *b*  <c>") == r"a \| \*b\* \<c\>"


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0, 1), (0.013, 0.87), (2.4, 7.9), (0, 514.4), (-3, 4)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 8
        assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert ticks(1, 1) == [1]


def test_every_value_is_counted_once() -> None:
    assert counted([0, 0.5, 1, 9.99, 10, 50, -1], [0, 5, 10]) == [4, 3]


def test_thin_lines_keep_their_mean() -> None:
    points = [(float(x), float(x % 7)) for x in range(1000)]
    thin = thinned(points, 100)
    assert len(thin) == 100
    assert sum(y for _, y in thin) / 100 == pytest.approx(sum(y for _, y in points) / 1000)


def test_a_curve_of_one_point_and_a_flat_one() -> None:
    drawn = curves("loss", [Line("<one>", ((1.0, 2.0),)), Line("flat", ((0.0, 2.0), (3.0, 2.0)))], x_name="epoch")
    assert "nan" not in drawn
    assert "&lt;one&gt; 2 at 1" in drawn
