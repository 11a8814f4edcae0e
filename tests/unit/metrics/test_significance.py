"""Intervals and paired tests: against theory, and against the scores they sample."""

from __future__ import annotations

import numpy as np
import pytest

from captune.core.errors import CaptuneError
from captune.metrics.corpus import Statistics, mean_statistics
from captune.metrics.measure import measure
from captune.metrics.report import MetricReport
from captune.metrics.significance import bootstrap, compare, intervals

WORDS = ("a", "dog", "cat", "man", "runs", "jumps", "sits", "on", "the", "grass", "red", "ball", "with", "two", "near")


def corpus(seed: int, images: int = 60) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Random captions, each with a ragged number of references that share some of its words."""
    generator = np.random.default_rng(seed)
    captions, references = {}, {}
    for image in range(images):
        words = list(generator.choice(WORDS, 9))
        captions[str(image)] = " ".join(words)
        references[str(image)] = [
            " ".join(words[: generator.integers(2, 9)] + list(generator.choice(WORDS, 4)))
            for _ in range(generator.integers(1, 5))
        ]
    return captions, references


def means(values: np.ndarray) -> MetricReport:
    """A report of one score that is a mean over images."""
    statistics = mean_statistics({"score": values})
    per_image = {str(i): {"score": float(v)} for i, v in enumerate(values)}
    return MetricReport({"score": float(values.mean())}, per_image, len(values), statistics=(statistics,))


def test_statistics_of_every_metric_add_up_to_its_corpus_score() -> None:
    report = measure(*corpus(0))
    sampled = {}
    for part in report.statistics:
        assert len(part.values) == report.images
        sampled |= dict(zip(part.keys, part.score(part.values.sum(axis=0)), strict=True))
    assert sampled.keys() == report.scores.keys()
    for key, score in report.scores.items():
        assert sampled[key] == pytest.approx(score, abs=1e-12)


def test_a_sample_scores_as_the_same_captions_measured_anew() -> None:
    captions, references = corpus(1)
    report = measure(captions, references, metrics=["bleu", "rouge_l", "sacrebleu"])
    drawn = np.random.default_rng(5).integers(0, len(captions), 80)
    again = measure(
        {str(n): captions[str(i)] for n, i in enumerate(drawn)},
        {str(n): references[str(i)] for n, i in enumerate(drawn)},
        metrics=["bleu", "rouge_l", "sacrebleu"],
    )
    for part in report.statistics:
        for key, score in zip(part.keys, part.score(part.values[drawn].sum(axis=0)), strict=True):
            assert score == pytest.approx(again.scores[key], abs=1e-12)


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.2, 2000)
    found = intervals((mean_statistics({"score": values}),))["score"]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_every_score_has_an_interval_around_it() -> None:
    report = measure(*corpus(2))
    assert report.intervals.keys() == report.scores.keys()
    for key, interval in report.intervals.items():
        assert interval.low < report.scores[key] < interval.high


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        interval = intervals((mean_statistics({"score": generator.normal(1.0, 1.0, 100)}),), resamples=300)["score"]
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 200 <= 0.98


def test_samples_are_the_same_for_the_same_seed_alone() -> None:
    part = mean_statistics({"score": np.arange(30.0)})
    np.testing.assert_array_equal(bootstrap(part, 50, seed=1), bootstrap(part, 50, seed=1))
    assert (bootstrap(part, 50, seed=1) != bootstrap(part, 50, seed=2)).any()


def test_blocks_give_what_one_draw_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    part = mean_statistics({"score": np.arange(30.0)})
    whole = bootstrap(part, 50)
    monkeypatch.setattr("captune.metrics.significance.BLOCK", 120)
    np.testing.assert_allclose(bootstrap(part, 50), whole)


def test_a_model_does_not_differ_from_itself() -> None:
    report = measure(*corpus(4))
    for difference in compare(report, report).values():
        assert difference.value == difference.low == difference.high == 0
        assert difference.p_bootstrap == difference.p_randomisation == 1
        assert difference.images == 60


def test_a_better_model_is_found_better_by_both_tests() -> None:
    captions, references = corpus(5)
    worse = {image: " ".join(caption.split()[:4]) + " zebra zebra" for image, caption in captions.items()}
    found = compare(measure(captions, references), measure(worse, references))
    assert set(found) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "sacrebleu"}
    for key in ("bleu_1", "rouge_l", "cider"):
        assert found[key].low > 0
        assert found[key].p_bootstrap < 0.01
        assert found[key].p_randomisation < 0.01


def test_pairing_finds_a_small_steady_difference_that_separate_intervals_hide() -> None:
    generator = np.random.default_rng(6)
    shared = generator.normal(1.0, 1.0, 200)
    first, second = means(shared + 0.05 + generator.normal(0, 0.1, 200)), means(shared)
    apart = [intervals(report.statistics)["score"] for report in (first, second)]
    assert apart[0].low < apart[1].high  # they overlap
    difference = compare(first, second)["score"]
    assert difference.low > 0
    assert max(difference.p_bootstrap, difference.p_randomisation) < 0.01


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    generator = np.random.default_rng(7)
    found = [
        compare(means(generator.normal(size=60)), means(generator.normal(size=60)), resamples=200)["score"]
        for _ in range(150)
    ]
    for name in ("p_bootstrap", "p_randomisation"):
        low = np.mean([getattr(difference, name) < 0.1 for difference in found])
        assert 0.03 <= low <= 0.2


def test_different_images_are_refused() -> None:
    first, second = means(np.arange(5.0)), means(np.arange(6.0))
    with pytest.raises(CaptuneError, match="not about the same images"):
        compare(first, second)


def test_corpus_scores_that_are_no_means_are_sampled_as_ratios() -> None:
    rows = np.array([[1.0, 10.0], [9.0, 10.0], [0.0, 1.0]])
    part = Statistics(("ratio",), rows, lambda sums: sums[..., :1] / sums[..., 1:])
    assert part.score(rows.sum(axis=0))[0] == pytest.approx(10 / 21)
    drawn = bootstrap(part, 200)
    assert {0.0, 9 / 10, 10 / 21} <= {float(score) for score in drawn[:, 0]}
