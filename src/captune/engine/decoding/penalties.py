"""What makes a token less likely than the model says: repetition, repeated phrases, ends that come too soon."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captune.core.options import GenerationOptions


@dataclass(frozen=True)
class Penalties:
    """The same changes as `transformers` makes, in its order."""

    repetition: float
    phrase: int
    shortest: int
    end: int

    @classmethod
    def of(cls, options: GenerationOptions, end: int) -> Penalties:
        return cls(options.repetition_penalty, options.no_repeat_ngram_size, options.min_new_tokens, end)

    def __call__(self, scores: Tensor, said: Tensor, new: int) -> Tensor:
        """Changed scores (pictures, rows, vocabulary), given what was said (pictures, rows, tokens), prompt included.

        `new` is the number of tokens behind the prompt.
        """
        if self.repetition != 1.0:
            old = scores.gather(2, said)
            old = torch.where(old < 0, old * self.repetition, old / self.repetition)
            scores = scores.scatter(2, said, old)
        if self.phrase and said.shape[2] + 1 >= self.phrase:
            scores = self._without_repeated(scores, said)
        if new < self.shortest:
            scores = scores.clone()
            scores[..., self.end] = float("-inf")
        return scores

    def _without_repeated(self, scores: Tensor, said: Tensor) -> Tensor:
        """No phrase of `phrase` tokens comes twice (Paulus et al. 2017)."""
        if said.shape[2] < self.phrase:
            return scores
        phrases = said.unfold(2, self.phrase, 1)
        last = said[:, :, None, said.shape[2] - self.phrase + 1 :]
        again = (phrases[..., :-1] == last).all(-1)
        banned = torch.zeros_like(scores, dtype=torch.uint8)
        banned.scatter_reduce_(2, phrases[..., -1], again.to(torch.uint8), "amax")
        return scores.masked_fill(banned.bool(), float("-inf"))
