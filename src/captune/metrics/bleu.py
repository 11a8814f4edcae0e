"""BLEU-1 to BLEU-4 with the values of the COCO caption code.

Papineni et al. 2002: clipped n-gram precision, geometric mean, brevity penalty against the
closest reference length (ties to the shorter). The corpus score comes from summed counts,
not from averaged images.
"""

import numpy as np

from captune.metrics.corpus import ORDERS, Corpus, MetricResult, Statistics
from captune.metrics.ngrams import GramCounts


def sacrebleu_score(corpus: Corpus) -> MetricResult:
    """BLEU as the package `sacrebleu` computes it (Post 2018), with its signature: not the number of `bleu_4`.

    Key `sacrebleu`, corpus only, 0–1 (the package prints 0–100).
    """
    from sacrebleu.metrics.bleu import BLEU

    # A sentence alone gives the counts that a corpus sums up, whatever its own score; effective
    # order only silences a remark about that score.
    counting = BLEU(effective_order=True)
    found = [
        counting.sentence_score(caption, references)
        for caption, references in zip(corpus.hypotheses, corpus.references, strict=True)
    ]
    rows = np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in found])
    metric = BLEU()
    per_image = corpus.references_per_image
    metric.num_refs = int(per_image[0]) if (per_image == per_image[0]).all() else -1  # as a corpus would set it
    return MetricResult(
        scores={"sacrebleu": float(_score(rows.sum(axis=0))[0])},
        settings={"sacrebleu_signature": str(metric.get_signature())},
        statistics=Statistics(("sacrebleu",), rows, _score),
    )


def _score(sums: np.ndarray) -> np.ndarray:
    """Scores (…, 1) from sums: 4 matched, 4 possible, caption length, reference length."""
    from sacrebleu.metrics.bleu import BLEU

    scores = [
        BLEU.compute_bleu(
            [int(n) for n in row[:ORDERS]],
            [int(n) for n in row[ORDERS : 2 * ORDERS]],
            int(row[-2]),
            int(row[-1]),
            smooth_method="exp",
        ).score
        / 100
        for row in sums.reshape(-1, sums.shape[-1])
    ]
    return np.array(scores).reshape(*sums.shape[:-1], 1)


# The COCO code adds these to numerator and denominator; they decide what an image
# without any matching 4-gram gets.
TINY = 1e-15
SMALL = 1e-9


def bleu(corpus: Corpus) -> MetricResult:
    """Keys `bleu_1` … `bleu_4`, corpus and per image, 0–1."""
    images = len(corpus.ids)
    hypothesis = corpus.lengths[:images]
    reference = closest_lengths(hypothesis, corpus.lengths[images:], corpus.references_per_image)
    matched = np.stack([_clipped(counts, corpus) for counts in corpus.grams])
    possible = np.stack([np.maximum(0, hypothesis - shift) for shift in range(ORDERS)])
    rows = np.concatenate([matched, possible, hypothesis[None], reference[None]]).T
    whole = _bleu_score(rows.sum(axis=0))
    names = tuple(f"bleu_{order}" for order in range(1, ORDERS + 1))
    return MetricResult(
        scores={name: float(value) for name, value in zip(names, whole, strict=True)},
        per_image=dict(zip(names, _bleu_score(rows).T, strict=True)),
        statistics=Statistics(names, rows, _bleu_score),
    )


def closest_lengths(hypothesis: np.ndarray, references: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """The reference length nearest to each caption's (N,), the shorter of two equally near.

    `references` (R,) are the lengths of all references, image by image.
    """
    off = np.abs(references - np.repeat(hypothesis, per_image))
    # One sortable number: distance first, then length.
    rank = off * (references.max() + 1) + references
    first = np.cumsum(per_image) - per_image
    return np.minimum.reduceat(rank, first) % (references.max() + 1)


def _clipped(counts: GramCounts, corpus: Corpus) -> np.ndarray:
    """Matching n-grams of each caption (N,), each at most as often as in one reference."""
    split, hit, place = corpus.shared_grams(counts)
    most = np.zeros(split, np.int64)
    np.maximum.at(most, place, counts.count[split:][hit])
    clipped = np.minimum(counts.count[:split], most)
    return np.bincount(counts.sentence[:split], clipped, minlength=len(corpus.ids)).astype(np.int64)


def _bleu_score(rows: np.ndarray) -> np.ndarray:
    """BLEU of each order (…, 4) from (sums of) rows: 4 matched, 4 possible, caption length, reference length."""
    matched, possible = rows[..., :ORDERS], rows[..., ORDERS : 2 * ORDERS]
    precision = (matched + TINY) / (possible + SMALL)
    score = np.cumprod(precision, axis=-1) ** (1.0 / np.arange(1, ORDERS + 1))
    ratio = (rows[..., -2:-1] + TINY) / (rows[..., -1:] + SMALL)
    return score * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
