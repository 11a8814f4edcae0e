"""The text graph of an export as the search calls it: with its KV cache in numpy arrays."""

from collections.abc import Mapping, Sequence

import numpy as np

from captune.core.exported import NEW, PAST, layer_names
from captune.decoding.ops import Array
from captune.inference.runtime.sessions import Session

# Steps for which slots are added at once: the cache is copied once in so many steps, and a session meets few shapes.
STEPS = 8

# Outputs of the vision graph, inputs of the text graph: `memory_keys_0` … and `memory_values_0` …, one of each a layer,
# each (images, heads, places, head width).
Memory = Mapping[str, Array]


def select(memory: Memory, images: Sequence[int]) -> Memory:
    """The memory of some of the images."""
    return {name: each[images] for name, each in memory.items()}


def empty_cache(memory: Memory) -> dict[str, Array]:
    """`said_keys_0` … and `said_values_0` … (images, heads, slots, head width) of no slots."""
    images, heads, _, width = memory["memory_keys_0"].shape
    names = layer_names(PAST, len(memory) // 2)
    return {name: np.zeros((images, heads, 0, width), np.float32) for name in names}


class SessionDecoder:
    """A text graph over the memory of a batch of images: a `captune.decoding.rows.CachedDecoder`."""

    def __init__(self, text: Session, memory: Memory) -> None:
        self.text, self.memory = text, memory
        self.cache = empty_cache(memory)
        self.slots = self.filled = self.prompt_length = self.rows = 0

    def prefill(self, prompts: Array, rows: int, max_new_tokens: int) -> Array:
        """Logits (images, 1, vocabulary) behind prompts (images, tokens). The cache grows later, as it is needed."""
        images, length = prompts.shape
        self.prompt_length, self.rows = length, rows
        mask = np.triu(np.full((images, 1, length, length), -np.inf, np.float32), 1)
        return self._run(prompts, np.arange(length), mask)[:, -1:]

    def step(self, tokens: Array, position: int, visible: Array | None) -> Array:
        """Logits (images, rows, vocabulary) behind tokens (images, rows) at a position."""
        images, rows = tokens.shape
        mask = np.full((images, 1, rows, self.slots + rows), -np.inf, np.float32)
        mask[..., : self.prompt_length] = 0
        own = np.arange(rows)
        mask[:, :, own, self.slots + own] = 0
        earlier = mask[:, 0, :, self.prompt_length : self.filled]
        earlier[... if visible is None else visible[..., : earlier.shape[2]]] = 0
        return self._run(np.ascontiguousarray(tokens), np.full(rows, position), mask)

    def _run(self, tokens: Array, positions: Array, mask: Array) -> Array:
        """Logits (images, rows, vocabulary); keys and values are appended to the cache."""
        outputs = self.text(tokens=tokens, positions=positions, mask=mask, **self.memory, **self.cache)
        end = self.filled + tokens.shape[1]
        if end > self.slots:
            self._grow(end + STEPS * self.rows)
        for name, cached in self.cache.items():
            cached[:, :, self.filled : end] = outputs[name.replace(PAST, NEW)]
        self.filled = end
        return outputs["logits"]

    def _grow(self, slots: int) -> None:
        for name, cached in self.cache.items():
            images, heads, _, width = cached.shape
            # Zeros: what is masked must still be a number.
            self.cache[name] = np.zeros((images, heads, slots, width), np.float32)
            self.cache[name][:, :, : self.filled] = cached[:, :, : self.filled]
        self.slots = slots
