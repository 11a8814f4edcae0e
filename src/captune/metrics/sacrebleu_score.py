"""BLEU as sacrebleu computes it with its defaults: raw text, `13a` tokens, case kept, smoothed.

Post 2018. A different number from `bleu_4`; its signature says how it was made.
"""

from __future__ import annotations

import numpy as np

from captune.metrics.corpus import ORDERS, Corpus, MetricResult, Statistics


def sacrebleu_score(corpus: Corpus) -> MetricResult:
    """Key `sacrebleu`, corpus only, 0–1 (sacrebleu itself prints 0–100)."""
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
