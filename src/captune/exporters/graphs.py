"""A captioner as two graphs: what sees a picture, and what says the next token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captune.core.errors import CaptuneError
from captune.core.exported import TEXT_INPUTS, TEXT_OUTPUTS, VISION_OUTPUTS
from captune.models.backbone import Backbone
from captune.models.dense import unpacked
from captune.models.stepper import KeyValues
from captune.models.text_stack import TextStack


@dataclass(frozen=True)
class Graph:
    """A module ready to be traced: an example of each input by name, which of their sizes vary, names of outputs."""

    module: nn.Module
    example: Mapping[str, Tensor]
    varying: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graphs:
    """Both graphs of a model, and the number of its tokens."""

    vision: Graph
    text: Graph
    vocabulary: int


class Seeing(nn.Module):
    """Pixels (pictures, 3, size, size), uint8, to the keys and values that all captions of a picture attend to.

    Both are (layers, pictures, heads, places, head width), fp32. The vision part runs as `transformers`
    lays it out, whatever its kind.
    """

    def __init__(self, backbone: Backbone, stack: TextStack) -> None:
        super().__init__()
        self.model, self.backbone, self.stack = backbone.model, replace(backbone, own_vision=False), stack

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        recalled = self.stack.recall(self.backbone.encode(self.backbone.pixels.normalise(pixels)))
        return torch.stack([keys for keys, _ in recalled]), torch.stack([values for _, values in recalled])


class Saying(nn.Module):
    """A step of the text part as `TextStack.step`, its keys and values handed in and out."""

    def __init__(self, stack: TextStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        memory_keys: Tensor,
        memory_values: Tensor,
        said_keys: Tensor,
        said_values: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (pictures, rows, vocabulary), and the new keys and values, to be put behind `said_…`."""
        recalled = list(zip(memory_keys.unbind(), memory_values.unbind(), strict=True))
        said = _Appended(said_keys, said_values)
        hidden = self.stack.step(tokens, positions, recalled, said, mask)
        return self.stack.logits(hidden), torch.stack(said.new_keys), torch.stack(said.new_values)


class _Appended(KeyValues):
    """Keys and values that stay as they were given; what comes is put behind them and kept apart as well."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__(keys, values)
        self.new_keys: list[Tensor] = []
        self.new_values: list[Tensor] = []

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.new_keys.append(keys)
        self.new_values.append(values)
        return torch.cat([self.keys[layer], keys], 2), torch.cat([self.values[layer], values], 2)


def exportable_stack(backbone: Backbone) -> TextStack:
    """The text part in plain weights; raises `CaptuneError` for a model whose captions `transformers` searches for."""
    stack = backbone.stepper()
    if isinstance(stack, TextStack):
        return unpacked(stack)
    raise CaptuneError(
        f"This {backbone.family} cannot be exported: its captions are searched for by transformers, not by captune.",
        "BLIP, GIT, and CLIP+GPT-2 or another vision encoder with a GPT-2 can.",
    )


def graphs_of(backbone: Backbone) -> Graphs:
    """The seeing and the saying graph of a model in fp32 on the CPU; raises `CaptuneError` where it has none."""
    stack = exportable_stack(backbone)
    seeing = Seeing(backbone, stack)
    side = backbone.pixels.size
    pixels = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    with torch.inference_mode():
        keys, values = seeing(pixels)
    vision = Graph(seeing, {"pixels": pixels}, {"pixels": {0: "pictures"}}, VISION_OUTPUTS)
    text = Graph(Saying(stack), _said_example(stack, keys.clone(), values.clone()), _VARYING, TEXT_OUTPUTS)
    return Graphs(vision, text, stack.words.shape[0])


_SAID = {1: "pictures", 3: "slots"}
_VARYING: dict[str, dict[int, str]] = {
    "tokens": {0: "pictures", 1: "rows"},
    "positions": {0: "rows"},
    "memory_keys": {1: "pictures"},
    "memory_values": {1: "pictures"},
    "said_keys": _SAID,
    "said_values": _SAID,
    "mask": {0: "pictures", 2: "rows", 3: "slots_and_rows"},
}


def _said_example(stack: TextStack, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
    """Inputs of the saying graph whose varying sizes are all different, so that none is taken for another."""
    pictures, rows, slots = keys.shape[1], 3, 5
    said = torch.zeros(stack.layers, pictures, stack.heads, slots, stack.head_width)
    inputs: tuple[Any, ...] = (
        torch.zeros(pictures, rows, dtype=torch.long),
        torch.zeros(rows, dtype=torch.long),
        keys,
        values,
        said,
        said.clone(),
        torch.zeros(pictures, 1, rows, slots + rows),
    )
    return dict(zip(TEXT_INPUTS, inputs, strict=True))
