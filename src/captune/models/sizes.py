"""Sizes of models from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from captune.core.errors import UsageError, did_you_mean
from captune.models.positions import check_side

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Size:
    """Sides of picture and patch in pixels; (width, layers, heads) of both parts; dropout of the text part."""

    side: int
    patch: int
    vision: Shape
    text: Shape
    dropout: float


def chosen_size(family: str, sizes: Mapping[str, Size], size: str, image_size: int | None) -> Size:
    """One of `sizes`, perhaps for another picture; raises `UsageError` for what is not there or does not fit."""
    if size not in sizes:
        raise UsageError(f"There is no {family} size '{size}'.", did_you_mean(size, sizes))
    found = sizes[size]
    found = replace(found, side=image_size or found.side)
    check_side(found.side, found.patch)
    return found


def layers(shape: Shape) -> dict[str, Any]:
    """A shape in the words of most `transformers` configurations."""
    width, count, heads = shape
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": count,
        "num_attention_heads": heads,
    }
