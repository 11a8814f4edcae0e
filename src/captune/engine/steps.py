"""A caption token by token: what the model thought of each, and what else it would have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.data.explained import Alternative
from captune.engine.decoding.generate import prefix_of
from captune.models.backbone import Backbone
from captune.models.reread import TeacherForced

ALTERNATIVES = 5


@dataclass(frozen=True)
class Step:
    """A token of a caption with its probability, 0–1, and the likeliest others in its place."""

    token: int
    text: str
    probability: float
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Written:
    """A caption's `tokens` behind its `prefix` (start and prompt), and what the model makes of each.

    The rows of `found` are those that choose `tokens`, in order.
    """

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    found: TeacherForced


def tokens_of(backbone: Backbone, caption: Caption, options: GenerationOptions) -> tuple[list[int], tuple[int, ...]]:
    """Start and prompt, and the caption behind them, as tokens; a caption from elsewhere is read as a reference is."""
    if caption.tokens:
        return prefix_of(backbone, options, options.prompt), caption.tokens
    prompt = backbone.prompt if options.prompt is None else options.prompt
    read = replace(backbone, prompt=prompt).encode_reference(caption.text, backbone.max_length)
    return list(read.tokens[: read.given]), read.tokens[read.given :]


def written_again(backbone: Backbone, memory: Tensor, caption: Caption, options: GenerationOptions) -> Written:
    """A finished caption over the memory (1, places, width) of its picture, in one pass."""
    prefix, tokens = tokens_of(backbone, caption, options)
    with torch.inference_mode():
        found = backbone.teacher_forced(memory.to(backbone.compute_dtype), [*prefix, *tokens[:-1]], len(prefix))
    if found is None:
        raise CaptuneError(
            f"The family {backbone.family} cannot say what it thought of the tokens of a caption.",
            "Use a model of another family: captune models",
        )
    rows = slice(len(found.logits) - len(tokens), None)
    attention = None if found.attention is None else found.attention[rows]
    return Written(tuple(prefix), tokens, TeacherForced(found.logits[rows], attention))


def steps_of(backbone: Backbone, written: Written, count: int = ALTERNATIVES) -> list[Step]:
    """Each token with the `count` likeliest others."""
    chances = written.found.logits.softmax(-1)
    best = chances.topk(min(count + 1, chances.shape[-1]))
    chosen = chances.gather(1, torch.tensor(written.tokens, device=chances.device)[:, None])[:, 0]
    steps = []
    for token, chance, values, ids in zip(
        written.tokens, chosen.tolist(), best.values.tolist(), best.indices.tolist(), strict=True
    ):
        others = [
            Alternative(text_of(backbone, other), value)
            for other, value in zip(ids, values, strict=True)
            if other != token
        ]
        steps.append(Step(token, text_of(backbone, token), chance, tuple(others[:count])))
    return steps


def text_of(backbone: Backbone, token: int) -> str:
    """A token as a reader sees it; one of spaces or half a character by its name in the vocabulary."""
    said = backbone.tokenizer.decode([token]).strip()
    if said and "\N{REPLACEMENT CHARACTER}" not in said:
        return said
    return str(backbone.tokenizer.convert_ids_to_tokens(token))


def pieces(backbone: Backbone, tokens: Sequence[int]) -> tuple[list[str], list[list[int]]]:
    """The words of a caption, and for each the places of the tokens that make it up."""
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
    whole = [(word, found) for word, found in zip(words, places, strict=True) if found]
    return [word for word, _ in whole], [found for _, found in whole]
