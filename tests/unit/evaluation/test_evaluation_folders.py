"""Folders of evaluations and runs from elsewhere: a report shows no files of the reader, and damage is named."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captune.core.errors import CaptuneError
from captune.core.runs import Run
from captune.evaluation.compare import compare
from captune.evaluation.report import write_report
from captune.evaluation.results import read_captions
from captune.metrics.ngrams import DocumentFrequencies

SECRET = b"a private key"


def row(**changed: Any) -> dict[str, Any]:
    models = {name: {"caption": "a cat", "confidence": 0.5, "bleu_1": 0.5} for name in ("a", "b")}
    return {"id": "1", "image": "photo.jpg", "references": ["a cat sits"], "models": models, **changed}


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """An evaluation of two models in a folder of its own, beside a private file."""
    (tmp_path / "key").write_bytes(SECRET)
    folder = tmp_path / "sent"
    (folder / "attention").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "attention" / "1.jpg")
    scores = {"scores": {"bleu_1": 0.5}}
    (folder / "eval_bleu.json").write_text(json.dumps({"model": "a", "models": {"a": scores, "b": scores}}))
    (folder / "eval_per_image.jsonl").write_text(json.dumps(row()))
    return folder


@pytest.mark.parametrize("spell", [str, lambda path: "../../key", lambda path: "link.jpg", lambda path: "../link.jpg"])
def test_sheets_lie_in_the_folder(sent: Path, tmp_path: Path, spell: Callable[[Path], str]) -> None:
    for link in (sent / "link.jpg", sent / "attention" / "link.jpg"):
        os.symlink(tmp_path / "key", link)
    sheets = [{"id": "1", "caption": "a cat", "file": name} for name in ("1.jpg", spell(tmp_path / "key"))]
    (sent / "attention" / "sheets.json").write_text(json.dumps(sheets))
    write_report(sent, figures=False)
    page = (sent / "report.html").read_bytes()
    assert base64.b64encode((sent / "attention" / "1.jpg").read_bytes()) in page
    assert base64.b64encode(SECRET) not in page


def test_the_options_of_a_run_are_no_link_elsewhere(sent: Path, tmp_path: Path) -> None:
    (sent / "manifest.json").write_text("{}")
    os.symlink(tmp_path / "key", sent / "config.yaml")
    write_report(sent, figures=False)
    assert SECRET not in (sent / "report.html").read_bytes()


@pytest.mark.parametrize("text", ["7", "[7]", '[{"id": 1}]', '{"a": 1}'])
def test_a_list_of_sheets_that_is_none(sent: Path, text: str) -> None:
    (sent / "attention" / "sheets.json").write_text(text)
    with pytest.raises(CaptuneError, match=r"sheets\.json is not the list"):
        write_report(sent, figures=False)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe", b"7", json.dumps(row(references=[7])).encode(), json.dumps(row(references="ab", id=[])).encode(),
        json.dumps(row(models={"a": {"caption": 7, "confidence": 0.5}})).encode(),
        json.dumps(row(models={"a": {"caption": "x", "confidence": "y"}})).encode(),
    ],
)  # fmt: skip
def test_damaged_rows_of_an_evaluation(sent: Path, data: bytes) -> None:
    (sent / "eval_per_image.jsonl").write_bytes(data)
    with pytest.raises(CaptuneError, match=r"eval_per_image\.jsonl"):
        read_captions(sent)


def test_rows_that_lack_a_model_or_stand_twice(sent: Path) -> None:
    one, other = row(), row(id="2")
    del other["models"]["b"]
    for rows, said in (([one, other], "not every image has a caption of b"), ([one, one], "stands in it twice")):
        (sent / "eval_per_image.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(CaptuneError, match=said):
            compare([sent], resamples=0)
    (sent / "eval_bleu.json").write_text("[]")
    with pytest.raises(CaptuneError, match="holds no captions of None"):
        read_captions(sent)


def test_history_of_other_values_is_left_out(tmp_path: Path) -> None:
    lines = [{"step": 1, "epoch": 1.0}, {"step": 2, "epoch": "x"}, {"step": 3, "epoch": {}}, {"step": 4, "epoch": 2}]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [line["step"] for line in Run(tmp_path).history()] == [1, 4]


def test_damage_inside_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "frequencies.npz"
    DocumentFrequencies({f"a cat {n}": n for n in range(500)}, 9, "x").save(path)
    whole = path.read_bytes()
    assert DocumentFrequencies.load(path).images == 9
    at = whole.index(b"grams.npy") + 40
    for place in (at, at + 60, whole.index(b"PK\x01\x02") + 8):  # packed bytes; then a flag of the member
        path.write_bytes(whole[:place] + bytes((whole[place] ^ 0xFF,)) * 8 + whole[place + 8 :])
        with pytest.raises(CaptuneError, match="does not hold document frequencies"):
            DocumentFrequencies.load(path)
