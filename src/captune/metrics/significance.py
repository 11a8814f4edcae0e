"""How sure a score is, and whether one model is better than another.

Percentile bootstrap over images (Efron 1979; Koehn 2004 for corpus scores), paired where two
models captioned the same images, and approximate randomisation (Riezler & Maxwell 2005).
Document frequencies of CIDEr stay those of the whole corpus while images are drawn.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from captune.core.errors import CaptuneError
from captune.metrics.corpus import Statistics
from captune.metrics.report import Interval, MetricReport

RESAMPLES = 1000
SEED = 0
OUTER = (2.5, 97.5)
# Rows of drawn images held at once: 4 million counts, 32 MB.
BLOCK = 4_000_000


@dataclass(frozen=True)
class Difference:
    """One score of a model minus another model's, on the same `images`.

    `low` and `high` bound the paired bootstrap's 95 % interval; `p_bootstrap` is its
    two-sided p-value, `p_randomisation` that of approximate randomisation.
    """

    value: float
    low: float
    high: float
    p_bootstrap: float
    p_randomisation: float
    images: int


def bootstrap(statistics: Statistics, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """Scores (resamples, len(keys)) of samples of the images, drawn with replacement.

    The same seed draws the same images for every metric and model with as many images.
    """
    values = statistics.values.astype(float)
    sums = [drawn @ values for drawn in _draws(len(values), resamples, seed)]
    return statistics.score(np.concatenate(sums))


def intervals(statistics: tuple[Statistics, ...], resamples: int = RESAMPLES) -> dict[str, Interval]:
    """95 % intervals of every score that the statistics hold; a single image has none."""
    found: dict[str, Interval] = {}
    for part in statistics:
        if len(part.values) < 2:
            continue
        low, high = np.percentile(bootstrap(part, resamples), OUTER, axis=0)
        found |= {key: Interval(float(a), float(b)) for key, a, b in zip(part.keys, low, high, strict=True)}
    return found


def compare_with_first(reports: Mapping[str, MetricReport], resamples: int) -> dict[str, dict[str, Difference]]:
    """`compare` the first report with each other one, by the other's name; empty where `resamples` is 0."""
    first, *others = reports
    return {name: compare(reports[first], reports[name], resamples) for name in others if resamples}


def compare(first: MetricReport, second: MetricReport, resamples: int = RESAMPLES) -> dict[str, Difference]:
    """Every score of `first` minus that of `second`, for the scores that both can be sampled for.

    Raises `CaptuneError` where the two were not measured on the same images.
    """
    if list(first.per_image) != list(second.per_image):
        raise CaptuneError(
            "The two reports are not about the same images in the same order.",
            "Measure both models on the same split, with the same limits.",
        )
    second_values = {part.keys: part for part in second.statistics}
    found: dict[str, Difference] = {}
    for part in first.statistics:
        if (other := second_values.get(part.keys)) is not None:
            found |= _compared(part, other, resamples)
    return found


def _compared(part: Statistics, other: Statistics, resamples: int) -> dict[str, Difference]:
    first_values, second_values = part.values.astype(float), other.values.astype(float)
    images = len(first_values)
    observed = part.score(first_values.sum(axis=0)) - other.score(second_values.sum(axis=0))
    drawn = bootstrap(part, resamples) - bootstrap(other, resamples)
    low, high = np.percentile(drawn, OUTER, axis=0)
    shuffled = _shuffled(part, first_values, second_values, resamples)
    # One more than counted: the observed outcome is itself one of the possible ones (Phipson & Smyth 2010).
    crossing = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    p_bootstrap = np.minimum(1.0, 2 * (crossing + 1) / (resamples + 1))
    slack = 1e-12  # equal but for rounding counts as equal
    p_randomisation = ((np.abs(shuffled) >= np.abs(observed) - slack).sum(axis=0) + 1) / (resamples + 1)
    columns = np.stack([observed, low, high, p_bootstrap, p_randomisation], axis=1).tolist()
    return {
        key: Difference(value, low, high, p_bootstrap, p_randomisation, images)
        for key, (value, low, high, p_bootstrap, p_randomisation) in zip(part.keys, columns, strict=True)
    }


def _shuffled(part: Statistics, first_values: np.ndarray, second_values: np.ndarray, resamples: int) -> np.ndarray:
    """Differences (resamples, keys) after each image's two captions changed sides with probability one half."""
    images = len(first_values)
    generator = np.random.default_rng(SEED)
    total = first_values.sum(axis=0) + second_values.sum(axis=0)
    sums = []
    for rows in _blocks(images, resamples):
        stays = generator.integers(0, 2, (rows, images), dtype=np.int8).astype(float)
        sums.append(stays @ (first_values - second_values) + second_values.sum(axis=0))
    first = np.concatenate(sums)
    return part.score(first) - part.score(total - first)


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image stands in each sample: blocks (rows, images)."""
    generator = np.random.default_rng(seed)
    for rows in _blocks(images, resamples):
        chosen = generator.integers(0, images, (rows, images), dtype=np.int32)
        chosen += np.arange(0, rows * images, images, dtype=np.int32)[:, None]
        yield np.bincount(chosen.ravel(), minlength=rows * images).reshape(rows, images).astype(float)


def _blocks(images: int, resamples: int) -> Iterator[int]:
    most = max(1, BLOCK // max(1, images))
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
