"""An export held against its model: the same pictures, the same captions, or a reason to refuse it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.progress import Progress, track

if TYPE_CHECKING:
    from captune.models.backbone import Backbone
    from captune.runtime import ExportedModel

BATCH = 8
# The largest difference over the largest value that fp32 may show. Trained models were within 1e-5; attention that
# random weights have driven to extremes turns 1e-7 into 1e-3.
MEMORY, SCORES = 1e-3, 5e-3
SHOWN = 3


@dataclass(frozen=True)
class SearchCheck:
    """A search by model and export: the share of pictures with the same caption, and how many times as fast it was."""

    name: str
    beams: int
    identical: float
    speed: float
    differences: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Check:
    """What the comparison found.

    `memory` and `logits` are the largest difference over the largest value; `searches` the captions.
    """

    pictures: int
    source: str
    memory: float
    logits: float
    searches: tuple[SearchCheck, ...]

    @property
    def identical(self) -> float:
        """The smallest share of pictures with the same caption, over the searches."""
        return min(search.identical for search in self.searches)


def check(
    backbone: Backbone,
    export: ExportedModel,
    pixels: Sequence[np.ndarray],
    *,
    source: str,
    progress: Progress,
) -> Check:
    """Compare memory, scores and captions (greedy and with the model's beams) on pixels (3, size, size) of pictures."""
    from captune.engine.parity import nearness, speak_both

    searches: list[SearchCheck] = []
    tokens: Sequence[Sequence[int]] = ()
    for name, options in searches_of(backbone):
        batches = track(batched(pixels), progress, f"Checking {name}", -(-len(pixels) // BATCH))
        spoken = speak_both(backbone, export, batches, options)
        if not searches:
            tokens = [caption.tokens for caption in spoken.mine]
        compare_words(backbone, export, (caption.tokens for caption in (*spoken.mine, *spoken.theirs)))
        differences = tuple((spoken.mine[n].text, spoken.theirs[n].text) for n in spoken.different[:SHOWN])
        searches.append(SearchCheck(name, options.num_beams, spoken.identical, spoken.ratio, differences))
    pairs = zip(pixels, tokens, strict=True)
    found = [
        nearness(backbone, export, one[None], caption)
        for one, caption in track(pairs, progress, "Checking numbers", len(pixels))
    ]
    memory, logits = (max(each) for each in zip(*found, strict=True))
    return Check(len(pixels), source, memory, logits, tuple(searches))


def searches_of(backbone: Backbone) -> list[tuple[str, GenerationOptions]]:
    """Greedy, and a search with beams: the model's own options, as far as they leave nothing to chance."""
    changed = {"sample": False, "variations": 0, "num_captions": 1, "prompt": None}
    own = GenerationOptions(**{**backbone.generation, **changed})
    room = backbone.max_length - 1 - len(backbone.tokenize(backbone.prompt))
    own = own.model_copy(update={"max_new_tokens": min(own.max_new_tokens, room)})
    beams = own.num_beams if own.num_beams > 1 else GenerationOptions().num_beams
    return [
        ("greedy", own.model_copy(update={"num_beams": 1})),
        (f"{beams} beams", own.model_copy(update={"num_beams": beams})),
    ]


def refuse_other(found: Check) -> None:
    """Raise `CaptuneError` where an fp32 export does not say what its model says."""
    changed = [search for search in found.searches if search.identical < 1]
    if changed:
        mine, theirs = changed[0].differences[0]
        share = f"{1 - changed[0].identical:.0%} of {found.pictures} pictures"
        raise CaptuneError(
            f"The export was not written: by {changed[0].name} it says something else on {share}, "
            f"for example “{theirs}” instead of “{mine}”. Its scores are off by {found.logits:.1e} of the largest.",
            "Update onnx, onnxscript and onnxruntime; if it stays so, please report it with the model's name.",
        )
    if found.memory > MEMORY or found.logits > SCORES:
        raise CaptuneError(
            f"The export was not written: what it sees is off by {found.memory:.1e} of the largest value, its scores "
            f"by {found.logits:.1e} (at most {MEMORY:.0e} and {SCORES:.0e}).",
            "Update onnx, onnxscript and onnxruntime; if it stays so, please report it with the model's name.",
        )


def refuse_few(found: Check, least: float) -> None:
    """Raise `CaptuneError` where an int8 export changes more captions than asked for, or sees no numbers at all."""
    worst = min(found.searches, key=lambda search: search.identical)
    if worst.identical < least or not isfinite(found.memory + found.logits):
        raise CaptuneError(
            f"The export was not written: by {worst.name} it says the same as its model on {worst.identical:.0%} of "
            f"{found.pictures} pictures, less than {least:.0%}.",
            "Export without --int8; or accept it with a smaller --min-identical, after looking at --data's scores.",
        )


def compare_words(backbone: Backbone, export: ExportedModel, captions: Iterable[Sequence[int]]) -> None:
    """Raise `CaptuneError` where the exported tokenizer reads or writes another text than the model's."""
    for tokens in captions:
        text = backbone.tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
        if export.decode(tokens) != text or export.tokenize(text) != backbone.tokenize(text):
            raise CaptuneError(
                f"The export was not written: its tokenizer makes “{export.decode(tokens)}” of “{text}”.",
                "Update tokenizers and transformers; if it stays so, please report it with the model's name.",
            )


def batched(pixels: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pixels (3, size, size) as batches (pictures, 3, size, size)."""
    waiting = iter(pixels)
    while batch := list(islice(waiting, BATCH)):
        yield np.stack(batch)
