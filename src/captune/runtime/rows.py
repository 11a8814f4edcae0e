"""Captions being written: rows of pictures over one memory, whose keys stay where they were written."""

from __future__ import annotations

import numpy as np

from captune.core.exported import NEW, PAST
from captune.runtime.arrays import Array
from captune.runtime.memory import Memory, nothing_said
from captune.runtime.sessions import Session

# Steps for which room is made at once: what is said is copied once in so many steps, and a
# session meets few shapes.
STEPS = 8


class Rows:
    """`each` captions of every picture, all behind the same prompt length.

    The captions of a picture are query rows over one memory that is never copied. A beam that
    goes on from another one sees that one's keys through `ancestors` (pictures, each, steps):
    the row in which each of its tokens was written. `logits` (pictures, 1 or each, vocabulary)
    are those of the next token.
    """

    def __init__(self, text: Session, memory: Memory, prompts: Array, each: int) -> None:
        pictures, self.given = prompts.shape
        self.text, self.each, self.memory = text, each, memory
        self.said = nothing_said(memory)
        self.room = self.used = 0
        self.own = np.arange(each)
        self.ancestors = np.empty((pictures, each, 0), np.int64)
        causal = np.triu(np.full((self.given, self.given), -np.inf, np.float32), 1)
        mask = np.ascontiguousarray(np.broadcast_to(causal, (pictures, 1, self.given, self.given)))
        self.logits = self._step(prompts, np.arange(self.given), mask)[:, -1:]

    def advance(self, tokens: Array, parents: Array | None = None) -> None:
        """Append `tokens` (pictures, each), each behind the row of `parents` (None: its own)."""
        pictures, steps = len(tokens), self.ancestors.shape[2]
        if parents is not None:
            self.ancestors = np.take_along_axis(self.ancestors, parents[:, :, None], 1)
        mask = self._mask()
        written = np.broadcast_to(self.own[None, :, None], (pictures, self.each, 1))
        self.ancestors = np.concatenate([self.ancestors, written], 2)
        self.logits = self._step(np.ascontiguousarray(tokens), np.full(self.each, self.given + steps), mask)

    def _step(self, tokens: Array, positions: Array, mask: Array) -> Array:
        """Logits (pictures, rows, vocabulary); keys and values are put behind those of before."""
        found = self.text(tokens=tokens, positions=positions, mask=mask, **self.memory, **self.said)
        end = self.used + tokens.shape[1]
        if end > self.room:
            self._make_room(end + STEPS * self.each)
        for name, held in self.said.items():
            held[:, :, self.used : end] = found[name.replace(PAST, NEW)]
        self.used = end
        return found["logits"]

    def _make_room(self, slots: int) -> None:
        for name, held in self.said.items():
            pictures, heads, _, width = held.shape
            # Zeros: what is masked must still be a number.
            self.said[name] = np.zeros((pictures, heads, slots, width), np.float32)
            self.said[name][:, :, : self.used] = held[:, :, : self.used]
        self.room = slots

    def _mask(self) -> Array:
        """What each row sees: the whole prompt, of every step the row it descends from, and itself."""
        pictures, slots = len(self.ancestors), self.room
        mask = np.full((pictures, 1, self.each, slots + self.each), -np.inf, np.float32)
        mask[..., : self.given] = 0
        seen = self.ancestors[:, :, :, None] == self.own
        mask[:, 0, :, self.given : self.used][seen.reshape(pictures, self.each, -1)] = 0
        mask[:, :, self.own, slots + self.own] = 0
        return mask
