"""Laws that scores obey whatever the captions are, and what a user gets wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from captune.core.errors import CaptuneError, MetricUnavailable, UsageError
from captune.metrics import METRICS
from captune.metrics.corpus import MetricContext
from captune.metrics.measure import DEFAULT_METRICS, measure, metric_names
from captune.metrics.ngrams import DocumentFrequencies
from captune.metrics.ptb_tokenizer import tokenize
from captune.metrics.rouge_l import common_length

COCO = ("bleu", "rouge_l", "cider")
NEED_MORE = {"spice": "jars|Java", "clip_score": "pictures"}


def corpus(images: int, seed: int = 0) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Captions with uneven numbers of references."""
    chance = random.Random(seed)
    words = ["a", "dog", "cat", "man", "red", "blue", "runs", "sits", "on", "the", "grass", "near", "two", "water"]

    def sentence() -> str:
        return " ".join(chance.choices(words, k=chance.randint(4, 12)))

    ids = [f"{n}.jpg" for n in range(images)]
    return {i: sentence() for i in ids}, {i: [sentence() for _ in range(chance.randint(1, 6))] for i in ids}


def test_the_order_of_images_and_references_does_not_matter() -> None:
    hypotheses, references = corpus(50)
    straight = measure(hypotheses, references)
    turned = measure(
        dict(reversed(hypotheses.items())), {image: list(reversed(group)) for image, group in references.items()}
    )
    assert turned.scores == pytest.approx(straight.scores, abs=1e-12)
    for image in hypotheses:
        assert turned.per_image[image] == pytest.approx(straight.per_image[image], abs=1e-12)


def test_a_caption_equal_to_its_reference_is_perfect() -> None:
    _, references = corpus(20)
    report = measure({image: group[0] for image, group in references.items()}, references)
    perfect = {"bleu_1": 1, "bleu_2": 1, "bleu_3": 1, "bleu_4": 1, "rouge_l": 1, "sacrebleu": 1}
    assert {name: report.scores[name] for name in perfect} == pytest.approx(perfect, abs=1e-9)
    alone = measure(
        {image: group[0] for image, group in references.items()},
        {image: group[:1] for image, group in references.items()},
    )
    assert alone.scores["cider"] == pytest.approx(10, abs=0.5)  # below 10 where an n-gram stands in every image


def test_scores_stay_in_their_ranges() -> None:
    report = measure(*corpus(100, seed=3))
    for scores in (report.scores, *report.per_image.values()):
        assert all(0 <= value <= (10 if name == "cider" else 1 + 1e-9) for name, value in scores.items())


def test_more_references_never_lower_rouge() -> None:
    hypotheses, references = corpus(30)
    fewer = measure(hypotheses, {image: group[:1] for image, group in references.items()}, ["rouge_l"])
    more = measure(hypotheses, references, ["rouge_l"])
    assert all(more.per_image[i]["rouge_l"] >= fewer.per_image[i]["rouge_l"] for i in hypotheses)


def test_an_empty_caption_scores_nothing() -> None:
    report = measure({"a": "", "b": "a dog runs"}, {"a": ["a cat sits"], "b": ["a dog runs"]})
    assert report.per_image["a"] == pytest.approx(dict.fromkeys(report.per_image["a"], 0.0), abs=1e-9)
    nothing = measure({"a": "", "b": "  ...  "}, {"a": ["a cat sits"], "b": ["a dog runs"]})
    assert nothing.scores == pytest.approx(dict.fromkeys(nothing.scores, 0.0), abs=1e-9)
    assert nothing.settings["captions"] == {
        "distinct": 0.5,
        "repeated": 1.0,
        "distinct_1": 0.0,
        "distinct_2": 0.0,
        "vocabulary": 0,
        "mean_length": 0.0,
        "empty": 2,
    }


def test_a_collapsed_model_shows() -> None:
    report = measure({"a": "a dog", "b": "a dog", "c": "a dog"}, {i: ["x y z"] for i in "abc"})
    assert report.settings["captions"] == {
        "distinct": 1 / 3,
        "repeated": 1.0,
        "distinct_1": 2 / 6,
        "distinct_2": 1 / 3,
        "vocabulary": 2,
        "mean_length": 2.0,
        "empty": 0,
    }


def test_varied_captions_and_new_ones() -> None:
    said = {"a": "A dog.", "b": "a dog", "c": "the dog runs"}
    report = measure(said, {i: ["x"] for i in said}, ["rouge_l"], MetricContext(training=frozenset({"a dog", "a cat"})))
    told = report.settings["captions"]
    assert (told["distinct"], told["repeated"], told["novel"]) == pytest.approx((2 / 3, 2 / 3, 1 / 3))
    assert (told["distinct_1"], told["distinct_2"]) == pytest.approx((4 / 7, 3 / 4))


def test_sacrebleu_uses_every_reference_and_says_how() -> None:
    hypotheses = {"a": "the cat sat on the mat", "b": "a dog ran over the road"}
    references = {"a": ["the cat sat on the mat"], "b": ["nothing alike here at all", "a dog ran over the road"]}
    report = measure(hypotheses, references, ["sacrebleu"])
    assert report.scores == pytest.approx({"sacrebleu": 1.0})
    assert report.settings["sacrebleu_signature"].startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert report.settings["references_per_image"] == {"min": 1, "max": 2}
    assert (report.images, report.references) == (2, 3)


