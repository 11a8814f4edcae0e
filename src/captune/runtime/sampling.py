"""Captions token by token: the likeliest each time, or drawn by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from captune.runtime.arrays import Array, highest, log_sum_exp, softmax
from captune.runtime.penalties import Penalties
from captune.runtime.rows import Rows


@dataclass(frozen=True)
class Written:
    """Captions as tokens (pictures, each, width) without their prompts.

    `lengths` (pictures, each) count tokens, the end included; `log_probs` (pictures, each) are
    the summed log-likelihoods that the model itself gives them.
    """

    tokens: Array
    lengths: Array
    log_probs: Array


@dataclass(frozen=True)
class Chance:
    """How tokens are drawn: temperature of each row (rows,), then the `top_k` likeliest, then `top_p` of them.

    `source` is one search's own: draws of other threads do not change it.
    """

    temperature: Array
    top_k: int
    top_p: float
    source: np.random.Generator

    def narrowed(self, scores: Array) -> Array:
        """Scores (pictures, rows, vocabulary) that chance decides on; what it must not take is -inf."""
        scores = scores / self.temperature[:, None]
        if 0 < self.top_k < scores.shape[-1]:
            least = np.partition(scores, -self.top_k, axis=-1)[..., -self.top_k, None]
            scores[scores < least] = -np.inf
        if self.top_p < 1:
            order = np.argsort(scores, axis=-1)
            rest = softmax(np.take_along_axis(scores, order, -1)).cumsum(-1) <= 1 - self.top_p
            rest[..., -1] = False  # one at least stays
            out = np.empty_like(rest)
            np.put_along_axis(out, order, rest, -1)
            scores[out] = -np.inf
        return scores

    def drawn(self, scores: Array, count: int = 1) -> tuple[Array, Array]:
        """Values and places of `count` different ones of the last axis.

        Chances divided by exponential noise: the highest are draws without replacement, in their order.
        """
        noise = self.source.standard_exponential(scores.shape, np.float32)
        _, place = highest(softmax(scores) / np.maximum(noise, np.finfo(np.float32).tiny), count)
        return np.take_along_axis(scores, place, -1), place


def write(
    rows: Rows,
    prompts: Array,
    penalties: Penalties,
    *,
    most: int,
    end: int,
    chance: Chance | None = None,
    on_token: Callable[[Array], None] | None = None,
) -> Written:
    """At most `most` tokens a row; without `chance` the likeliest. `on_token` gets each step's (pictures, rows)."""
    pictures, each = len(prompts), rows.each
    said = np.repeat(prompts[:, None], each, 1)
    done = np.zeros((pictures, each), bool)
    lengths = np.zeros((pictures, each), np.int64)
    log_probs = np.zeros((pictures, each), np.float32)
    for new in range(most):
        logits = np.broadcast_to(rows.logits, (pictures, each, rows.logits.shape[2]))
        scores = penalties(logits, said, new)
        if chance is None:
            token = scores.argmax(-1)
        else:
            token = chance.drawn(chance.narrowed(scores))[1][..., 0]
        token[done] = end
        plain = (np.take_along_axis(logits, token[..., None], 2) - log_sum_exp(rows.logits))[..., 0]
        log_probs += np.where(done, 0, plain)
        lengths += ~done
        said = np.concatenate([said, token[..., None]], 2)
        done |= token == end
        if on_token is not None:
            on_token(token)
        if new + 1 == most or done.all():
            break
        rows.advance(token)
    return Written(said[..., prompts.shape[1] :], lengths, log_probs)
