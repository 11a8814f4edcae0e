"""Attention maps: where a model looked for each word, as values, drawings and files."""

import base64
import io
import json
import os
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from captune.core.files import atomic_file, write_text
from captune.core.stores import EXPLAINED
from captune.core.text import fit_name
from captune.images.lettering import font_of, wrapped
from captune.images.preprocessing import Box

ABOUT = (
    "Attention of the step that chose each word to the places of the image, averaged over all heads and layers, "
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
    of its attention that fell on the image's patches, the rest having fallen on the class token or on words;
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
        """The image once for each word with its heat map, as one sheet; or one word's map over the whole picture."""
        return sheet(self) if word is None else draw_heat_map(self.picture, self.maps[word], self.box)

    def _repr_html_(self) -> str:
        """In a notebook: the sheet."""
        return as_html(self)


# Matplotlib's magma from its light end: the lightness alone tells the order, whatever colours a reader sees.
HEAT = np.array(
    [(253, 231, 167), (254, 194, 135), (252, 150, 104), (244, 105, 92), (211, 67, 110), (160, 47, 127), (106, 28, 129)],
    dtype=np.float32,
)
# A place with this many times its share is drawn in the strongest colour at the least.
STRONG = 3.0
COVER = 0.8
FADED, CUT_AWAY = 0.5, 0.85

PAPER, INK, SOFT, LINE = (255, 255, 255), (28, 28, 32), (98, 98, 108), (222, 222, 228)
WIDEST, TALLEST, NARROWEST, SHEET, GAP, MARGIN = 260, 290, 170, 1400, 18, 24
TITLE, WORD, SMALL = 23, 18, 13
# Room for the legend.
LEAST = 660
HEAD = 36
LEGEND = (
    "Where more than an even share of the attention fell when the word was chosen.",
    "Per cent: how probable the word was.",
)


def draw_heat_map(picture: Image.Image, map_: np.ndarray, box: Box) -> Image.Image:
    """An image in pale grey with a map (rows, columns), sum 1, over its part `box`; the rest is paler still."""
    width, height = picture.size
    left, top = (min(round(start), side - 1) for start, side in zip(box[:2], picture.size, strict=True))
    right, bottom = max(round(box[2]), left + 1), max(round(box[3]), top + 1)
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None]
    base = np.full((height, width, 3), 255, np.float32)
    base += (grey - 255) * (1 - CUT_AWAY)
    inside = slice(top, bottom), slice(left, right)
    base[inside] = 255 + (grey[inside] - 255) * (1 - FADED)
    shape = right - left, bottom - top
    heat = np.asarray(Image.fromarray(strength(map_)).resize(shape, Image.Resampling.BICUBIC)).clip(0, 1)
    cover = COVER * np.minimum(1, 2.5 * heat)[..., None]
    base[inside] += (_colours(heat) - base[inside]) * cover
    return Image.fromarray(base.round().clip(0, 255).astype(np.uint8))


def _colours(heat: np.ndarray) -> np.ndarray:
    """The colours (…, 3) of strengths 0–1 on the scale `HEAT`."""
    place = heat * (len(HEAT) - 1)
    below = place.astype(int).clip(max=len(HEAT) - 2)
    return HEAT[below] + (HEAT[below + 1] - HEAT[below]) * (place - below)[..., None]


def strength(map_: np.ndarray) -> np.ndarray:
    """A map as colour strengths 0–1: 0 up to an even share, so that attention to everything shows as nothing."""
    shares = map_.astype(np.float32) * map_.size
    return ((shares - 1) / (max(float(shares.max(initial=0)), STRONG) - 1)).clip(0, 1)


