"""TER against sacrebleu's own corpus score, and by hand."""

from __future__ import annotations

import pytest
from sacrebleu.metrics import TER

from captune.metrics.measure import measure

CAPTIONS = {"a": "a dog runs on the beach", "b": "on the beach a dog runs", "c": "two cats", "d": "a man"}
REFERENCES = {
    "a": ("A dog runs on the beach", "one dog"),
    "b": ("a dog runs on the beach",),
    "c": ("two big cats", "three dogs sleep here"),
    "d": ("a man walks slowly home",),
}


def test_it_is_sacrebleus() -> None:
    report = measure(CAPTIONS, REFERENCES, ("ter",), resamples=50)
    most = max(map(len, REFERENCES.values()))
    streams = [[group[n] if n < len(group) else None for group in REFERENCES.values()] for n in range(most)]
    theirs = TER().corpus_score(list(CAPTIONS.values()), streams)  # type: ignore[arg-type]
    assert report.scores["ter"] == pytest.approx(theirs.score / 100)
    each = {name: scores["ter"] for name, scores in report.per_image.items()}
    # The same words; one phrase moved over six words; a word put in over 3.5; three words over five.
    assert each == pytest.approx({"a": 0, "b": 1 / 6, "c": 1 / 3.5, "d": 3 / 5})
    assert report.intervals["ter"].low <= report.scores["ter"] <= report.intervals["ter"].high


def test_a_caption_without_words_has_all_to_be_written() -> None:
    report = measure({"a": "", "b": "a dog"}, {"a": ("a dog runs",), "b": ("a dog",)}, ("ter",), resamples=0)
    assert {name: scores["ter"] for name, scores in report.per_image.items()} == {"a": 1.0, "b": 0.0}
