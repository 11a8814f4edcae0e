"""Captions being written: rows of pictures over one memory, whose keys stay where they were written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captune.models.stepper import Decoder, causal_mask


class Rows:
    """`each` captions of every picture, all behind the same prompt length.

    Cross-attention has no order among its queries, so the captions of a picture are query
    rows over one memory that is never copied. In self-attention a beam that goes on from
    another one sees that one's keys through `ancestors` (pictures, each, steps): the row in
    which each of its tokens was written. `logits` (pictures, 1 or each, vocabulary) are those
    of the next token.
    """

    def __init__(self, decoder: Decoder, image_kv: Any, memory: Tensor, prompts: Tensor, each: int, most: int) -> None:
        pictures, self.given = prompts.shape
        self.decoder, self.image_kv, self.each = decoder, image_kv, each
        self.said = decoder.new_cache(pictures, self.given + most * each, memory)
        self.own = torch.arange(each, device=memory.device)
        self.ancestors = self.own.new_empty(pictures, each, 0)
        positions = torch.arange(self.given, device=memory.device)
        hidden = decoder.step(prompts, positions, image_kv, self.said, causal_mask(self.given, memory))
        self.logits = decoder.logits(hidden[:, -1:])

    def advance(self, tokens: Tensor, parents: Tensor | None = None) -> None:
        """Append `tokens` (pictures, each), each behind the row of `parents` (None: its own)."""
        pictures, steps = len(tokens), self.ancestors.shape[2]
        if parents is not None:
            self.ancestors = self.ancestors.gather(1, parents[:, :, None].expand(-1, -1, steps))
        written = self.own[None, :, None].expand(pictures, -1, 1)
        self.ancestors = torch.cat([self.ancestors, written], 2)
        position = (self.own[:1] * 0 + self.given + steps).expand(self.each)
        hidden = self.decoder.step(tokens, position, self.image_kv, self.said, self._mask())
        self.logits = self.decoder.logits(hidden)

    def _mask(self) -> Tensor | None:
        """What each row sees: the whole prompt, and of every step the row it descends from."""
        if self.each == 1:
            return None
        seen = self.ancestors[:, :, :, None] == self.own
        pictures, rows = seen.shape[:2]
        blocked = self.said.keys.new_zeros(pictures, 1, rows, self.given + seen[0, 0].numel())
        blocked[:, 0, :, self.given :].masked_fill_(~seen.flatten(2), float("-inf"))
        return blocked
