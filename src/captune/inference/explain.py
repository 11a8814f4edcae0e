"""Explanations of a caption: probabilities, alternatives and attention for each token."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.images.attention_maps import Alternative, CaptionAttention, Explained, Word
from captune.images.batches import read_pixels
from captune.images.open import MAX_PIXELS, open_image
from captune.images.preprocessing import crop_box
from captune.inference.torch_model import TorchModel
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.layers.losses import TeacherForced, on_patches

ALTERNATIVES = 5


@dataclass(frozen=True)
class Step:
    """A token of a caption with its probability, 0–1, and the likeliest others in its place."""

    token: int
    text: str
    probability: float
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class ScoredCaption:
    """A caption's `tokens` behind its `prefix` (start and prompt), with the model's logits and attention.

    The rows of `scores` are those that choose `tokens`, in order.
    """

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    scores: TeacherForced


def caption_tokens(
    backbone: Backbone, caption: Caption, options: GenerationOptions
) -> tuple[list[int], tuple[int, ...]]:
    """Start and prompt, and the caption behind them, as tokens; a caption from elsewhere is read as a reference is."""
    if caption.tokens:
        return backbone.codec.prefix(options.prompt, options), caption.tokens
    read = backbone.encode_reference(caption.text, backbone.max_length, prompt=options.prompt)
    return list(read.tokens[: read.prompt_length]), read.tokens[read.prompt_length :]


def score_caption(backbone: Backbone, memory: Tensor, caption: Caption, options: GenerationOptions) -> ScoredCaption:
    """One teacher-forced pass over a finished caption and the memory (1, places, width) of its image."""
    prefix, tokens = caption_tokens(backbone, caption, options)
    with torch.inference_mode():
        scored = backbone.teacher_forced(memory.to(backbone.compute_dtype), [*prefix, *tokens[:-1]], len(prefix))
    if scored is None:
        raise CaptuneError(
            f"The family {backbone.family} gives no probabilities of the tokens of a caption.",
            "Use a model of another family: captune models",
        )
    rows = slice(len(scored.logits) - len(tokens), None)
    attention = None if scored.attention is None else scored.attention[rows]
    return ScoredCaption(tuple(prefix), tokens, TeacherForced(scored.logits[rows], attention))


def token_steps(backbone: Backbone, scored: ScoredCaption, count: int = ALTERNATIVES) -> list[Step]:
    """Each token with the `count` likeliest others."""
    chances = scored.scores.logits.softmax(-1)
    best = chances.topk(min(count + 1, chances.shape[-1]))
    chosen = chances.gather(1, torch.tensor(scored.tokens, device=chances.device)[:, None])[:, 0]
    steps = []
    for token, chance, values, ids in zip(
        scored.tokens, chosen.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
    ):
        others = [
            Alternative(token_text(backbone, other), value)
            for other, value in zip(ids, values, strict=True)
            if other != token
        ]
        steps.append(Step(token, token_text(backbone, token), chance, tuple(others[:count])))
    return steps


def token_text(backbone: Backbone, token: int) -> str:
    """A token as a reader sees it; one of spaces or half a character by its name in the vocabulary."""
    text = backbone.tokenizer.decode([token]).strip()
    if text and "\N{REPLACEMENT CHARACTER}" not in text:
        return text
    return str(backbone.tokenizer.convert_ids_to_tokens(token))


def group_words(backbone: Backbone, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
    """The words of a caption, and for each the positions of the tokens that make it up."""
    decode = backbone.tokenizer.decode
    words = decode(list(tokens), skip_special_tokens=True).split()
    counts = [len(decode(list(tokens[: n + 1]), skip_special_tokens=True).split()) for n in range(len(tokens))]
    # Decoders draw pieces together later ("do n" becomes "don't"): what counts is what a word is in the end.
    for n in range(len(counts) - 2, -1, -1):
        counts[n] = min(counts[n], counts[n + 1])
    places: list[list[int]] = [[] for _ in words]
    for n, count in enumerate(counts):
        if words and decode([tokens[n]], skip_special_tokens=True):
            places[max(count, 1) - 1].append(n)
    whole = [(word, numbers) for word, numbers in zip(words, places, strict=True) if numbers]
    return [word for word, _ in whole], [numbers for _, numbers in whole]


def explain(
    backbone: Backbone,
    source: Any,
    options: GenerationOptions,
    *,
    caption: Caption | None = None,
    max_pixels: int = MAX_PIXELS,
    model: str = "",
) -> Explained:
    """Heat maps of the words of an image's best caption, or of `caption`.

    The image is a path, bytes or a PIL image. The finished caption passes the model once more; the
    search is not touched. Raises `CaptuneError` for a family without attention to the image for every word.
    """
    settings = backbone.pixels
    image = upright(source, max_pixels)
    pixels = read_pixels(source if settings.fast else image, settings, max_pixels)
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    attention = explain_pixels(backbone, pixels, image.size, options, caption=caption, image=name, model=model)
    return Explained(**vars(attention), picture=image)


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
    settings, batch = backbone.pixels, pixels[None]
    if backbone.no_attention_maps:
        raise _without_maps(backbone, model)
    if caption is None:
        caption = TorchModel(backbone).generate(batch, options)[0][0]
    with torch.inference_mode():
        memory = backbone.image_features(torch.from_numpy(batch))
    scored = score_caption(backbone, memory, caption, options)
    attention = None if scored.scores.attention is None else on_patches(scored.scores.attention)
    if attention is None:
        raise _without_maps(backbone, model)
    steps = token_steps(backbone, scored)
    texts, positions = group_words(backbone, scored.tokens)
    words, maps = [], []
    for text, numbers in zip(texts, positions, strict=True):
        mass = attention[numbers].mean(0)
        words.append(
            Word(
                text,
                confidence=prod(steps[n].probability for n in numbers),
                on_picture=float(mass.sum()),
                alternatives=steps[numbers[0]].alternatives,
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


def _without_maps(backbone: Backbone, model: str) -> CaptuneError:
    return CaptuneError(
        f"A model of the family {backbone.family} ({model or 'this one'}) has no attention to the places of the "
        "image for every word.",
        f"{backbone.no_attention_maps} Families with attention maps: "
        f"{', '.join(name for name, family in FAMILIES.items() if not family.no_attention_maps)}.".lstrip(),
    )


def upright(source: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A path, bytes or a PIL image as RGB, turned as EXIF says (a PIL image is taken as it is)."""
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    return open_image(source, max_pixels=max_pixels)


def _confidence(probabilities: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(probabilities, 1e-38)))))
