"""The beam search of `captune.engine.decoding.beams`, on numpy arrays; a test holds the two together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from captune.core.options import EarlyStopping
from captune.runtime.arrays import Array, highest, log_sum_exp
from captune.runtime.penalties import Penalties
from captune.runtime.rows import Rows
from captune.runtime.sampling import Chance, Written

# Far below any sum of log-probabilities, but finite: differences of it stay numbers.
NEVER = np.float32(-1.0e9)


def search(
    rows: Rows,
    prompts: Array,
    penalties: Penalties,
    *,
    most: int,
    end: int,
    wanted: int,
    length_penalty: float,
    early_stopping: EarlyStopping,
    chance: Chance | None = None,
) -> Written:
    """The best `wanted` captions of each picture among `rows.each` beams of at most `most` tokens.

    Captions compete by log-probability / length ** `length_penalty`. A picture is done when
    no running beam could still win by its score so far (`early_stopping` off), by the best it
    could reach (never), or as soon as as many captions have ended as there are beams (on).
    With `chance`, continuations are drawn instead of taken in order.
    """
    (pictures, given), beams = prompts.shape, rows.each
    running = _Beams.empty(prompts, beams, most, end)
    running.score[:, 1:] = NEVER  # all beams begin alike: the first alone goes on
    ended = _Beams.empty(prompts, beams, most, end)
    ended.score[:] = NEVER
    has_ended = np.zeros((pictures, beams), bool)
    open_ = np.ones((pictures, 1), bool)
    hasty = early_stopping == "on"
    leading = np.arange(2 * beams) < beams
    for new in range(most):
        vocabulary = rows.logits.shape[2]
        log_probs = np.broadcast_to(rows.logits - log_sum_exp(rows.logits), (pictures, beams, vocabulary))
        scores = penalties(log_probs, running.tokens[:, :, : given + new], new)
        if chance is not None:
            scores = chance.narrowed(scores)
        totals = (scores + running.score[:, :, None]).reshape(pictures, -1)
        # Twice as many as there are beams: half of them may end here.
        score, place = highest(totals, 2 * beams) if chance is None else chance.drawn(totals, 2 * beams)
        parent, token = place // vocabulary, place % vocabulary
        next_ = running.taken(parent)
        next_.tokens[:, :, given + new] = token
        gained = np.take_along_axis(log_probs.reshape(pictures, -1), place, 1)
        next_ = replace(next_, log_prob=next_.log_prob + gained, length=next_.length + 1)
        ends = (token == end) | (new + 1 == most)

        running, going = replace(next_, score=score + ends * NEVER).chosen(beams)

        stops = ends & leading
        full = has_ended.all(1, keepdims=True) & hasty
        fitness = score / np.float32((new + 1) ** length_penalty) + (full | ~open_ | ~stops) * NEVER
        ended, kept = ended.beside(replace(next_, score=fitness)).chosen(beams)
        has_ended = np.take_along_axis(np.concatenate([has_ended, stops], 1), kept, 1)

        longest = most if early_stopping == "never" and length_penalty > 0 else new + 1
        reachable = running.score[:, :1] / np.float32(longest**length_penalty)
        worst = np.where(has_ended, ended.score.min(1, keepdims=True), NEVER)
        open_ &= (reachable > worst).any(1, keepdims=True)
        if ends.all() or not open_.any() or (has_ended.all() and hasty):
            break
        rows.advance(running.tokens[:, :, given + new], np.take_along_axis(parent, going, 1))
    return Written(ended.tokens[:, :wanted, given:], ended.length[:, :wanted], ended.log_prob[:, :wanted])


@dataclass(frozen=True)
class _Beams:
    """Captions of each picture with their scores: tokens (pictures, n, prompt + most), the rest (pictures, n)."""

    tokens: Array
    score: Array
    log_prob: Array
    length: Array

    @classmethod
    def empty(cls, prompts: Array, count: int, most: int, end: int) -> _Beams:
        """`count` captions that are only a prompt."""
        pictures, given = prompts.shape
        tokens = np.full((pictures, count, given + most), end, np.int64)
        tokens[:, :, :given] = prompts[:, None]
        numbers = np.zeros((2, pictures, count), np.float32)
        return cls(tokens, numbers[0], numbers[1], np.zeros((pictures, count), np.int64))

    def taken(self, place: Array) -> _Beams:
        """Those at `place` (pictures, n)."""
        tokens = np.take_along_axis(self.tokens, place[:, :, None], 1)
        return _Beams(tokens, *(np.take_along_axis(each, place, 1) for each in self._numbers()))

    def chosen(self, count: int) -> tuple[_Beams, Array]:
        """The best `count` by score, and where they were."""
        _, place = highest(self.score, count)
        return self.taken(place), place

    def beside(self, other: _Beams) -> _Beams:
        pairs = zip(self._numbers(), other._numbers(), strict=True)
        tokens = np.concatenate([self.tokens, other.tokens], 1)
        return _Beams(tokens, *(np.concatenate(pair, 1) for pair in pairs))

    def _numbers(self) -> tuple[Array, Array, Array]:
        return self.score, self.log_prob, self.length
