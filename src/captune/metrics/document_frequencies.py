"""In how many images' references each n-gram stands: what CIDEr weighs n-grams with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from captune.metrics.ptb_tokenizer import tokenize


@dataclass(frozen=True)
class DocumentFrequencies:
    """Document frequencies of 1- to 4-grams over a set of images.

    `counts` maps an n-gram (a tuple of tokens) to the number of images with it in at
    least one reference, `images` is the number of images, and `name` says which set it was
    ("coco-val"), for reports. Scores made with different frequencies are not comparable.
    """

    counts: Mapping[tuple[str, ...], int]
    images: int
    name: str

    @classmethod
    def of(cls, references: Iterable[Sequence[str]], name: str, orders: int = 4) -> DocumentFrequencies:
        """Count over images, each given by its references as they were written."""
        counts: Counter[tuple[str, ...]] = Counter()
        images = 0
        for group in references:
            images += 1
            seen: set[tuple[str, ...]] = set()
            for reference in group:
                words = tokenize(reference).split()
                for order in range(1, orders + 1):
                    seen.update(zip(*(words[shift:] for shift in range(order)), strict=False))
            counts.update(seen)
        return cls(dict(counts), images, name)
