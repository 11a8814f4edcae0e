"""Attention maps of the words of a caption."""

from __future__ import annotations

import os
from math import prod
from typing import Any

import numpy as np
import torch
from PIL import Image

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.data.explained import CaptionAttention, Explained, Word
from captune.data.images import MAX_PIXELS, open_image
from captune.data.pixels import crop_box
from captune.engine.captioning import caption_pixels
from captune.engine.pictures import read_pixels
from captune.engine.steps import group_words, score_caption, token_steps
from captune.models.backbone import Backbone
from captune.models.reread import on_patches


def explain(
    backbone: Backbone,
    source: Any,
    options: GenerationOptions,
    *,
    caption: Caption | None = None,
    max_pixels: int = MAX_PIXELS,
    model: str = "",
) -> Explained:
    """Heat maps of the words of a picture's best caption, or of `caption`.

    The picture is a path, bytes or a PIL picture. The finished caption passes the model once more; the
    search is not touched. Raises `CaptuneError` for a family without attention to the picture for every word.
    """
    settings = backbone.pixels
    picture = upright(source, max_pixels)
    seen = read_pixels(source if settings.fast else picture, settings, max_pixels)
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    found = explain_pixels(backbone, seen, picture.size, options, caption=caption, image=name, model=model)
    return Explained(**vars(found), picture=picture)


def explain_pixels(
    backbone: Backbone,
    pixels: np.ndarray,
    size: tuple[int, int],
    options: GenerationOptions,
    *,
    caption: Caption | None = None,
    image: str = "",
    model: str = "",
) -> CaptionAttention:
    """As `explain`, of the pixels (3, side, side), uint8, that a model sees of an upright image of `size`."""
    settings, seen = backbone.pixels, pixels[None]
    if caption is None:
        caption = caption_pixels(backbone, seen, options)[0][0]
    with torch.inference_mode():
        memory = backbone.image_features(torch.from_numpy(seen))
    scored = score_caption(backbone, memory, caption, options)
    attention = None if scored.scores.attention is None else on_patches(scored.scores.attention)
    if attention is None:
        raise CaptuneError(
            f"A model of the family {backbone.family} ({model or 'this one'}) has no attention to the places of the "
            "picture for every word.",
            "BLIP-2's Q-Former looks once, before the first word. Families with attention maps: "
            "blip, clip-gpt2, git, blip-vqa.",
        )
    steps = token_steps(backbone, scored)
    texts, places = group_words(backbone, scored.tokens)
    words, maps = [], []
    for text, found in zip(texts, places, strict=True):
        mass = attention[found].mean(0)
        words.append(
            Word(
                text,
                confidence=prod(steps[n].probability for n in found),
                on_picture=float(mass.sum()),
                alternatives=steps[found[0]].alternatives,
            )
        )
        maps.append((mass / mass.sum()).cpu().numpy())
    return CaptionAttention(
        image=image,
        caption=caption.text,
        confidence=caption.confidence if caption.tokens else _confidence([step.probability for step in steps]),
        words=tuple(words),
        maps=np.stack(maps).astype(np.float32) if maps else np.zeros((0, *attention.shape[1:]), np.float32),
        size=size,
        box=crop_box(size, settings.size, settings.shorter),
        model=model,
    )


def upright(source: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A path, bytes or a PIL picture as RGB, turned as EXIF says (a PIL picture is taken as it is)."""
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    return open_image(source, max_pixels=max_pixels)


def _confidence(probabilities: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(probabilities, 1e-38)))))
