"""Scores against values that pycocoevalcap 1.2 gave for the same captions (metric_reference_values.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from captune.metrics.measure import measure
from captune.metrics.ptb_tokenizer import tokenize

VALUES: dict[str, Any] = json.loads((Path(__file__).parent / "metric_reference_values.json").read_text("utf-8"))
CAPTIONS = VALUES["captions"]
HYPOTHESES = {image: entry["hypothesis"] for image, entry in CAPTIONS.items()}
REFERENCES = {image: entry["references"] for image, entry in CAPTIONS.items()}
COCO = ("bleu", "rouge_l", "cider")


@pytest.mark.parametrize("caption", VALUES["tokens"])
def test_tokens(caption: str) -> None:
    assert tokenize(caption) == VALUES["tokens"][caption]


def test_scores_of_the_corpus() -> None:
    assert measure(HYPOTHESES, REFERENCES, COCO).scores == pytest.approx(VALUES["corpus"], abs=1e-9)


def test_scores_of_each_image() -> None:
    report = measure(HYPOTHESES, REFERENCES, COCO)
    for image, entry in CAPTIONS.items():
        assert report.per_image[image] == pytest.approx(entry["scores"], abs=1e-9), image


def test_one_image_alone() -> None:
    report = measure({"s1": HYPOTHESES["s1"]}, {"s1": REFERENCES["s1"]}, COCO)
    assert report.scores == pytest.approx(VALUES["one_image_s1"], abs=1e-9)
    assert "1 image: CIDEr is 0 by definition" in report.settings["document_frequencies"]["warning"]
