"""An exported model against the one it was made of: the same pictures, the same search, number by number."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captune.core.options import GenerationOptions
from captune.engine.decoding.generate import prefix_of, search_own
from captune.models.backbone import Backbone
from captune.models.stepper import Stepper, causal_mask

# Tokens that are read behind a caption when scores are compared.
MORE = 8


@dataclass(frozen=True)
class Spoken:
    """Captions of the same pictures by a model and by its export, as tokens and as text.

    `ratio` is how many times as fast the export was, the median over batches.
    """

    tokens: tuple[tuple[int, ...], ...]
    theirs: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    their_texts: tuple[str, ...]
    ratio: float

    @property
    def identical(self) -> float:
        """The share of pictures with the same caption, token by token."""
        return statistics.fmean(a == b for a, b in zip(self.tokens, self.theirs, strict=True))

    @property
    def different(self) -> list[int]:
        """The numbers of the pictures whose captions differ."""
        return [n for n, (a, b) in enumerate(zip(self.tokens, self.theirs, strict=True)) if a != b]


def speak_both(
    backbone: Backbone, exported: Stepper, batches: Iterable[np.ndarray], options: GenerationOptions
) -> Spoken:
    """The best caption of each picture of batches (pictures, 3, size, size), uint8, by both, batch by batch in turn."""
    stepper = backbone.stepper()
    assert stepper is not None, "what is exported has a stepper"
    tokens: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = ([], [])
    ratios = []
    for batch in batches:
        pixels = torch.from_numpy(batch)
        seconds = []
        for found, each in zip(tokens, (stepper, exported), strict=True):
            started = time.perf_counter()
            with torch.inference_mode():
                # What an export remembers of a picture it makes of the pixels themselves.
                memory = backbone.memory(pixels) if each is stepper else pixels.float()
                found += _captions(backbone, each, memory, options)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
    mine, theirs = (tuple(_text(backbone, one) for one in found) for found in tokens)
    return Spoken(tuple(tokens[0]), tuple(tokens[1]), mine, theirs, statistics.median(ratios))


def nearness(backbone: Backbone, exported: Stepper, pixels: np.ndarray, caption: Sequence[int]) -> tuple[float, float]:
    """How far an export's memory and its scores along a caption are from its model's.

    Both as the largest difference over the largest value. `pixels` (1, 3, size, size), uint8; `caption` are tokens
    without start and prompt, behind which some more are read: a model may say nothing of a picture. Both read them
    over the model's memory, so that each graph answers for itself.
    """
    stepper = backbone.stepper()
    assert stepper is not None, "what is exported has a stepper"
    prefix = prefix_of(backbone, GenerationOptions(max_new_tokens=1), None)
    more = (31 * n % len(backbone.tokenizer) for n in range(MORE))
    tokens = torch.tensor([[*prefix, *caption, *more][: backbone.longest]])
    picture = torch.from_numpy(pixels)
    with torch.inference_mode():
        memory = backbone.memory(picture)
        recalled = stepper.recall(memory)
        mine = [torch.stack([pair[n] for pair in recalled]).numpy() for n in range(2)]
        far = max(_far(*pair) for pair in zip(mine, exported.recall(picture.float()), strict=True))
        return far, _far(_scores(stepper, recalled, tokens, memory), _scores(exported, mine, tokens, memory))


def _captions(
    backbone: Backbone, stepper: Stepper, memory: Tensor, options: GenerationOptions
) -> list[tuple[int, ...]]:
    prefix = torch.tensor([prefix_of(backbone, options, options.prompt)]).expand(len(memory), -1)
    written = search_own(backbone, stepper, memory, prefix, options)
    best = zip(written.tokens[:, 0].tolist(), written.lengths[:, 0].tolist(), strict=True)
    return [tuple(row[:length]) for row, length in best]


def _text(backbone: Backbone, tokens: Sequence[int]) -> str:
    return backbone.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()


def _scores(stepper: Stepper, recalled: Any, tokens: Tensor, like: Tensor) -> np.ndarray:
    """Scores (1, steps, vocabulary) along tokens (1, steps), read at once."""
    steps = tokens.shape[1]
    said = stepper.room(1, steps, like)
    return stepper.logits(stepper.step(tokens, torch.arange(steps), recalled, said, causal_mask(steps, like))).numpy()


def _far(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Infinite where a shape differs or a number is none."""
    if mine.shape != theirs.shape or not np.isfinite(theirs).all():
        return float("inf")
    return float(np.abs(mine - theirs).max() / max(1e-12, np.abs(mine).max()))
