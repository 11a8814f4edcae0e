"""The protocol of a text part that writes captions token by token, many captions of a picture at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class KeyValues:
    """Keys and values of what was said so far, where they were written: nothing is moved later.

    `keys` and `values` are (layers, pictures, heads, slots, head width); the first `used`
    slots hold something.
    """

    keys: Tensor
    values: Tensor
    used: int = 0

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put (pictures, heads, new, head width) behind what is there; returns all of the layer, these included."""
        end = self.used + keys.shape[2]
        self.keys[layer, :, :, self.used : end] = keys
        self.values[layer, :, :, self.used : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Stepper(ABC):
    """A text part ready to generate: weights laid out for it, no dropout, no gradients.

    `layers`, `heads` and `head_width` are those of its self-attention.
    """

    layers: int
    heads: int
    head_width: int

    @abstractmethod
    def recall(self, memory: Tensor) -> Any:
        """What all captions of a picture attend to, worked out once of memory (pictures, length, width)."""

    @abstractmethod
    def step(self, tokens: Tensor, positions: Tensor, recalled: Any, said: KeyValues, mask: Tensor | None) -> Tensor:
        """Hidden states (pictures, rows, hidden size) of tokens (pictures, rows) at positions (rows,).

        Their keys and values are written into `said`. `mask` (pictures or 1, 1, rows, slots) is
        added to the attention over what was said, these tokens included; None: all may be seen.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token (…, vocabulary), fp32."""

    def room(self, pictures: int, slots: int, like: Tensor) -> KeyValues:
        """Empty keys and values in the number type and on the device of `like`."""
        shape = (self.layers, pictures, self.heads, slots, self.head_width)
        return KeyValues(like.new_empty(shape), like.new_empty(shape))


def causal_mask(steps: int, like: Tensor) -> Tensor | None:
    """Each of `steps` tokens sees itself and those before it; None for one."""
    if steps == 1:
        return None
    return torch.full((1, 1, steps, steps), float("-inf"), dtype=like.dtype, device=like.device).triu(1)
