"""Which column or key is the picture, which the captions, the split and the id: by the usual names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from captune.data.formats.split_words import split_named

IMAGE = (
    "image_path",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_name",
    "image_file",
    "image_filename",
    "image",
    "img_path",
    "img_name",
    "img_file",
    "img",
    "path",
    "file",
    "picture",
    "photo",
)
ADDRESS = ("url", "image_url", "img_url", "image_link")
CAPTION = ("caption", "text", "caption_text", "description", "comment", "sentence", "reference", "alt_text", "title")
CAPTIONS = ("captions", "references", "sentences", "raw", "texts", "comments", "descriptions", "alt_texts")
QUESTION = ("question", "question_text")
# Beside a question these are what captions are elsewhere.
ANSWER = ("answer", "answer_text", "multiple_choice_answer", "label")
ANSWERS = ("answers", "direct_answers")
SPLIT = ("split", "subset", "partition", "set")
ID = ("id", "image_id", "img_id", "cocoid")
_NUMBERED = re.compile(r"(caption|text|comment|sentence|description|reference)_?(\d+)")


@dataclass(frozen=True)
class Columns:
    """The names, as the source spells them, of the columns that matter."""

    image: str
    captions: tuple[str, ...]
    several: bool
    split: str | None
    id: str | None
    name: str | None = None
    question: str | None = None

    def texts(self, row: Mapping[str, Any]) -> list[str]:
        """The captions of a row: a string, a list, a list of Karpathy's sentences, or JSON of a list in a cell."""
        found: list[str] = []
        for column in self.captions:
            found += _texts(row.get(column), self.several)
        return found

    def question_of(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.question) if self.question else None
        return value.strip() if isinstance(value, str) else ""

    def split_of(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self.split) if self.split else None
        return split_named(value) if isinstance(value, str) else None

    def id_of(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self.id) if self.id else None
        return str(value) if isinstance(value, (str, int)) and str(value) != "" else None


def find_columns(names: Iterable[str], *, image: str | None = None) -> Columns | None:
    """The columns by name (case, spaces and hyphens do not matter), or None where one is missing.

    `image` is the column of the pictures themselves where the types tell it; a column of
    file names then gives their `name`.
    """
    plain = {re.sub(r"[\s\-]+", "_", str(name).strip().lower()): str(name) for name in names}
    named = _first({key: value for key, value in plain.items() if value != image}, IMAGE)
    picture, name = (image, named) if image is not None else (named, None)
    if picture is None:
        return None
    question = _first(plain, QUESTION)
    if question is not None:
        answers, answer = _first(plain, (*ANSWERS, *CAPTIONS)), _first(plain, (*ANSWER, *CAPTION))
        told = answers or answer
        if told is None:
            return None
        split, id = _first(plain, SPLIT), _first(plain, ("question_id", *ID))
        return Columns(picture, (told,), answers is not None, split, id, name, question)
    numbered = sorted((int(match[2]), plain[name]) for name in plain if (match := _NUMBERED.fullmatch(name)))
    many = _first(plain, CAPTIONS)
    one = _first(plain, CAPTION)
    if many is not None:
        captions: tuple[str, ...] = (many,)
    elif numbered:
        captions = tuple(name for _, name in numbered)
    elif one is not None:
        captions = (one,)
    else:
        return None
    return Columns(picture, captions, many is not None, _first(plain, SPLIT), _first(plain, ID), name)


def expected() -> str:
    """What a header must have, for messages."""
    return (
        f"an image column ({', '.join(IMAGE[:4])}, image, …) and a caption column ({', '.join(CAPTION[:3])}, …), "
        "or `question` and `answer`"
    )


def _first(plain: Mapping[str, str], wanted: Iterable[str]) -> str | None:
    return next((plain[name] for name in wanted if name in plain), None)


def _texts(value: Any, several: bool) -> list[str]:
    if isinstance(value, str):
        if several and value.lstrip().startswith("["):
            listed = _listed(value)
            return _texts(listed, several) if listed is not None else [value]
        return [value]
    if isinstance(value, Mapping):
        return _texts(next((value[key] for key in ("raw", "caption", "text", "answer") if key in value), None), False)
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item, False)]
    return []


def _listed(cell: str) -> list[Any] | None:
    """A list written into a cell as JSON or as Python prints it, or None."""
    try:
        value = json.loads(cell)
    except ValueError:
        try:
            value = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError):
            return None
    return value if isinstance(value, list) else None
