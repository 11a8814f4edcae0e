"""What a corpus score is made of, so that it can be made again for any sample of the images.

A mean over images needs one number an image; BLEU and METEOR need summed counts, because
their corpus score is not a mean (Papineni et al. 2002). Both are rows here, and a row may be
counted several times or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Statistics:
    """Rows (N, K), one an image, that add up to corpus scores by `keys`.

    `score` turns sums of rows (…, K) into scores (…, len(keys)); `score(values.sum(0))` are
    the scores of the whole corpus.
    """

    keys: tuple[str, ...]
    values: np.ndarray
    score: Callable[[np.ndarray], np.ndarray]


def mean_statistics(per_image: Mapping[str, Sequence[float] | np.ndarray]) -> Statistics:
    """Statistics of scores whose corpus value is the mean over images."""
    columns = [np.asarray(values, float) for values in per_image.values()]
    rows = np.stack([*columns, np.ones(len(columns[0]))], axis=1)
    return Statistics(tuple(per_image), rows, _means)


def _means(sums: np.ndarray) -> np.ndarray:
    return sums[..., :-1] / sums[..., -1:]
