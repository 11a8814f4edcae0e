"""A prompt as a template: `Describe this photo[ of {names}].`

A field in braces is filled with what the image's file says. A part in square brackets that holds a field is left out
where one of its fields is empty. Doubled braces and brackets around a name are single ones: `{{names}}`. All other
braces and brackets stay as they are, those of JSON for example.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from captune.captions.wording import shortened
from captune.core.errors import CaptuneError, UsageError
from captune.core.text import without_controls

QUESTION = "question"
# What a model that answers its prompt is told where nobody says otherwise.
DESCRIBE = "Describe this image in one sentence."
LONGEST = 400  # characters of a field's value
# Where a prompt does not fit, its values are shortened to so many characters, step by step; 0: none are in it.
_SHORTER = (LONGEST, 120, 40, 0)
_FIELD = re.compile(r"\{\{([A-Za-z][\w.:-]*)\}\}|\{([A-Za-z][\w.:-]*)\}")
_PART = re.compile(r"\[\[([^\[\]]*)\]\]|\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Field:
    """A field in the text of a template."""

    name: str


@dataclass(frozen=True)
class Part:
    """A piece of a template: text and fields; `optional`: left out where a field in it is empty."""

    pieces: tuple[str | Field, ...]
    optional: bool = False

    @property
    def fields(self) -> list[str]:
        return [piece.name for piece in self.pieces if isinstance(piece, Field)]

    def filled(self, values: Mapping[str, str]) -> str:
        if self.optional and not all(values.get(name) for name in self.fields):
            return ""
        return "".join(
            piece if isinstance(piece, str) else values.get(piece.name, _unfilled(piece)) for piece in self.pieces
        )


def _unfilled(field: Field) -> str:
    """A question that nobody has put stays where it would be."""
    return f"{{{QUESTION}}}" if field.name == QUESTION else ""


@dataclass(frozen=True)
class Template:
    """A prompt in parts. `fields` are those that are read of an image, by the names of `images.metadata.fields`."""

    text: str
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """The template of a prompt; raises `UsageError` for a field that there is not."""
        return _template(text)

    @property
    def names(self) -> frozenset[str]:
        """All fields, a question among them."""
        return frozenset(name for part in self.parts for name in part.fields)

    @property
    def fields(self) -> frozenset[str]:
        return self.names - {QUESTION}

    def filled(self, values: Mapping[str, str], longest: int = LONGEST) -> str:
        """The prompt with values of fields, each on one line of at most `longest` characters (the question whole)."""
        fitting = {name: value if name == QUESTION else one_line(value, longest) for name, value in values.items()}
        return "".join(part.filled(fitting) for part in self.parts)

    def asking(self, question: str, values: Mapping[str, str], fits: Callable[[str], bool] = lambda text: True) -> str:
        """As `fitted`, with a question in its place, else behind the prompt; "": with none."""
        if not question or QUESTION in self.names:
            return self.fitted({**values, QUESTION: question} if question else values, fits)
        return f"{self.fitted(values, fits)} {question}".strip()

    def fitted(self, values: Mapping[str, str], fits: Callable[[str], bool]) -> str:
        """As `filled`, with shorter values where the prompt would not fit; none at all where nothing helps."""
        texts = (self.filled(values, longest) for longest in _SHORTER)
        return next((text for text in texts if not self.fields or fits(text)), self.filled(values, 0))


@cache
def _template(text: str) -> Template:
    parts: list[Part] = []
    at = 0
    for match in _PART.finditer(text):
        inside = match[1] if match[1] is not None else match[2]
        if not any(field[2] for field in _FIELD.finditer(inside)):
            continue  # brackets around no field are brackets
        parts.append(Part(tuple(_pieces(text[at : match.start()]))))
        if match[1] is None:
            parts.append(Part(tuple(_pieces(inside)), optional=True))
        else:
            parts.append(Part(("[", *_pieces(inside), "]")))
        at = match.end()
    parts.append(Part(tuple(_pieces(text[at:]))))
    return Template(text, tuple(part for part in parts if part.pieces))


def _pieces(text: str) -> list[str | Field]:
    pieces: list[str | Field] = []
    at = 0
    for match in _FIELD.finditer(text):
        pieces.append(text[at : match.start()])
        pieces.append(f"{{{match[1]}}}" if match[2] is None else Field(_checked(match[2])))
        at = match.end()
    return [piece for piece in (*pieces, text[at:]) if piece]


def _checked(name: str) -> str:
    if name == QUESTION:
        return name
    from captune.images.metadata.fields import check_field  # Pillow's tables, which most prompts do not need

    try:
        return check_field(name)
    except CaptuneError as error:
        raise UsageError(error.message, error.hint) from None


def one_line(value: str, longest: int) -> str:
    """A value as it may stand in a prompt: one line, no control characters, at most so many characters."""
    text = without_controls(value).replace("\ufffd", "").strip()
    return shortened(text, longest) if longest else ""


def template_for(model_prompt: str, prompt: str | None, question: str) -> Template:
    """`prompt`, else the model's own; nothing where that is just to describe the image, and there is a question."""
    if prompt is None:
        prompt = "" if question and model_prompt == DESCRIBE else model_prompt
    return Template.of(prompt)
