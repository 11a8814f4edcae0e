"""A captioner as two graphs, vision and next token, with the model's facts and its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import captune
from captune.core.errors import CaptuneError
from captune.core.exported import (
    MEMORY,
    PAST,
    TEXT,
    TOKENIZER,
    VISION,
    Exported,
    ExportedPixels,
    layer_names,
    output_names,
)
from captune.core.files import write_text
from captune.models.backbone import Backbone
from captune.models.decoder import KVCache
from captune.models.layers.fused import with_plain_weights
from captune.models.layers.text_decoder import TextDecoder


def describe(backbone: Backbone, graphs: Graphs, *, model: str, target: str, precision: str, opset: int) -> Exported:
    """The facts of a model loaded by the name `model`; its check is still empty."""
    pixels = backbone.pixels
    return Exported(
        family=backbone.family,
        model=model,
        digest=digest(backbone.model),
        target=target,
        precision=precision,
        pixels=ExportedPixels(pixels.size, pixels.resample, pixels.shorter, tuple(pixels.mean), tuple(pixels.std)),
        start=backbone.bos_token_id,
        end=backbone.eos_token_id,
        pad=backbone.pad_token_id,
        longest=backbone.max_length,
        prompt=backbone.prompt,
        generation=dict(backbone.generation),
        layers=graphs.layers,
        heads=graphs.heads,
        head_width=graphs.head_width,
        places=graphs.places,
        vocabulary=graphs.vocabulary,
        clean_up=cleans_up(backbone.tokenizer),
        opset=opset,
        captune=captune.__version__,
    )


def digest(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights with their names, in order."""
    sha = hashlib.sha256()
    for name, value in model.state_dict().items():
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """`tokenizer.json`, as the package `tokenizers` reads it; it pads and cuts nothing.

    Raises `CaptuneError` for a tokenizer that is written in Python.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CaptuneError(
            f"The tokenizer of this model ({type(tokenizer).__name__}) is not one of the package tokenizers.",
            "Save the model with a fast tokenizer, then export it.",
        )
    from tokenizers import Tokenizer

    plain = Tokenizer.from_str(backend.to_str())
    plain.no_padding()
    plain.no_truncation()
    write_text(folder / TOKENIZER, plain.to_str())


def cleans_up(tokenizer: Any) -> bool:
    """Whether `transformers` takes spaces before punctuation out of what this tokenizer decodes.

    For byte-pair encodings it ignores the setting, unless another setting forces it.
    """
    kind = type(tokenizer.backend_tokenizer.model).__name__
    forced = getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return bool(tokenizer.clean_up_tokenization_spaces) and (kind != "BPE" or bool(forced))


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


class VisionGraph(nn.Module):
    """`pixels` (images, 3, size, size), uint8, to what all captions of an image attend to.

    That is the keys of every layer, then the values of every layer, each (images, heads, places, head width),
    fp32. The vision part runs as `transformers` lays it out, whatever its kind.
    """

    def __init__(self, backbone: Backbone, decoder: TextDecoder) -> None:
        super().__init__()
        self.model, self.backbone, self.decoder = backbone.model, replace(backbone, fused_vision=False), decoder

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        image_kv = self.decoder.prefill(self.backbone.encode(self.backbone.pixels.normalise(inputs["pixels"])))
        return (*(keys for keys, _ in image_kv), *(values for _, values in image_kv))


class TextGraph(nn.Module):
    """A step of the text part as `TextDecoder.step`, its keys and values handed in and out."""

    def __init__(self, decoder: TextDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Logits (images, rows, vocabulary), and the new keys and values, to be put behind `said_…`."""
        past = _Appended(self._pairs(PAST, inputs))
        tokens, positions, mask = (inputs[name] for name in ("tokens", "positions", "mask"))
        hidden = self.decoder.step(tokens, positions, self._pairs(MEMORY, inputs), past, mask)
        return self.decoder.logits(hidden), *past.new_keys, *past.new_values

    def _pairs(self, name: str, inputs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each layer."""
        layers = self.decoder.num_layers
        tensors = [inputs[each] for each in layer_names(name, layers)]
        return list(zip(tensors[:layers], tensors[layers:], strict=True))


class _Appended(KVCache):
    """Keys and values of each layer, unchanged; the new ones are collected apart as well."""

    def __init__(self, before: list[tuple[Tensor, Tensor]]) -> None:
        self.before, self.length = before, before[0][0].shape[2]
        self.new_keys: list[Tensor] = []
        self.new_values: list[Tensor] = []

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.new_keys.append(keys)
        self.new_values.append(values)
        past = self.before[layer]
        return torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)


def graphs_of(backbone: Backbone) -> Graphs:
    """The graphs of a model in fp32 on the CPU; raises `CaptuneError` where it has no text decoder of captune."""
    decoder = backbone.text_decoder()
    if not isinstance(decoder, TextDecoder):
        raise CaptuneError(
            f"This {backbone.family} cannot be exported: captune makes graphs of its own text decoders alone.",
            f"{backbone.other_runtimes} BLIP, GIT, and CLIP+GPT-2 or another vision encoder with a GPT-2 can.".lstrip(),
        )
    decoder = with_plain_weights(decoder)
    vision, layers, side = VisionGraph(backbone, decoder), decoder.num_layers, backbone.pixels.size
    pixels = {"pixels": torch.zeros(2, 3, side, side, dtype=torch.uint8)}
    with torch.inference_mode():
        memory = dict(zip(layer_names(MEMORY, layers), (each.clone() for each in vision(pixels)), strict=True))
    places, vocabulary = memory["memory_keys_0"].shape[2], decoder.token_embeddings.shape[0]
    vision_graph = Graph(vision, pixels, {"pixels": {0: "pictures"}}, output_names(VISION, layers))
    text_graph = _text_graph(decoder, memory)
    return Graphs(vision_graph, text_graph, vocabulary, layers, decoder.num_heads, decoder.head_dim, places)


def _text_graph(decoder: TextDecoder, memory: Mapping[str, Tensor]) -> Graph:
    """The text graph; the varying sizes of its example are all different, so that none is taken for another."""
    images, rows, slots = len(memory["memory_keys_0"]), 3, 5
    past_names = layer_names(PAST, decoder.num_layers)
    example = {
        "tokens": torch.zeros(images, rows, dtype=torch.long),
        "positions": torch.zeros(rows, dtype=torch.long),
        "mask": torch.zeros(images, 1, rows, slots + rows),
        **memory,
        **{name: torch.zeros(images, decoder.num_heads, slots, decoder.head_dim) for name in past_names},
    }
    varying = {
        "tokens": {0: "pictures", 1: "rows"},
        "positions": {0: "rows"},
        "mask": {0: "pictures", 2: "rows", 3: "slots_and_rows"},
        **{name: {0: "pictures"} for name in memory},
        **{name: {0: "pictures", 2: "slots"} for name in past_names},
    }
    return Graph(TextGraph(decoder), example, varying, output_names(TEXT, decoder.num_layers))
