"""The nouns that pass between all rooms: a picture with its references, and a caption."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """A picture with its references.

    `image` is a path (absolute, or relative to the folder of the split file that named
    it); `references` may be empty and may differ in number from record to record. With a
    `question` the references are answers to it, and a picture may be in many records.
    """

    id: str
    image: str
    references: tuple[str, ...] = ()
    split: str | None = None
    question: str = ""


@dataclass(frozen=True, slots=True)
class Caption:
    """A model's sentence.

    `confidence` is the geometric mean of the probabilities the model gave its tokens
    (end token included), 0–1. Of a translated caption `original` is what the model said,
    which the confidence is of.
    """

    text: str
    confidence: float
    original: str | None = None