def test_given_document_frequencies_replace_the_corpus_own() -> None:
    hypotheses, references = corpus(40)
    whole = measure(hypotheses, references, ["cider"])
    frequencies = DocumentFrequencies.of(references.values(), "forty")
    image = "7.jpg"
    alone = measure({image: hypotheses[image]}, {image: references[image]}, ["cider"], MetricContext(frequencies))
    assert alone.per_image[image]["cider"] == pytest.approx(whole.per_image[image]["cider"], abs=1e-12)
    assert alone.settings["document_frequencies"] == {"from": "forty", "images": 40}
    assert whole.settings["document_frequencies"] == {"from": "the evaluated references", "images": 40}


def plain_common_length(one: Sequence[str], other: Sequence[str]) -> int:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, x in enumerate(one):
        for j, y in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_common_length_agrees_with_the_textbook() -> None:
    chance = random.Random(1)
    for _ in range(300):
        one, other = ("".join(chance.choices("abc", k=chance.randint(0, 70))) for _ in range(2))
        where: dict[str, int] = {}
        for position, word in enumerate(one):
            where[word] = where.get(word, 0) | 1 << position
        assert common_length(where, len(one), list(other)) == plain_common_length(one, other)


@pytest.mark.parametrize("separator", ["\n", "\t", "\r", "\r\n", "\v", "\f", "\u2028", "\u2029", "\u0085", "\u00a0"])
def test_a_line_separator_is_a_space(separator: str) -> None:
    assert tokenize(f"a dog{separator}runs.") == "a dog runs"
    assert tokenize(f"{separator}a {separator} (dog){separator}") == "a -lrb- dog -rrb-"


def test_tokens_do_not_change_when_tokenised_captions_are_plain() -> None:
    _, references = corpus(20)
    for group in references.values():
        assert [tokenize(reference + " .") for reference in group] == group


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a," * 4000, {"a"}),
        ("<a " * 4000, {"<", "a"}),
        ("'" * 4000, set()),
        ("🐕" * 4000, set()),
        ("a!b " * 999, {"a!b"}),
    ],
)
def test_a_very_long_caption(text: str, tokens: set[str]) -> None:
    assert set(tokenize(text).split()) == tokens


def test_captions_without_references_are_named() -> None:
    with pytest.raises(CaptuneError, match=r"2 of 3 captions have no references: 'b', 'c'") as error:
        measure({"a": "x", "b": "y", "c": "z"}, {"a": ["x"], "d.jpg": ["y"]})
    assert "'d.jpg'" in error.value.hint


def test_references_without_a_caption_are_named() -> None:
    with pytest.raises(CaptuneError, match=r"7 of 8 images with references have no caption: '1', .* and 2 more"):
        measure({"0": "x"}, {str(n): ["x"] for n in range(8)})


def test_an_image_without_references_is_named() -> None:
    with pytest.raises(CaptuneError, match=r"1 of 2 images have no references: 'b'"):
        measure({"a": "x", "b": "y"}, {"a": ["x"], "b": []})


def test_no_images() -> None:
    with pytest.raises(CaptuneError, match="no images"):
        measure({}, {})


def test_references_must_be_lists() -> None:
    with pytest.raises(CaptuneError, match="'a' are not a list"):
        measure({"a": "x"}, {"a": "a dog"})


def test_an_unknown_metric_names_the_known() -> None:
    with pytest.raises(UsageError, match="no metric 'blue'") as error:
        measure({"a": "x"}, {"a": ["x"]}, ["blue"])
    assert "'bleu'" in error.value.hint
    with pytest.raises(UsageError, match="list of names"):
        measure({"a": "x"}, {"a": ["x"]}, "bleu")
    with pytest.raises(UsageError, match="No metric"):
        measure({"a": "x"}, {"a": ["x"]}, [])


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_alone(name: str) -> None:
    hypotheses, references = corpus(5)
    if name in NEED_MORE:
        with pytest.raises(MetricUnavailable, match=NEED_MORE[name]) as error:
            measure(hypotheses, references, [name])
        assert error.value.hint
        beside = measure(hypotheses, references, [name, "rouge_l"])
        assert set(beside.scores) == {"rouge_l"}
        assert list(beside.settings["left_out"]) == [name]
        return
    report = measure(hypotheses, references, [name])
    assert report.scores
    assert all(set(row) <= set(report.scores) for row in report.per_image.values())


def test_names_are_checked_before_anything_is_done() -> None:
    assert metric_names() == metric_names(["auto"]) == DEFAULT_METRICS
    assert metric_names(["rouge", "rouge_l"]) == ("rouge_l",)
    assert metric_names(["spice", "auto", "bleu"]) == ("spice", *DEFAULT_METRICS)
    with pytest.raises(UsageError, match="no metric 'blue'"):
        metric_names(["auto", "blue"])
    with pytest.raises(UsageError, match="expected a list"):
        metric_names("bleu")
