"""Where the captions of a row come from: which model wrote them, from what, and when; or that a person did."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from captune.core.files.existing import digest
from captune.core.records import Caption

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who wrote the captions of a row: a model, a person, or both.

    `digest` is that of the model's files or its commit on the Hub, of a model behind a server its name and address.
    `prompt` is the beginning of the SHA-256 of what the model was to answer or to continue, `date` the day (UTC) on
    which the job began, `captune` its version, `translator` the model that translated. `captions` has a digest for
    each caption of the model as captune wrote it: one that a person wrote or corrected has none there. `own_words` are
    what the model wrote of each, before translation, thinking and wording; empty unless requested. What is not known
    is empty.
    """

    written_by: Literal["model", "person", "both"] = "model"
    model: str = ""
    digest: str = ""
    prompt: str = ""
    date: str = ""
    captune: str = ""
    translator: str = ""
    captions: tuple[str, ...] = ()
    own_words: tuple[str, ...] = ()

    def of(self, captions: Iterable[Caption], own_words: Iterable[str] = ()) -> Provenance:
        """The same for the captions of a row."""
        return replace(self, captions=tuple(text_digest(one.text) for one in captions), own_words=tuple(own_words))

    def wrote(self, text: str) -> bool:
        """Whether a model wrote this text as it is."""
        return self.written_by != "person" and text_digest(text) in self.captions

    def for_caption(self, caption: Caption) -> Provenance:
        """The provenance of one caption of the row."""
        if not self.wrote(caption.text):
            return self if self.written_by == "person" else A_PERSONS
        number = self.captions.index(text_digest(caption.text))
        return replace(
            self,
            written_by="model",
            captions=self.captions[number : number + 1],
            own_words=self.own_words[number : number + 1],
        )

    def joined(self, other: Provenance) -> Provenance:
        """The provenance of the captions of two rows as one."""
        if "person" in (self.written_by, other.written_by):
            model = other if self.written_by == "person" else self
            return model if model.written_by == "person" else replace(model, written_by="both")
        written_by = self.written_by if self.written_by == other.written_by else "both"
        return replace(
            self,
            written_by=written_by,
            captions=self.captions + other.captions,
            own_words=self.own_words + other.own_words,
        )

    def cells(self) -> tuple[Any, ...]:
        """The values of `COLUMNS`."""
        return tuple(getattr(self, name) for name in _FIELDS)

    def to_json(self) -> dict[str, Any]:
        """What is known, by the names of the fields."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in values.items() if value}


_FIELDS = tuple(field.name for field in fields(Provenance))
# The fields as columns of a table, and those that have a value for each caption.
COLUMNS = tuple(f"provenance_{name}" for name in _FIELDS)
LISTS = COLUMNS[-2:]
A_PERSONS = Provenance("person")


def provenance_of(value: Mapping[str, Any]) -> Provenance | None:
    """The provenance that a row has as an object of JSON or in columns of a table; None where it has none.

    Raises `ValueError` where what stands there is none of captune's.
    """
    found = value.get("provenance")
    if found is None:
        found = {name: value.get(column) for name, column in zip(_FIELDS, COLUMNS, strict=True)}
    elif not isinstance(found, Mapping):
        raise ValueError("a provenance that is no object")
    known = {name: found[name] for name in _FIELDS if found.get(name)}
    if not known:
        return None
    if known.get("written_by") not in ("model", "person", "both"):
        raise ValueError("a provenance without 'written_by': model, person or both")
    values: dict[str, Any] = {
        name: _texts(each) if f"provenance_{name}" in LISTS else str(each) for name, each in known.items()
    }
    return Provenance(**values)


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))


def today() -> str:
    """The day (UTC), as a row has it."""
    return datetime.now(UTC).date().isoformat()


def text_digest(text: str) -> str:
    """What tells whether a caption was changed; spaces, line breaks and how accents are composed do not count."""
    return digest("", unicodedata.normalize("NFC", text))


def prompt_digest(prompt: str, *more: str | None) -> str:
    """The beginning of the SHA-256 of a prompt, with a system prompt and a prefill behind it where there are any."""
    whole = "\0".join([prompt, *filter(None, more)])
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS] if whole else ""
