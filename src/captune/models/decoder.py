"""The protocol of a text decoder that writes captions token by token, many captions of an image at once."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class KVCache:
    """Keys and values of the tokens so far, preallocated: nothing is moved later.

    `keys` and `values` are (layers, images, heads, slots, head width); the first `length` slots are filled.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (images, heads, new, head width) behind the filled slots; returns all of the layer, these included."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Decoder(ABC):
    """A text decoder ready to generate: fused weights, no dropout, no gradients.

    `num_layers`, `num_heads` and `head_dim` are those of its self-attention.
    """

    num_layers: int
    num_heads: int
    head_dim: int

    @abstractmethod
    def prefill(self, memory: Tensor) -> Any:
        """What all captions of an image attend to, computed once from its memory (images, length, width)."""

    @abstractmethod
    def step(self, tokens: Tensor, positions: Tensor, image_kv: Any, cache: KVCache, mask: Tensor | None) -> Tensor:
        """Hidden states (images, rows, hidden size) of tokens (images, rows) at positions (rows,).

        `image_kv` comes from `prefill`. Keys and values of the tokens are appended to `cache`. `mask` (images or 1,
        1, rows, slots) is added to the attention over the cache, these tokens included; None: nothing is masked.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token (…, vocabulary), fp32."""

    def new_cache(self, images: int, slots: int, like: Tensor) -> KVCache:
        """An empty cache in the number type and on the device of `like`."""
        shape = (self.num_layers, images, self.num_heads, slots, self.head_dim)
        return KVCache(like.new_empty(shape), like.new_empty(shape))


def causal_mask(steps: int, like: Tensor) -> Tensor | None:
    """Each of `steps` tokens attends to itself and those before it; None for one."""
    if steps == 1:
        return None
    return torch.full((1, 1, steps, steps), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


class BatchDecoder:
    """A `Decoder` over the memory of a batch of images: a `captune.decoding.rows.CachedDecoder`."""

    def __init__(self, decoder: Decoder, memory: Tensor) -> None:
        self.decoder, self.memory, self.image_kv = decoder, memory, decoder.prefill(memory)

    def prefill(self, prompts: Tensor, rows: int, max_new_tokens: int) -> Tensor:
        images, self.prompt_length = prompts.shape
        self.cache = self.decoder.new_cache(images, self.prompt_length + max_new_tokens * rows, self.memory)
        positions = torch.arange(self.prompt_length, device=prompts.device)
        mask = causal_mask(self.prompt_length, self.memory)
        hidden = self.decoder.step(prompts, positions, self.image_kv, self.cache, mask)
        return self.decoder.logits(hidden[:, -1:])

    def step(self, tokens: Tensor, position: int, visible: Tensor | None) -> Tensor:
        positions = torch.full((tokens.shape[1],), position, device=tokens.device)
        mask = None if visible is None else self._mask(visible)
        return self.decoder.logits(self.decoder.step(tokens, positions, self.image_kv, self.cache, mask))

    def _mask(self, visible: Tensor) -> Tensor:
        """0 for the prompt and what is visible, else -inf: (images, 1, rows, slots)."""
        images, rows, slots = visible.shape
        mask = self.memory.new_zeros(images, 1, rows, self.prompt_length + slots)
        mask[:, 0, :, self.prompt_length :].masked_fill_(~visible, float("-inf"))
        return mask
