"""The captions of a search: while they are written, by any decoder with a KV cache, and when they are done."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import exp
from typing import Protocol

import numpy as np

from captune.decoding.ops import Array, ArrayOps


class CachedDecoder(Protocol):
    """A text decoder over a batch of images, with its KV cache, whose slots are never moved.

    A row is one caption of an image. After the prompt, each step fills a slot for each row of an image.
    """

    def prefill(self, prompts: Array, rows: int, max_new_tokens: int) -> Array:
        """Logits (images, 1, vocabulary) behind prompts (images, tokens); `rows` captions of each image will follow."""
        ...

    def step(self, tokens: Array, position: int, visible: Array | None) -> Array:
        """Logits (images, rows, vocabulary) behind tokens (images, rows) at a position.

        `visible` (images, rows, slots) says which slots behind the prompt each row attends to, those of this step
        included; None: all of them.
        """
        ...


class Rows:
    """`count` captions of every image, all behind prompts (images, tokens) of one length.

    Attention has no order among its queries, so the captions of an image are query rows over one cache that is never
    copied. A beam that continues another one attends to that one's keys through `ancestors` (images, count, steps):
    the row in which each of its tokens was written. `logits` (images, 1 or count, vocabulary) are those of the next
    token.
    """

    def __init__(self, decoder: CachedDecoder, ops: ArrayOps, prompts: Array, count: int, max_new_tokens: int) -> None:
        images, self.position = prompts.shape
        self.decoder, self.ops, self.count = decoder, ops, count
        self.row = ops.array(list(range(count)))
        self.ancestors = ops.full((images, count, 0), 0)
        self.logits = decoder.prefill(prompts, count, max_new_tokens)

    def advance(self, tokens: Array, parents: Array | None = None) -> None:
        """Append `tokens` (images, count), each behind the row of `parents` (None: its own)."""
        visible = None if self.count == 1 else self._visible(len(tokens), parents)
        self.logits = self.decoder.step(tokens, self.position, visible)
        self.position += 1

    def _visible(self, images: int, parents: Array | None) -> Array:
        if parents is not None:
            self.ancestors = self.ops.gather(self.ancestors, parents[:, :, None], 1)
        written = self.ops.xp.broadcast_to(self.row[None, :, None], (images, self.count, 1))
        self.ancestors = self.ops.xp.concat([self.ancestors, written], 2)
        return (self.ancestors[..., None] == self.row).reshape(images, self.count, -1)


@dataclass(frozen=True)
class Generated:
    """Captions as tokens (images, captions, width) without their prompts.

    `lengths` (images, captions) count tokens, the end included; `log_probs` (images, captions, width) are
    the log-likelihoods that the model itself gives each, 0 behind the end.
    """

    tokens: Array
    lengths: Array
    log_probs: Array

    def captions(self) -> Iterator[list[tuple[list[int], list[float]]]]:
        """Each image's captions as tokens and their log-likelihoods."""
        for image in zip(self.tokens.tolist(), self.lengths.tolist(), self.log_probs.tolist(), strict=True):
            yield [(row[:length], log_probs[:length]) for row, length, log_probs in zip(*image, strict=True)]


def confidence_of(log_probs: Sequence[float]) -> float:
    """The geometric mean of tokens' probabilities, 0-1.

    Added up in fp32: what the last bit of a token's logits owes to the batch it was computed in is rounded away.
    """
    return exp(float(reduce(np.add, np.asarray(log_probs, np.float32), np.float32(0))) / max(1, len(log_probs)))
