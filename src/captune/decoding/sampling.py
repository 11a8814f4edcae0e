"""Captions token by token: the likeliest each time, or sampled."""

from collections.abc import Callable
from dataclasses import dataclass

from captune.decoding.ops import Array, ArrayOps
from captune.decoding.penalties import Penalties
from captune.decoding.rows import Generated, Rows


@dataclass(frozen=True)
class Sampler:
    """How tokens are drawn: temperature of each row (rows,), then the `top_k` likeliest, then `top_p` of them."""

    temperature: Array
    top_k: int
    top_p: float
    ops: ArrayOps

    def warp(self, scores: Array) -> Array:
        """The scores (images, rows, vocabulary) that are drawn from; -inf for a token that must not be drawn."""
        ops, never = self.ops, float("-inf")
        scores = scores / self.temperature[:, None]
        if 0 < self.top_k < scores.shape[-1]:
            scores = ops.xp.where(scores < ops.topk(scores, self.top_k)[0][..., -1:], never, scores)
        if self.top_p < 1:
            order = ops.xp.argsort(scores, -1)
            rest = ops.softmax(ops.gather(scores, order, -1)).cumsum(-1) <= 1 - self.top_p
            rest[..., -1] = False  # one at least stays
            scores = ops.xp.where(ops.scatter(rest, order, rest), never, scores)
        return scores

    def draw(self, scores: Array) -> Array:
        """A token for each row (images, rows)."""
        return self.ops.multinomial(self.warp(scores), 1)[..., 0]


def sample(
    rows: Rows,
    prompts: Array,
    penalties: Penalties,
    max_new_tokens: int,
    sampler: Sampler | None = None,
    on_token: Callable[[Array, Array], None] | None = None,
) -> Generated:
    """A caption for each row; without `sampler` of the likeliest tokens.

    `on_token` gets the tokens of each step (images, rows) and their log-likelihoods.
    """
    ops, shape, prompt_length = rows.ops, (len(prompts), rows.count), prompts.shape[1]
    eos_token_id = penalties.eos_token_id
    tokens = ops.xp.broadcast_to(prompts[:, None], (*shape, prompt_length))
    done, lengths, log_probs = ops.full(shape, False), ops.full(shape, 0), ops.full((*shape, 0), 0.0)
    for new in range(max_new_tokens):
        logits = ops.xp.broadcast_to(rows.logits, (*shape, rows.logits.shape[2]))
        scores = penalties(logits, tokens, new)
        token = scores.argmax(-1) if sampler is None else sampler.draw(scores)
        token = ops.xp.where(done, eos_token_id, token)
        log_prob = (ops.gather(logits, token[..., None], 2) - ops.logsumexp(rows.logits))[..., 0]
        log_prob = ops.xp.where(done, 0.0, log_prob)
        log_probs = ops.xp.concat([log_probs, log_prob[..., None]], 2)
        lengths = lengths + ~done
        tokens = ops.xp.concat([tokens, token[..., None]], 2)
        done = done | (token == eos_token_id)
        if on_token is not None:
            on_token(token, log_prob)
        if new + 1 == max_new_tokens or done.all():
            break
        rows.advance(token)
    return Generated(tokens[..., prompt_length:], lengths, log_probs)
