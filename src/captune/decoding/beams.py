"""Beam search with the results of `transformers`' own, over rows that are never moved."""

from __future__ import annotations

from dataclasses import dataclass, replace

from captune.core.options import GenerationOptions
from captune.decoding.ops import Array, ArrayOps
from captune.decoding.penalties import Penalties
from captune.decoding.rows import Generated, Rows
from captune.decoding.sampling import Sampler

# Far below any sum of log-probabilities, but finite: differences of it stay numbers.
NEVER = -1.0e9


def beam_search(
    rows: Rows, prompts: Array, penalties: Penalties, options: GenerationOptions, sampler: Sampler | None = None
) -> Generated:
    """The best `num_captions` captions of each image among `rows.count` beams.

    Captions compete by log-probability / length ** `length_penalty`. An image is done when no running beam could
    still win by its score so far (`early_stopping` off), by the best it could reach (never), or as soon as as many
    captions have ended as there are beams (on). With `sampler`, continuations are drawn instead of taken in order.
    """
    ops, (images, prompt_length), beams = rows.ops, prompts.shape, rows.count
    max_new_tokens, length_penalty, eos_token_id = (
        options.max_new_tokens,
        options.length_penalty,
        penalties.eos_token_id,
    )
    running, ended = (_Beams.empty(ops, prompts, beams, max_new_tokens, eos_token_id) for _ in range(2))
    running.score[:, 1:] = NEVER  # all beams begin alike: the first alone goes on
    ended.score[:] = NEVER
    has_ended, improvable = ops.full((images, beams), False), ops.full((images, 1), True)
    stop_when_full, leading = options.early_stopping == "on", ops.array([True] * beams + [False] * beams)
    for new in range(max_new_tokens):
        vocabulary = rows.logits.shape[2]
        log_probs = ops.xp.broadcast_to(ops.log_softmax(rows.logits), (images, beams, vocabulary))
        scores = penalties(log_probs, running.tokens[:, :, : prompt_length + new], new)
        if sampler is not None:
            scores = sampler.warp(scores)
        totals = (scores + running.score[:, :, None]).reshape(images, -1)
        # Twice as many as there are beams: half of them may end here.
        if sampler is None:
            score, index = ops.topk(totals, 2 * beams)
        else:
            index = ops.multinomial(totals, 2 * beams)
            score = ops.gather(totals, index, 1)
        parent, token = index // vocabulary, index % vocabulary
        log_prob = ops.gather(log_probs.reshape(images, -1), index, 1)
        candidates = running.take(parent).append(token, prompt_length + new, log_prob)
        ends = (token == eos_token_id) | (new + 1 == max_new_tokens)

        running, going = replace(candidates, score=ops.xp.where(ends, score + NEVER, score)).best(beams)

        stops = ends & leading
        fitness = score / (new + 1) ** length_penalty
        shut = (has_ended.all(1, keepdims=True) & stop_when_full) | ~improvable | ~stops
        candidates = replace(candidates, score=ops.xp.where(shut, fitness + NEVER, fitness))
        ended, chosen = ended.beside(candidates).best(beams)
        has_ended = ops.gather(ops.xp.concat([has_ended, stops], 1), chosen, 1)

        reachable_length = max_new_tokens if options.early_stopping == "never" and length_penalty > 0 else new + 1
        reachable = running.score[:, :1] / reachable_length**length_penalty
        worst = ops.xp.where(has_ended, ended.score[:, -1:], NEVER)
        improvable = improvable & (reachable > worst).any(1, keepdims=True)
        if ends.all() | ~improvable.any() | (has_ended.all() & stop_when_full):
            break
        rows.advance(running.tokens[:, :, prompt_length + new], ops.gather(parent, going, 1))
    best = slice(options.num_captions)
    return Generated(ended.tokens[:, best, prompt_length:], ended.length[:, best], ended.log_probs[:, best])


@dataclass(frozen=True)
class _Beams:
    """Captions of each image: tokens (images, n, prompt + max_new_tokens), log_probs (images, n, max_new_tokens).

    The other arrays are (images, n).
    """

    ops: ArrayOps
    tokens: Array
    log_probs: Array
    score: Array
    length: Array

    @classmethod
    def empty(cls, ops: ArrayOps, prompts: Array, count: int, max_new_tokens: int, eos_token_id: int) -> _Beams:
        """`count` captions that are only a prompt."""
        images, prompt_length = prompts.shape
        shape = (images, count)
        prompt = ops.xp.broadcast_to(prompts[:, None], (*shape, prompt_length))
        tokens = ops.xp.concat([prompt, ops.full((*shape, max_new_tokens), eos_token_id)], 2)
        return cls(ops, tokens, ops.full((*shape, max_new_tokens), 0.0), ops.full(shape, 0.0), ops.full(shape, 0))

    def take(self, index: Array) -> _Beams:
        """Those at `index` (images, n)."""
        rows = (self.ops.gather(each, index[:, :, None], 1) for each in self._rows())
        return _Beams(self.ops, *rows, *(self.ops.gather(each, index, 1) for each in self._numbers()))

    def append(self, token: Array, position: int, log_prob: Array) -> _Beams:
        """With a token of each caption written at `position`, the prompt's counted."""
        self.tokens[:, :, position] = token
        self.log_probs[:, :, position - self.tokens.shape[2]] = log_prob
        return replace(self, length=self.length + 1)

    def best(self, count: int) -> tuple[_Beams, Array]:
        """The best `count` by score, in falling order, and their index."""
        _, index = self.ops.topk(self.score, count)
        return self.take(index), index

    def beside(self, other: _Beams) -> _Beams:
        """These, then those of `other`."""
        pairs = zip((*self._rows(), *self._numbers()), (*other._rows(), *other._numbers()), strict=True)
        return _Beams(self.ops, *(self.ops.xp.concat(pair, 1) for pair in pairs))

    def _rows(self) -> tuple[Array, Array]:
        return self.tokens, self.log_probs

    def _numbers(self) -> tuple[Array, Array]:
        return self.score, self.length
