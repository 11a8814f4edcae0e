"""Captions token by token: the likeliest each time, or drawn by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captune.engine.decoding.penalties import Penalties
from captune.engine.decoding.rows import Rows


@dataclass(frozen=True)
class Written:
    """Captions as tokens (pictures, each, width) without their prompts.

    `lengths` (pictures, each) count tokens, the end included; `log_probs` (pictures, each) are
    the summed log-likelihoods that the model itself gives them.
    """

    tokens: Tensor
    lengths: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class Chance:
    """How tokens are drawn: temperature of each row (rows,), then the `top_k` likeliest, then `top_p` of them."""

    temperature: Tensor
    top_k: int
    top_p: float

    def narrowed(self, scores: Tensor) -> Tensor:
        """Scores (pictures, rows, vocabulary) that chance decides on; what it must not take is -inf."""
        scores = scores / self.temperature[:, None]
        if 0 < self.top_k < scores.shape[-1]:
            scores = scores.masked_fill(scores < scores.topk(self.top_k).values[..., -1:], float("-inf"))
        if self.top_p < 1:
            ordered, order = scores.sort(dim=-1)
            rest = ordered.softmax(-1).cumsum(-1) <= 1 - self.top_p
            rest[..., -1] = False  # one at least stays
            scores = scores.masked_fill(rest.gather(-1, order.argsort(-1)), float("-inf"))
        return scores

    def draw(self, scores: Tensor) -> Tensor:
        """A token for each row (pictures, rows)."""
        chances = self.narrowed(scores).softmax(-1)
        return torch.multinomial(chances.flatten(0, 1), 1).view(chances.shape[:2])


def write(
    rows: Rows,
    prompts: Tensor,
    penalties: Penalties,
    *,
    most: int,
    end: int,
    chance: Chance | None = None,
    on_token: Callable[[Tensor], None] | None = None,
) -> Written:
    """At most `most` tokens a row; without `chance` the likeliest. `on_token` gets each step's (pictures, rows)."""
    pictures, each = len(prompts), rows.each
    said = prompts[:, None].expand(-1, each, -1)
    done = torch.zeros(pictures, each, dtype=torch.bool, device=prompts.device)
    lengths = torch.zeros_like(done, dtype=torch.long)
    log_probs = torch.zeros(pictures, each, device=prompts.device)
    for new in range(most):
        logits = rows.logits.expand(-1, each, -1)
        scores = penalties(logits, said, new)
        token = scores.argmax(-1) if chance is None else chance.draw(scores)
        token = token.masked_fill(done, end)
        plain = logits.gather(2, token[..., None])[..., 0] - logits.logsumexp(-1)
        log_probs = torch.where(done, log_probs, log_probs + plain)
        lengths += ~done
        said = torch.cat([said, token[..., None]], 2)
        done = done | (token == end)
        if on_token is not None:
            on_token(token)
        if new + 1 == most or bool(done.all()):
            break
        rows.advance(token)
    return Written(said[..., prompts.shape[1] :], lengths, log_probs)
