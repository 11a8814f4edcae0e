"""CIDEr-D with the values of the COCO caption code (which calls it CIDEr).

Vedantam et al. 2015: cosine of tf-idf vectors of 1- to 4-grams with clipped counts and a
Gaussian penalty on the difference in length, times 10.
"""

from typing import Any

import numpy as np

from captune.metrics.corpus import ORDERS, Corpus, MetricResult, averaged
from captune.metrics.ngrams import DocumentFrequencies, GramCounts, distinct_sorted

SIGMA = 6.0
SCALE = 10.0


def cider(corpus: Corpus) -> MetricResult:
    """Key `cider`, 0–10; the corpus score is the mean over images.

    Document frequencies are the corpus's own, or those it was given; the settings say which.
    """
    images, own = len(corpus.ids), corpus.image_of_reference
    similar = _similarities(corpus, clipped=True)
    # The COCO code measures length in bigrams.
    bigrams = np.maximum(corpus.lengths - 1, 0)
    apart = (bigrams[:images][own] - bigrams[images:]).astype(float)
    similar *= np.exp(-(apart**2) / (2 * SIGMA**2))
    return _result("cider", similar, corpus)


def cider_plain(corpus: Corpus) -> MetricResult:
    """CIDEr as first defined: CIDEr-D without clipped counts and without the penalty on length.

    Key `cider_plain`, 0–10; the corpus score is the mean over images.
    """
    return _result("cider_plain", _similarities(corpus, clipped=False), corpus)


def _result(key: str, similar: np.ndarray, corpus: Corpus) -> MetricResult:
    images = len(corpus.ids)
    total = np.bincount(corpus.image_of_reference, similar, minlength=images)
    each = total / ORDERS / corpus.references_per_image * SCALE
    return averaged({key: each}, {"document_frequencies": _source(corpus.context.document_frequencies, images)})


def _similarities(corpus: Corpus, *, clipped: bool) -> np.ndarray:
    """Similarity of every reference (R,) to the caption of its image, summed over the orders."""
    return sum(
        (_cosines(counts, _weights(counts, corpus), corpus, clipped) for counts in corpus.grams),
        np.zeros(len(corpus.image_of_reference)),
    )


def _weights(counts: GramCounts, corpus: Corpus) -> np.ndarray:
    """log(images / images with it) of each distinct n-gram; one nobody wrote counts as written once."""
    given = corpus.context.document_frequencies
    if given is None:
        images = len(corpus.ids)
        written = counts.sentence >= images
        image = corpus.image_of_reference[counts.sentence[written] - images]
        width = max(1, counts.distinct)
        pairs = distinct_sorted(image * width + counts.gram[written])
        frequency = np.bincount(pairs % width, minlength=counts.distinct)
    else:
        images = given.images
        tokens = corpus.tokens
        frequency = given.of_grams(" ".join(tokens[s][at : at + counts.order]) for s, at in counts.example.tolist())
    return np.log(float(images)) - np.log(np.maximum(1, frequency))


def _cosines(counts: GramCounts, weights: np.ndarray, corpus: Corpus, clipped: bool) -> np.ndarray:
    """Similarity of every reference (R,) to the caption of its image, for one order of n-grams."""
    images, sentences = len(corpus.ids), len(corpus.lengths)
    own = corpus.image_of_reference
    vector = counts.count * weights[counts.gram]
    norm = np.sqrt(np.bincount(counts.sentence, vector**2, minlength=sentences))
    split, hit, place = corpus.shared_grams(counts)
    reference_weight, caption_weight = vector[split:][hit], vector[:split][place]
    product = (np.minimum(caption_weight, reference_weight) if clipped else caption_weight) * reference_weight
    dot = np.bincount(counts.sentence[split:][hit] - images, product, minlength=len(own)).astype(float)
    norms = norm[:images][own] * norm[images:]
    return np.divide(dot, norms, out=dot, where=norms != 0)


def _source(given: DocumentFrequencies | None, images: int) -> dict[str, Any]:
    source: dict[str, Any]
    if given is None:
        source = {"from": "the evaluated references", "images": images}
    else:
        source = {"from": given.name, "images": given.images}
    if source["images"] == 1:
        source["warning"] = (
            "document frequencies of 1 image: CIDEr is 0 by definition; measure more images together, "
            "or give the document frequencies of a larger set"
        )
    return source
