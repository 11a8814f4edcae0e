"""The penalties of `captune.engine.decoding.penalties`, on numpy arrays; a test holds the two together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from captune.core.options import GenerationOptions
from captune.runtime.arrays import Array


@dataclass(frozen=True)
class Penalties:
    """What makes a token less likely than the model says: repetition, repeated phrases, ends that come too soon."""

    repetition: float
    phrase: int
    shortest: int
    end: int

    @classmethod
    def of(cls, options: GenerationOptions, end: int) -> Penalties:
        return cls(options.repetition_penalty, options.no_repeat_ngram_size, options.min_new_tokens, end)

    def __call__(self, scores: Array, said: Array, new: int) -> Array:
        """Changed scores (pictures, rows, vocabulary), given what was said (pictures, rows, tokens), prompt included.

        `new` is the number of tokens behind the prompt. `scores` themselves are not changed.
        """
        repeats = bool(self.phrase) and said.shape[2] >= self.phrase
        if self.repetition == 1.0 and not repeats and new >= self.shortest:
            return scores
        scores = scores.copy()
        if self.repetition != 1.0:
            old = np.take_along_axis(scores, said, 2)
            old = np.where(old < 0, old * np.float32(self.repetition), old / np.float32(self.repetition))
            np.put_along_axis(scores, said, old, 2)
        if repeats:
            self._forbid_repeated(scores, said)
        if new < self.shortest:
            scores[..., self.end] = -np.inf
        return scores

    def _forbid_repeated(self, scores: Array, said: Array) -> None:
        """No phrase of `phrase` tokens comes twice (Paulus et al. 2017)."""
        phrases = sliding_window_view(said, self.phrase, axis=2)
        last = said[:, :, None, said.shape[2] - self.phrase + 1 :]
        picture, row, place = np.nonzero((phrases[..., :-1] == last).all(-1))
        scores[picture, row, phrases[picture, row, place, -1]] = -np.inf
