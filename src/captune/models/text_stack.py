"""Text transformers for generation: a picture's keys and values once, all its captions as rows over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from captune.models.attention import attend_now, attention
from captune.models.dense import Dense, Norm, join_heads, split_heads
from captune.models.stepper import KeyValues, Stepper


@dataclass
class Cross:
    """Attention to the picture."""

    norm: Norm
    asked: Dense
    remembered: Dense
    out: Dense


@dataclass
class Layer:
    """Attention to what was said, attention to the picture where it has one, and the wide part."""

    norm: Norm
    own: Dense
    out: Dense
    cross: Cross | None
    wide_norm: Norm
    up: Dense
    down: Dense


class TextStack(Stepper):
    """A text part laid out in a number type.

    With `norms_first` each norm stands before its part (GPT-2), else behind the sum (BERT).
    Without cross-attention the picture is a prefix: its rows pass the layers once, seeing one
    another, and words see their keys and values (GIT). `bridge` makes of the memory what they attend to.
    """

    def __init__(
        self,
        *,
        words: Tensor,
        positions: Tensor,
        layers: list[Layer],
        heads: int,
        head: Callable[[Tensor], Tensor],
        dtype: torch.dtype,
        norms_first: bool = False,
        first: Norm | None = None,
        last: Norm | None = None,
        bridge: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.words, self.positions = words.detach().to(dtype), positions.detach().to(dtype)
        self.layers, self.heads, self.head_width = len(layers), heads, words.shape[1] // heads
        self.stack, self.head, self.norms_first = layers, head, norms_first
        self.first, self.last, self.bridge = first, last, bridge

    def recall(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        found = []
        memory = memory if self.bridge is None else self.bridge(memory)
        for layer in self.stack:
            if layer.cross is not None:
                keys, values = split_heads(layer.cross.remembered(memory), 2, self.heads)
            else:
                query, keys, values = split_heads(layer.own(self._before(layer.norm, memory)), 3, self.heads)
                memory = self._behind(layer.norm, memory, layer.out(join_heads(attend_now(query, keys, values))))
                memory = self._wide(layer, memory)
            found.append((keys.contiguous(), values.contiguous()))
        return found

    def step(
        self,
        tokens: Tensor,
        positions: Tensor,
        recalled: list[tuple[Tensor, Tensor]],
        said: KeyValues,
        mask: Tensor | None,
        looked: list[Tensor] | None = None,
    ) -> Tensor:
        """As `Stepper.step`; `looked` gets each layer's attention (pictures, heads, rows, places) to the memory."""
        hidden = functional.embedding(tokens, self.words) + functional.embedding(positions, self.positions)
        hidden = hidden if self.first is None else self.first(hidden)
        for number, layer in enumerate(self.stack):
            query, keys, values = split_heads(layer.own(self._before(layer.norm, hidden)), 3, self.heads)
            keys, values = said.write(number, keys, values)
            if layer.cross is None:
                attended = _attend_both(query, recalled[number], (keys, values), mask, looked)
            else:
                attended = attend_now(query, keys, values, mask)
            hidden = self._behind(layer.norm, hidden, layer.out(join_heads(attended)))
            if layer.cross is not None:
                (query,) = split_heads(layer.cross.asked(self._before(layer.cross.norm, hidden)), 1, self.heads)
                if looked is not None:
                    looked.append(attention(query, recalled[number][0]))
                attended = attend_now(query, *recalled[number])
                hidden = self._behind(layer.cross.norm, hidden, layer.cross.out(join_heads(attended)))
            hidden = self._wide(layer, hidden)
        said.used += tokens.shape[1]
        return hidden if self.last is None else self.last(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden).float()

    def _wide(self, layer: Layer, hidden: Tensor) -> Tensor:
        return self._behind(layer.wide_norm, hidden, layer.down(layer.up(self._before(layer.wide_norm, hidden))))

    def _before(self, norm: Norm, hidden: Tensor) -> Tensor:
        return norm(hidden) if self.norms_first else hidden

    def _behind(self, norm: Norm, hidden: Tensor, found: Tensor) -> Tensor:
        return hidden + found if self.norms_first else norm(found + hidden)


def _attend_both(
    query: Tensor,
    picture: tuple[Tensor, Tensor],
    said: tuple[Tensor, Tensor],
    mask: Tensor | None,
    looked: list[Tensor] | None = None,
) -> Tensor:
    """One softmax over the picture's rows and what was said, without copying the first behind the second."""
    query = query * query.shape[-1] ** -0.5
    over_picture = torch.matmul(query, picture[0].transpose(-1, -2))
    over_said = torch.matmul(query, said[0].transpose(-1, -2))
    scores = torch.cat([over_picture, over_said if mask is None else over_said + mask], -1)
    weights = torch.softmax(scores, -1)
    split = over_picture.shape[-1]
    if looked is not None:
        looked.append(weights[..., :split])
    return torch.matmul(weights[..., :split], picture[1]) + torch.matmul(weights[..., split:], said[1])
