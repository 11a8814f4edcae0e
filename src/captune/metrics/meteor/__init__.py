"""METEOR 1.5 with the values of the COCO caption code (`-l en -norm`), without Java.

Denkowski & Lavie 2014: exact words, stems, synonyms and paraphrases are aligned; weighted
precision and recall, less a penalty for many chunks. Of several references the best counts;
the corpus score comes from summed counts, not from averaged images.
"""

from __future__ import annotations

import numpy as np

from captune.metrics.corpus import Corpus, MetricResult
from captune.metrics.meteor.align import Sentence, align
from captune.metrics.meteor.normalizer import normalize
from captune.metrics.meteor.paraphrases import open_paraphrases
from captune.metrics.meteor.score import COLUMNS, score, statistics
from captune.metrics.statistics import Statistics

# References whose phrases are looked up at once: some 100 MB.
BLOCK = 25_000


def meteor(corpus: Corpus) -> MetricResult:
    """Key `meteor`, corpus and per image, 0–1.

    Raises `MetricUnavailable` where METEOR's data is not installed. The first use builds an
    index of its paraphrases in the user's cache, which takes about 20 s.
    """
    table = open_paraphrases(corpus.progress)
    tokens = [normalize(text) for text in corpus.sentences]
    images, own = len(corpus.ids), corpus.image_of_reference
    rows = np.empty((len(own), COLUMNS))
    for start in range(0, len(own), BLOCK):
        pairs = [(tokens[own[row]], tokens[images + row]) for row in range(start, min(start + BLOCK, len(own)))]
        distinct = list(dict.fromkeys(words for pair in pairs for words in pair))
        known = dict(zip(distinct, map(Sentence, distinct, table.look_up(distinct)), strict=True))
        for row, (caption, reference) in enumerate(pairs, start):
            said, wanted = known[caption], known[reference]
            rows[row] = statistics(said, wanted, align(said, wanted))
    best = _best(score(rows), corpus.references_per_image)
    chosen = rows[best]
    each = score(chosen)
    sums = _summable(chosen)
    return MetricResult(
        scores={"meteor": float(score(sums.sum(axis=0)))},
        per_image={"meteor": each},
        statistics=Statistics(("meteor",), sums, lambda sums: score(sums)[..., None]),
    )


def _best(scores: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """The row of each image's best reference (N,), the first of equally good ones."""
    first = np.cumsum(per_image) - per_image
    top = np.repeat(np.maximum.reduceat(scores, first), per_image)
    rows = np.where(scores == top, np.arange(len(scores)), len(scores))
    return np.minimum.reduceat(rows, first)


def _summable(rows: np.ndarray) -> np.ndarray:
    """Rows as the corpus score adds them up: a perfect match has no chunk."""
    whole = (rows[:, 21] == rows[:, 0]) & (rows[:, 22] == rows[:, 1]) & (rows[:, 20] == 1)
    sums = rows.copy()
    sums[whole, 20] = 0
    return sums
