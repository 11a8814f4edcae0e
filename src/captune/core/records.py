"""The nouns that pass between all rooms: an image with its references, and a caption."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image with its references.

    `image` is a path (absolute, or relative to the folder of the split file that named
    it); `references` may be empty and may differ in number from record to record. With a
    `question` the references are answers to it, and an image may be in many records.
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
    (end token included), 0–1; NaN where nobody tells it. `tokens` are those it was written with, its end included
    where it has one, `log_probs` the log-likelihood of each; empty where they are not known. Of a translated caption
    `original` is what the model said: confidence and tokens are of that. A caption that is `cut` had not ended when it
    had as many tokens as it may have. `own_words` is all that a model behind a server wrote, thoughts included; None
    where tokens tell. A `decorative` image has an empty caption.
    `fields` are what an answer has that fits a JSON Schema; `text` is then one of them, or all as JSON.
    """

    text: str
    confidence: float
    tokens: tuple[int, ...] = field(default=(), repr=False, compare=False)
    original: str | None = None
    cut: bool = False
    own_words: str | None = field(default=None, repr=False, compare=False)
    log_probs: tuple[float, ...] = field(default=(), repr=False, compare=False)
    decorative: bool = False
    fields: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def is_missing(self) -> bool:
        """Whether nothing of it was written when it was cut: a model that answers was still thinking."""
        return self.cut and not self.text

    def _repr_html_(self) -> str:
        """In a notebook: the sentence with its confidence."""
        sure = "" if math.isnan(self.confidence) else f" <small>{self.confidence:.0%} confidence</small>"
        return f'<span dir="auto">{escape(self.text)}</span>{sure}'
