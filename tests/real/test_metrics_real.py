"""Tokens and scores against pycocoevalcap itself, on real captions; skipped where it or Java is not installed."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from captune.metrics.measure import measure
from captune.metrics.ptb_tokenizer import tokenize

pytestmark = pytest.mark.real

VALUES = Path(__file__).parents[1] / "unit" / "metrics" / "metric_reference_values.json"


@pytest.fixture(scope="module")
def oracle() -> Any:
    """Tokenises a list of captions with pycocoevalcap's Java program."""
    if importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None:
        pytest.skip("compares with pycocoevalcap, which needs `pip install pycocoevalcap==1.2` and Java")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    def tokenised(captions: list[str]) -> list[str]:
        # A sentence begins behind each caption: the program looks ahead into the next one.
        given = {n: [{"caption": caption}, {"caption": "The"}] for n, caption in enumerate(captions)}
        return [pair[0] for pair in PTBTokenizer().tokenize(given).values()]

    return tokenised


@pytest.fixture(scope="module")
def flickr(test_data: Path) -> dict[str, list[str]]:
    references: dict[str, list[str]] = {}
    with open(test_data / "flickr8k" / "captions.txt", encoding="utf-8", newline="") as file:
        for image, caption in list(csv.reader(file))[1:]:
            references.setdefault(image, []).append(caption)
    return references


@pytest.mark.parametrize("change", [str, str.upper, str.title, lambda c: c.replace(" .", ".").replace(" ,", ",")])
def test_tokens_of_every_flickr8k_caption(oracle: Any, flickr: dict[str, list[str]], change: Any) -> None:
    captions = [change(caption) for group in flickr.values() for caption in group]
    expected = oracle(captions)
    assert len(captions) > 40_000
    assert [c for c, e in zip(captions, expected, strict=True) if tokenize(c) != e] == []


def test_tokens_of_mutated_captions(oracle: Any, flickr: dict[str, list[str]]) -> None:
    """At least 99.5 % of captions with an odd character put in."""
    chance = random.Random(11)
    odd = "'’.,-/&()\"!?:;+=#@$%*_~<>[]{}\\|^`“”‘…–—é½°£€™🐕0123456789ABC"
    captions = []
    for caption in chance.sample([c for group in flickr.values() for c in group], 4000):
        at = chance.randrange(len(caption))
        captions.append(" ".join((caption[:at] + chance.choice(odd) + caption[at:]).split()))
    wrong = sum(tokenize(c) != e for c, e in zip(captions, oracle(captions), strict=True))
    assert wrong <= 20


def test_scores_of_flickr8k(oracle: Any, flickr: dict[str, list[str]]) -> None:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    chance = random.Random(2)
    ids = chance.sample(sorted(flickr), 1000)
    hypotheses, references = {}, {}
    for image in ids:
        first, *others = chance.sample(flickr[image], 5)
        words = first.split()
        hypotheses[image] = chance.choice(
            [first, "", " ".join(words[:4] * 2), " ".join(chance.sample(words, len(words)))]
        )
        references[image] = others[: chance.randint(1, 4)]
    tokens = iter(oracle([*hypotheses.values(), *(r for group in references.values() for r in group)]))
    results = {image: [next(tokens)] for image in ids}
    truths = {image: [next(tokens) for _ in references[image]] for image in ids}
    bleu, each_bleu = Bleu(4).compute_score(truths, results, verbose=0)
    expected = {f"bleu_{n + 1}": (bleu[n], each_bleu[n]) for n in range(4)}
    expected["rouge_l"] = Rouge().compute_score(truths, results)
    expected["cider"] = Cider().compute_score(truths, results)

    report = measure(hypotheses, references)
    for name, (whole, each) in expected.items():
        assert report.scores[name] == pytest.approx(float(whole), abs=1e-9), name
        for image, value in zip(ids, each, strict=True):
            assert report.per_image[image][name] == pytest.approx(float(value), abs=1e-9), (name, image)


def test_the_committed_values_are_the_oracle_s(oracle: Any) -> None:
    tokens = json.loads(VALUES.read_text("utf-8"))["tokens"]
    assert oracle(list(tokens)) == list(tokens.values())
