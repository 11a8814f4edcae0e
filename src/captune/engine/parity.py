"""An exported model against the one it was made of: the same pictures, the same search, number by number."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from captune.core.exported import MEMORY
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.engine.captioning import caption_pixels
from captune.models.backbone import Backbone
from captune.runtime import ExportedModel
from captune.runtime.decoder import empty_cache

# Tokens that are read behind a caption when scores are compared.
MORE = 8


@dataclass(frozen=True)
class Spoken:
    """Captions of the same pictures by a model and by its export.

    `ratio` is how many times as fast the export was, the median over batches.
    """

    mine: tuple[Caption, ...]
    theirs: tuple[Caption, ...]
    ratio: float

    @property
    def identical(self) -> float:
        """The share of pictures with the same caption, token by token."""
        return 1 - len(self.different) / len(self.mine)

    @property
    def different(self) -> list[int]:
        """The numbers of the pictures whose captions differ."""
        return [n for n, (a, b) in enumerate(zip(self.mine, self.theirs, strict=True)) if a.tokens != b.tokens]


def speak_both(
    backbone: Backbone, export: ExportedModel, batches: Iterable[np.ndarray], options: GenerationOptions
) -> Spoken:
    """The best caption of each picture of batches (pictures, 3, size, size), uint8, by both, batch by batch in turn."""
    mine: list[Caption] = []
    theirs: list[Caption] = []
    ratios = []
    for pixels in batches:
        started = time.perf_counter()
        mine += (captions[0] for captions in caption_pixels(backbone, pixels, options))
        between = time.perf_counter()
        theirs += (captions[0] for captions in export.generate(pixels, options))
        ratios.append((between - started) / (time.perf_counter() - between))
    return Spoken(tuple(mine), tuple(theirs), statistics.median(ratios))


def nearness(
    backbone: Backbone, export: ExportedModel, pixels: np.ndarray, caption: Sequence[int]
) -> tuple[float, float]:
    """How far an export's memory and its scores along a caption are from its model's.

    Both as the largest difference over the largest value. `pixels` (1, 3, size, size), uint8; `caption` are tokens
    without start and prompt, behind which some more are read: a model may say nothing of a picture. Both read them
    over the model's memory, so that each graph answers for itself.
    """
    decoder = backbone.text_decoder()
    assert decoder is not None, "what is exported has a decoder"
    prefix = backbone.codec.prefix(None, GenerationOptions(max_new_tokens=1))
    more = (31 * n % len(backbone.tokenizer) for n in range(MORE))
    tokens = np.array([[*prefix, *caption, *more][: backbone.max_length]])
    positions = np.arange(tokens.shape[1])
    mask = np.triu(np.full((1, 1, len(positions), len(positions)), -np.inf, np.float32), 1)
    with torch.inference_mode():
        seen = backbone.image_features(torch.from_numpy(pixels))
        image_kv = decoder.prefill(seen)
        said = decoder.new_cache(1, len(positions), seen)
        given = [torch.from_numpy(each) for each in (tokens, positions, mask)]
        scores = decoder.logits(decoder.step(given[0], given[1], image_kv, said, given[2])).numpy()
    memory = {
        f"{MEMORY}_{kind}_{layer}": each.numpy()
        for layer, pair in enumerate(image_kv)
        for kind, each in zip(("keys", "values"), pair, strict=True)
    }
    theirs = export.memory(pixels)
    found = export.text(tokens=tokens, positions=positions, mask=mask, **memory, **empty_cache(memory))
    return max(_far(mine, theirs[name]) for name, mine in memory.items()), _far(scores, found["logits"])


def _far(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Infinite where a shape differs or a number is none."""
    if mine.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf")
    return float(np.abs(mine - theirs).max() / max(1e-12, np.abs(mine).max()))