def sheet(explained: Explained) -> Image.Image:
    """The caption, the image, and the image again beneath each word with the word's map."""
    scale = min(WIDEST / explained.picture.width, TALLEST / explained.picture.height)
    width, height = (max(1, round(side * scale)) for side in explained.picture.size)
    small = explained.picture.resize((width, height), Image.Resampling.LANCZOS)
    box: Box = tuple(side * scale for side in explained.box)  # type: ignore[assignment]
    tiles = len(explained.words) + 1
    wide = max(width, NARROWEST)
    across, down = wide + GAP, HEAD + height + GAP
    columns = max(-(-LEAST // across), min(SHEET // across, tiles))
    rows = -(-tiles // columns)
    whole = 2 * MARGIN + columns * across - GAP
    title = wrapped(explained.caption or "(empty caption)", font_of(TITLE, bold=True), whole - 2 * MARGIN)
    top = MARGIN + len(title) * (TITLE + 8) + 16
    page = Image.new("RGB", (whole, top + rows * down + 2 * SMALL + MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    for n, line in enumerate(title):
        draw.text((MARGIN, MARGIN + n * (TITLE + 8)), line, INK, font_of(TITLE, bold=True))
    for n in range(tiles):
        x, y = MARGIN + n % columns * across, top + n // columns * down
        if n:
            word = explained.words[n - 1]
            _heading(draw, (x, y, wide), word.text, word.confidence)
            tile = draw_heat_map(small, explained.maps[n - 1], box)
        else:
            _heading(draw, (x, y, wide), "whole caption", explained.confidence, soft=True)
            tile = small.copy()
            _frame(tile, box)
        page.paste(tile, (x, y + HEAD))
    _legend(draw, MARGIN, top + rows * down)
    return page


def _heading(
    draw: ImageDraw.ImageDraw, place: tuple[int, int, int], text: str, confidence: float, *, soft: bool = False
) -> None:
    """At a place (x, y, width) a word, its confidence in figures to the right and as a line under both."""
    x, y, wide = place
    note, font = f"{confidence:.0%}", font_of(SMALL) if soft else font_of(WORD, bold=True)
    room = wide - draw.textlength(note, font_of(SMALL)) - 10
    while text and draw.textlength(text, font) > room:
        text = text.rstrip("…")[:-1] + "…" if len(text.rstrip("…")) > 1 else ""
    draw.text((x, y + WORD), text, SOFT if soft else INK, font, anchor="ls")
    draw.text((x + wide, y + WORD), note, SOFT, font_of(SMALL), anchor="rs")
    draw.line((x, y + WORD + 8, x + wide, y + WORD + 8), LINE, 3)
    draw.line((x, y + WORD + 8, x + round(wide * min(max(confidence, 0), 1)), y + WORD + 8), INK, 3)


def _frame(tile: Image.Image, box: Box) -> None:
    """Where a square was cut out, the parts that the model never saw are pale."""
    left, top, right, bottom = (round(side) for side in box)
    if (left, top, right, bottom) == (0, 0, *tile.size):
        return
    pale = Image.blend(tile, Image.new("RGB", tile.size, PAPER), CUT_AWAY)
    pale.paste(tile.crop((left, top, right, bottom)), (left, top))
    tile.paste(pale)


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    for n, colour in enumerate(_colours(np.linspace(0, 1, 120))):
        draw.line((x + n, y, x + n, y + SMALL), tuple(int(level) for level in colour))
    for n, line in enumerate(LEGEND):
        draw.text((x + 132, y - 1 + n * (SMALL + 5)), line, SOFT, font_of(SMALL))


def as_html(explained: Explained) -> str:
    """The sheet as an element that carries its image within itself, with the words as its text."""
    file = io.BytesIO()
    sheet(explained).save(file, "JPEG", quality=85, optimize=True)
    words = ", ".join(f"{word.text} {word.confidence:.0%}" for word in explained.words)
    alt = escape(f"{explained.caption} ({explained.confidence:.0%}). Confidence of each word: {words}", quote=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{alt}" style="max-width:100%" src="data:image/jpeg;base64,{data}">'


class ExplainedFolder:
    """`photo.explained.png` and `photo.explained.json` for `photo.jpg`.

    Another image of that name gets `photo-2.explained.png`, and so on, in the order in which they come.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._taken: dict[str, int] = {}

    def write(self, explained: Explained, name: str | None = None) -> Path:
        """Write both files, for an image of this name if it is no file; returns the sheet's path."""
        stem = Path(name or explained.image).stem or "picture"
        self._taken[stem] = count = self._taken.get(stem, 0) + 1
        numbers = self.folder / fit_name(stem if count == 1 else f"{stem}-{count}", EXPLAINED)
        sheet = numbers.with_suffix(".png")
        with atomic_file(sheet, "wb") as file:
            explained.overlay().save(file, "PNG")
        write_text(numbers, json.dumps(explained.to_json(), ensure_ascii=False) + "\n")
        return sheet
