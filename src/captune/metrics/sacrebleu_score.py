"""BLEU as sacrebleu computes it with its defaults: raw text, `13a` tokens, case kept, smoothed.

Post 2018. A different number from `bleu_4`; its signature says how it was made.
"""

from __future__ import annotations

from itertools import zip_longest

from captune.metrics.corpus import Corpus, Measured


def sacrebleu_score(corpus: Corpus) -> Measured:
    """Key `sacrebleu`, corpus only, 0–1 (sacrebleu itself prints 0–100)."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(force=True)  # only silences a remark on captions that end in " ."
    # Images may differ in their number of references: every stream is as long as the
    # captions, with None where an image has no more.
    streams = [list(stream) for stream in zip_longest(*corpus.references)]
    score = metric.corpus_score(list(corpus.hypotheses), streams).score / 100
    return Measured(scores={"sacrebleu": float(score)}, settings={"sacrebleu_signature": str(metric.get_signature())})
