"""A captioner as two graphs: what sees a picture, and what says the next token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from captune.core.errors import CaptuneError
from captune.core.exported import MEMORY, PAST, TEXT, VISION, layer_names, output_names
from captune.models.backbone import Backbone
from captune.models.dense import unpacked
from captune.models.stepper import KeyValues
from captune.models.text_stack import TextStack


@dataclass(frozen=True)
class Graph:
    """A module of one argument, its inputs by name: an example of each, which of their sizes vary, names of outputs."""

    module: nn.Module
    example: Mapping[str, Tensor]
    varying: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graphs:
    """Both graphs of a model, the number of its tokens, and the sizes of its attention."""

    vision: Graph
    text: Graph
    vocabulary: int
    layers: int
    heads: int
    head_width: int
    places: int


class Seeing(nn.Module):
    """`pixels` (pictures, 3, size, size), uint8, to what all captions of a picture attend to.

    That is the keys of every layer, then the values of every layer, each (pictures, heads, places, head width),
    fp32. The vision part runs as `transformers` lays it out, whatever its kind.
    """

    def __init__(self, backbone: Backbone, stack: TextStack) -> None:
        super().__init__()
        self.model, self.backbone, self.stack = backbone.model, replace(backbone, own_vision=False), stack

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        recalled = self.stack.recall(self.backbone.encode(self.backbone.pixels.normalise(inputs["pixels"])))
        return (*(keys for keys, _ in recalled), *(values for _, values in recalled))


class Saying(nn.Module):
    """A step of the text part as `TextStack.step`, its keys and values handed in and out."""

    def __init__(self, stack: TextStack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Scores (pictures, rows, vocabulary), and the new keys and values, to be put behind `said_…`."""
        said = _Appended(self._pairs(PAST, inputs))
        tokens, positions, mask = (inputs[name] for name in ("tokens", "positions", "mask"))
        hidden = self.stack.step(tokens, positions, self._pairs(MEMORY, inputs), said, mask)
        return self.stack.logits(hidden), *said.new_keys, *said.new_values

    def _pairs(self, name: str, inputs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer."""
        found = [inputs[each] for each in layer_names(name, self.stack.layers)]
        return list(zip(found[: self.stack.layers], found[self.stack.layers :], strict=True))


class _Appended(KeyValues):
    """Keys and values of each layer that stay as they were given; what comes behind them is kept apart as well."""

    def __init__(self, before: list[tuple[Tensor, Tensor]]) -> None:
        self.before, self.used = before, before[0][0].shape[2]
        self.new_keys: list[Tensor] = []
        self.new_values: list[Tensor] = []

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.new_keys.append(keys)
        self.new_values.append(values)
        said = self.before[layer]
        return torch.cat([said[0], keys], 2), torch.cat([said[1], values], 2)


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
    pixels = {"pixels": torch.zeros(2, 3, side, side, dtype=torch.uint8)}
    with torch.inference_mode():
        memory = dict(zip(layer_names(MEMORY, stack.layers), (each.clone() for each in seeing(pixels)), strict=True))
    vision = Graph(seeing, pixels, {"pixels": {0: "pictures"}}, output_names(VISION, stack.layers))
    text = Graph(Saying(stack), _said_example(stack, memory), _varying(stack), output_names(TEXT, stack.layers))
    places = memory["memory_keys_0"].shape[2]
    return Graphs(vision, text, stack.words.shape[0], stack.layers, stack.heads, stack.head_width, places)


def _varying(stack: TextStack) -> dict[str, dict[int, str]]:
    return {
        "tokens": {0: "pictures", 1: "rows"},
        "positions": {0: "rows"},
        "mask": {0: "pictures", 2: "rows", 3: "slots_and_rows"},
        **{name: {0: "pictures"} for name in layer_names(MEMORY, stack.layers)},
        **{name: {0: "pictures", 2: "slots"} for name in layer_names(PAST, stack.layers)},
    }


def _said_example(stack: TextStack, memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs of the saying graph whose varying sizes are all different, so that none is taken for another."""
    pictures, rows, slots = len(memory["memory_keys_0"]), 3, 5
    said = torch.zeros(pictures, stack.heads, slots, stack.head_width)
    return {
        "tokens": torch.zeros(pictures, rows, dtype=torch.long),
        "positions": torch.zeros(rows, dtype=torch.long),
        "mask": torch.zeros(pictures, 1, rows, slots + rows),
        **memory,
        **{name: said.clone() for name in layer_names(PAST, stack.layers)},
    }
