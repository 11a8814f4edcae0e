"""Where a model looked for each word of a caption: a value, and what of it goes into files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from captune.data.pixels import Box

ABOUT = (
    "Attention of the step that chose each word to the places of the picture, averaged over all heads and layers, "
    "class token dropped, pieces of a word averaged, scaled to sum 1."
)
DIGITS = 6


@dataclass(frozen=True)
class Alternative:
    """A piece of text that could stand at some place, and its probability there, 0–1."""

    text: str
    probability: float


@dataclass(frozen=True)
class Word:
    """A word of a caption.

    `confidence` is the probability, 0–1, that the model gave it (the product over its pieces); `on_picture` the share
    of its attention that fell on the picture's patches, the rest having fallen on the class token or on words;
    `alternatives` what else was likely where it begins, the likeliest first.
    """

    text: str
    confidence: float
    on_picture: float
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, eq=False)
class CaptionAttention:
    """A caption with a heat map for each of its words.

    `maps` (words, rows, columns), float32, sum to 1 each. Their rows and columns divide `box` (left, top, right,
    bottom), in pixels of the upright image of `size` (width, height): models that cut a square out see a part alone.
    """

    image: str
    caption: str
    confidence: float
    words: tuple[Word, ...]
    maps: np.ndarray
    size: tuple[int, int]
    box: Box
    model: str = ""
    about: str = ABOUT

    def to_json(self) -> dict[str, Any]:
        """All in plain values; maps are rounded to 6 digits."""
        return {
            "image": self.image,
            "caption": self.caption,
            "confidence": self.confidence,
            "model": self.model,
            "about": self.about,
            "size": list(self.size),
            "box": [round(side, 2) for side in self.box],
            "grid": list(self.maps.shape[1:]),
            "words": [
                {
                    "word": word.text,
                    "confidence": word.confidence,
                    "on_picture": word.on_picture,
                    "alternatives": [{"text": one.text, "probability": one.probability} for one in word.alternatives],
                    "map": [[round(float(value), DIGITS) for value in row] for row in map_],
                }
                for word, map_ in zip(self.words, self.maps, strict=True)
            ],
        }


@dataclass(frozen=True, eq=False)
class Explained(CaptionAttention):
    """A caption with a heat map for each of its words, over `picture`: the upright image, RGB."""

    picture: Image.Image = field(kw_only=True)

    def overlay(self, word: int | None = None) -> Image.Image:
        """The picture once for each word with its heat map, as one sheet; or one word's map over the whole picture."""
        from captune.data.overlay import draw_over_image, sheet

        return sheet(self) if word is None else draw_over_image(self, word)

    def _repr_html_(self) -> str:
        """In a notebook: the sheet."""
        from captune.data.overlay import as_html

        return as_html(self)
