"""What numpy lacks of a search's arithmetic, on arrays (…, vocabulary)."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def log_sum_exp(logits: Array) -> Array:
    """log Σ exp over the last axis, which is kept with length 1."""
    most = logits.max(-1, keepdims=True)
    return most + np.log(np.exp(logits - most).sum(-1, keepdims=True))


def highest(scores: Array, count: int) -> tuple[Array, Array]:
    """Values and places of the `count` highest of the last axis, in falling order."""
    place = np.argpartition(scores, -count, axis=-1)[..., -count:]
    value = np.take_along_axis(scores, place, -1)
    order = np.argsort(-value, axis=-1, kind="stable")
    return np.take_along_axis(value, order, -1), np.take_along_axis(place, order, -1)


def softmax(scores: Array) -> Array:
    """Chances of scores; -inf has none."""
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    return chances / chances.sum(-1, keepdims=True)
