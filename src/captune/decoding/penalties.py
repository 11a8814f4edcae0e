"""Penalties on scores: repetition, repeated n-grams, ends that come too soon."""

from dataclasses import dataclass

from captune.decoding.ops import Array, ArrayOps


@dataclass(frozen=True)
class Penalties:
    """The same changes as `transformers` makes, in its order. Tokens that are `suppressed` are never written."""

    repetition_penalty: float
    no_repeat_ngram_size: int
    min_new_tokens: int
    eos_token_id: int
    ops: ArrayOps
    suppressed: tuple[int, ...] = ()

    def __call__(self, scores: Array, tokens: Array, new: int) -> Array:
        """Changed scores (images, rows, vocabulary) behind tokens (images, rows, length), prompt included.

        `new` is the number of tokens behind the prompt. `scores` themselves are not changed.
        """
        if self.repetition_penalty != 1.0:
            old = self.ops.gather(scores, tokens, 2)
            old = self.ops.xp.where(old < 0, old * self.repetition_penalty, old / self.repetition_penalty)
            scores = self.ops.scatter(scores, tokens, old)
        if 0 < self.no_repeat_ngram_size <= tokens.shape[2]:
            scores = self._without_repeated_ngrams(scores, tokens)
        if new < self.min_new_tokens:
            one = (*scores.shape[:2], 1)
            scores = self.ops.scatter(scores, self.ops.full(one, self.eos_token_id), self.ops.full(one, float("-inf")))
        if self.suppressed:
            shape = (*scores.shape[:2], len(self.suppressed))
            index = self.ops.xp.broadcast_to(self.ops.array(list(self.suppressed)), shape)
            scores = self.ops.scatter(scores, index, self.ops.full(shape, float("-inf")))
        return scores

    def _without_repeated_ngrams(self, scores: Array, tokens: Array) -> Array:
        """No n-gram comes twice (Paulus et al. 2017)."""
        images, rows, length = tokens.shape
        before = self.no_repeat_ngram_size - 1
        ngrams = length - before
        # Which n-grams begin with the last tokens: what ended them must not come again.
        repeated = self.ops.full((images, rows, ngrams), True)
        for n in range(before):
            repeated = repeated & (tokens[:, :, n : n + ngrams] == tokens[:, :, ngrams + n, None])
        return self.ops.forbid(scores, tokens[:, :, before:], repeated)
