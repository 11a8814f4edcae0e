"""CIDEr-D as a reward, and saved document frequencies."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from captune.core.errors import CaptuneError
from captune.metrics.corpus import MetricContext
from captune.metrics.measure import measure
from captune.metrics.ngrams import END, DocumentFrequencies
from captune.metrics.reward import CiderReward

WORDS = ("a", "dog", "cat", "man", "runs", "jumps", "sits", "on", "the", "grass", "red", "ball", "with", "two", "near")


def sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 14)))


def references(images: int, seed: int = 0) -> dict[str, list[str]]:
    chance = random.Random(seed)
    return {f"{n}.jpg": [sentence(chance) for _ in range(chance.randint(1, 5))] for n in range(images)}


@pytest.mark.parametrize("given", [None, DocumentFrequencies.of(references(90, seed=7).values(), "others")])
def test_without_end_tokens_it_is_the_metric(given: DocumentFrequencies | None) -> None:
    groups = references(40)
    chance = random.Random(1)
    captions = {image: sentence(chance) + chance.choice(["", " zebra zebra on a zebra", " ."]) for image in groups}
    captions["3.jpg"] = ""
    whole = measure(captions, groups, ["cider"], MetricContext(given), resamples=0).per_image
    reward = CiderReward(groups, given, end_token=False)
    found = reward(list(captions.values()), list(captions))
    np.testing.assert_allclose(found, [whole[image]["cider"] for image in captions], rtol=0, atol=1e-9)


def test_several_captions_of_one_image_are_rewarded_alone() -> None:
    groups = references(30)
    chance = random.Random(2)
    captions, images = [sentence(chance) for _ in range(64)], chance.choices(list(groups), k=64)
    reward = CiderReward(groups)
    together = reward(captions, images)
    alone = [reward([caption], [image])[0] for caption, image in zip(captions, images, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


def test_words_after_the_end_cost_more_with_the_end_as_a_word() -> None:
    groups = {"a": ["a red bird sits on a wire"], **references(50)}
    said = ["a red bird sits on a wire", "a red bird sits on a"]
    without = CiderReward(groups, end_token=False)(said, ["a", "a"])
    with_end = CiderReward(groups)(said, ["a", "a"])
    assert with_end[0] == pytest.approx(10)
    assert with_end[1] / with_end[0] < without[1] / without[0]


def test_no_captions_and_strange_images() -> None:
    reward = CiderReward(references(5))
    assert reward([], []).shape == (0,)
    with pytest.raises(CaptuneError, match=r"no references of image 'x\.jpg'"):
        reward(["a dog"], ["x.jpg"])


def test_frequencies_count_images_not_captions() -> None:
    found = DocumentFrequencies.of([["A red ball.", "a red ball"], ["the red dog"], ["two men"]], "three")
    assert found.images == 3
    assert found.counts == {"red": 2, END: 3}
    np.testing.assert_array_equal(found.of_grams(["red", "ball", "never seen"]), [2, 1, 1])


def test_saved_frequencies_are_the_same(tmp_path: Path) -> None:
    made = DocumentFrequencies.of([*references(200).values(), ["café élégant"], ["café noir"]], "mine ü")
    made.save(tmp_path / "f.npz")
    assert DocumentFrequencies.load(tmp_path / "f.npz") == made
    assert made.counts["café"] == 2
    empty = DocumentFrequencies.of([], "none")
    empty.save(tmp_path / "e.npz")
    assert DocumentFrequencies.load(tmp_path / "e.npz") == empty


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    with pytest.raises(CaptuneError, match="There is no file"):
        DocumentFrequencies.load(path)
    DocumentFrequencies.of(references(50).values(), "x").save(path)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2], whole[:-40]):
        path.write_bytes(broken)
        with pytest.raises(CaptuneError, match="does not hold document frequencies"):
            DocumentFrequencies.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(CaptuneError, match="another kind of file"):
        DocumentFrequencies.load(path)


def test_plain_cider_against_its_definition() -> None:
    from collections import Counter
    from math import log, sqrt

    groups = references(20, seed=3)
    chance = random.Random(4)
    captions = {image: sentence(chance) for image in groups}

    def grams(text: str, order: int) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))

    expected = {}
    for image, group in groups.items():
        total = 0.0
        for order in range(1, 5):
            seen = Counter(g for other in groups.values() for g in set().union(*(grams(t, order) for t in other)))
            weight = lambda g, seen=seen: log(len(groups)) - log(max(1, seen[g]))
            mine = {g: n * weight(g) for g, n in grams(captions[image], order).items()}
            for text in group:
                theirs = {g: n * weight(g) for g, n in grams(text, order).items()}
                norms = sqrt(sum(v * v for v in mine.values())) * sqrt(sum(v * v for v in theirs.values()))
                total += sum(v * theirs.get(g, 0) for g, v in mine.items()) / norms / len(group) if norms else 0
        expected[image] = 10 * total / 4
    found = measure(captions, groups, ["cider_plain"], resamples=0)
    for image, value in expected.items():
        assert found.per_image[image]["cider_plain"] == pytest.approx(value, abs=1e-9)
