"""METEOR against values that the Java program gave (meteor_reference_values.json), and its data on disk."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from captune.core.errors import CaptuneError, MetricUnavailable
from captune.metrics.measure import measure
from captune.metrics.meteor import data, paraphrases
from captune.metrics.meteor.data import synonym_sets
from captune.metrics.meteor.normalizer import normalize
from captune.metrics.meteor.stemmer import stem

VALUES: dict[str, Any] = json.loads((Path(__file__).parent / "meteor_reference_values.json").read_text("utf-8"))
HYPOTHESES = {key: entry["hypothesis"] for key, entry in VALUES["captions"].items()}
REFERENCES = {key: entry["references"] for key, entry in VALUES["captions"].items()}


def test_scores_of_each_image_and_of_the_corpus() -> None:
    report = measure(HYPOTHESES, REFERENCES, ["meteor"])
    for key, entry in VALUES["captions"].items():
        assert report.per_image[key]["meteor"] == pytest.approx(entry["meteor"], abs=1e-15), key
    assert report.scores["meteor"] == pytest.approx(VALUES["corpus"], abs=1e-15)
    interval = report.intervals["meteor"]
    assert interval.low < report.scores["meteor"] < interval.high


def test_the_corpus_score_is_not_the_mean() -> None:
    report = measure(HYPOTHESES, REFERENCES, ["meteor"], resamples=0)
    mean = sum(scores["meteor"] for scores in report.per_image.values()) / report.images
    assert abs(mean - report.scores["meteor"]) > 0.01


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("a well-known t-shirt", "a well known t shirt"),
        ("the man 's dog does n't", "the man ' s dog does n 't"),
        ("mr. smith of the u.s. at 5 p.m.", "mr. smith of the us at 5 pm"),
        ("no. 5 vs. mr.", "no . 5 vs. mr ."),
        ("1,000 at 1.5 , x,y", "1,000 at 1.5 , x , y"),
        ("-lrb- brown -rrb-", "-lrb- brown -rrb-"),
        ("snow :--lrb- a--b b---c", "snow : -lrb- a b b--c"),
        ("r&b 50% … 犬x", "r & b 50 % … 犬 x"),
        ("café – ‘x’ “y”", "café - ' x ' \" y \""),
        ("", ""),
    ],
)
def test_meteors_own_tokens(tokens: str, expected: str) -> None:
    assert " ".join(normalize(tokens)) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *(("running", "run"), ("dogs", "dog"), ("skies", "sky"), ("ties", "tie"), ("cries", "cri"), ("gas", "gas")),
        *(("generally", "general"), ("hopping", "hop"), ("hoping", "hope"), ("agreed", "agre"), ("proceed", "proceed")),
        *(("rotationally", "rotat"), ("realization", "realiz"), ("sensibility", "sensibl"), ("yearly", "year")),
        *(("as", "as"), ("x", "x"), ("'tis", "tis"), ("café", "café"), ("vietnamization", "vietnam")),
    ],
)
def test_stems(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_synonyms_are_found_through_inflected_forms() -> None:
    assert synonym_sets("cars") & synonym_sets("automobile")
    assert synonym_sets("geese") >= synonym_sets("goose")
    assert not synonym_sets("dog") & synonym_sets("grass")
    assert synonym_sets("zzzz") == frozenset()


def test_without_the_data_the_other_metrics_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    report = measure({"a": "a dog"}, {"a": ["a dog"]}, resamples=0)
    assert "meteor" not in report.scores
    assert report.scores["rouge_l"] == 1
    assert "pip install 'captune[meteor]'" in report.settings["left_out"]["meteor"]
    with pytest.raises(MetricUnavailable, match="not installed"):
        measure({"a": "a dog"}, {"a": ["a dog"]}, ["meteor"])


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """METEOR's files with a paraphrase table of three lines, and an empty cache; the folder of the files."""
    home = tmp_path / "meteor"
    (home / "data").mkdir(parents=True)
    shutil.copy(data.folder() / data.JAR, home)
    with gzip.open(home / data.PARAPHRASES, "wt", encoding="utf-8") as file:
        file.write("0.5\na large number of\nmany\n0.4\nbig dog\nlarge hound\n0.1\na large number of\nlots of\n")
    monkeypatch.setattr(data, "folder", lambda: home)
    monkeypatch.setattr(paraphrases, "folder", lambda: home)
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path / "cache"))
    return home


def test_phrases_are_looked_up_among_the_sentences_at_hand(small: Path) -> None:
    sentences = [("a", "large", "number", "of", "cats"), ("lots", "of", "cats"), ("many",)]
    first, second, third = paraphrases.open_paraphrases().look_up(sentences)
    ((start, length, targets),) = first.sources
    assert (start, length) == (0, 4)
    assert sorted(targets, key=targets.__getitem__) == [*third.places, *second.places]  # the table's order
    assert list(second.places.values()) == [[(0, 2)]]
    assert second.sources == []


def test_a_broken_index_is_built_again(small: Path) -> None:
    index = paraphrases.build_index()
    for name in ("sources.npy", "targets.npy", "offsets.npy"):
        whole = (index / name).read_bytes()
        (index / name).write_bytes(whole[: len(whole) - 8])
        assert paraphrases.build_index() == index
        assert (index / name).read_bytes() == whole
        (index / name).unlink()
        paraphrases.build_index()
        assert (index / name).read_bytes() == whole


def test_concurrent_builds_agree_and_leave_nothing_else(small: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(paraphrases.build_index())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [path.name for path in found[0].parent.iterdir()] == [found[0].name]


def test_another_table_has_another_index(small: Path) -> None:
    before = paraphrases.build_index()
    with gzip.open(small / data.PARAPHRASES, "wt", encoding="utf-8") as file:
        file.write("0.5\ndog\nhound\n")
    assert paraphrases.build_index() != before


def test_a_truncated_table_is_named(small: Path) -> None:
    whole = (small / data.PARAPHRASES).read_bytes()
    (small / data.PARAPHRASES).write_bytes(whole[: len(whole) - 20])
    with pytest.raises(CaptuneError, match="cannot be read"):
        paraphrases.build_index()


def test_a_cache_that_cannot_be_written_is_named(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CaptuneError, match="Cannot write"):
        paraphrases.build_index()
