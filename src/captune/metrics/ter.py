"""TER, the translation edit rate: how much of a caption a person would have to change to get a reference.

Snover et al. 2006, by sacrebleu: words put in, left out, replaced, or moved as a phrase, against the length of the
references. Upper and lower case are the same.
"""

import numpy as np

from captune.metrics.corpus import Corpus, MetricResult, Statistics


def ter(corpus: Corpus) -> MetricResult:
    """Key `ter`, 0 and up, lower is better: edits to the nearest reference over the mean length of the references."""
    from sacrebleu.metrics import TER

    measure = TER()
    rows = np.zeros((len(corpus.ids), 2))
    for image, (caption, references) in enumerate(zip(corpus.hypotheses, corpus.references, strict=True)):
        found = measure.sentence_score(caption, list(references))
        rows[image] = found.num_edits, found.ref_length
    statistics = Statistics(("ter",), rows, _rate)
    scores, settings = {"ter": float(_rate(rows.sum(0))[0])}, {"signature": str(measure.get_signature())}
    return MetricResult(scores, {"ter": _rate(rows)[:, 0]}, settings, statistics)


def _rate(sums: np.ndarray) -> np.ndarray:
    """Edits over length (…, 1); without words in the references 1 where there are edits."""
    edits, length = sums[..., 0], sums[..., 1]
    return np.where(length > 0, edits / np.maximum(length, 1e-9), np.minimum(edits, 1))[..., None]
