"""Structured captions: what a JSON Schema wants of a model's answer, and the fields that an answer has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.errors import UsageError, first_line, missing_extra
from captune.datasets.tables.text import read_text

# Columns of fields in tables.
PREFIX = "fields."
# The property whose text is the caption: the first of these that a schema has.
TEXT_FIELDS = ("caption", "description", "alt_text", "alt", "text")
_DIGITS, _LONGEST_REASON = 16, 300
_MOST_INTEGER = 2**63  # of a column
_KINDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "boolean"}


class UnstructuredError(ValueError):
    """An answer that is no JSON object, or not one that fits the schema; the message says why."""


@dataclass(frozen=True)
class Structure:
    """A JSON Schema of objects, and what checks them."""

    schema: Mapping[str, Any]
    validator: Any

    @classmethod
    def read(cls, source: str) -> Structure:
        """The schema in a file, or itself as JSON; raises `UsageError` where it is none that answers could fit."""
        inline = source.lstrip().startswith("{")
        name = "The schema" if inline else source
        try:
            schema = json.loads(source if inline else read_text(Path(source)))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name} is no JSON: {first_line(error)}.", "Give a JSON Schema.") from None
        if not isinstance(schema, dict) or not (schema.get("type") == "object" or "properties" in schema):
            raise UsageError(
                f"{name} does not describe an object.",
                'A schema has "type": "object", and the fields of a caption as "properties".',
            )
        outside = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
        if outside is not None:
            raise UsageError(f"{name} refers to {outside}, and nothing is fetched.", "Put that part under $defs.")
        return cls(schema, _validator(name, schema))

    @property
    def text(self) -> str:
        """The schema in one line."""
        return json.dumps(self.schema, ensure_ascii=False, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """The same for the same schema, however it is laid out."""
        return hashlib.sha256(json.dumps(self.schema, sort_keys=True).encode()).hexdigest()[:_DIGITS]

    @property
    def columns(self) -> dict[str, str]:
        """The properties in their order, each with its kind: text, integer, number, boolean, texts or json."""
        return {name: _kind(each) for name, each in self._properties().items()}

    def prompt(self, prompt: str, failure: str | None = None) -> str:
        """A prompt that wants an answer of this schema, after a `failure` to give one."""
        parts = [prompt, f"Answer with one JSON object that fits this JSON Schema, and nothing else:\n{self.text}"]
        if failure is not None:
            parts.append(f"An earlier answer was refused: {failure}.")
        return "\n\n".join(filter(None, parts))

    def fields_in(self, answer: str) -> dict[str, Any]:
        """The object in an answer, as the model wrote it; raises `UnstructuredError` where none fits the schema."""
        fields = object_in(answer)
        try:
            error = next(iter(self.validator.iter_errors(fields)), None)
        except RecursionError:
            raise UnstructuredError("it is nested too deeply") from None
        if error is not None:
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
            where = f"{place.lstrip('.')}: " if place else ""
            raise UnstructuredError(f"{where}{' '.join(error.message.split())}"[:_LONGEST_REASON])
        return fields

    def text_of(self, fields: Mapping[str, Any]) -> str:
        """The caption in an object: the field that the schema has for it, else the object as JSON."""
        name = next((name for name in TEXT_FIELDS if self.columns.get(name) == "text"), None)
        if name is None:
            return json.dumps(fields, ensure_ascii=False)
        text = fields.get(name)
        return text if isinstance(text, str) else ""

    def _properties(self) -> dict[str, Any]:
        properties = self.schema.get("properties")
        return properties if isinstance(properties, dict) else {}


def object_in(answer: str) -> dict[str, Any]:
    """The one JSON object in an answer, whatever stands around it; raises `UnstructuredError` for none or several."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_int=_small_integer, object_pairs_hook=_distinct)
    found: list[Any] = []
    reason = "it has no JSON object"
    at = answer.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(answer, at)
        except json.JSONDecodeError as error:
            reason = f"its JSON is not whole: {error.msg}"
            break
        except RecursionError:
            raise UnstructuredError("it is nested too deeply") from None
        found.append(value)
        at = answer.find("{", end)
    if len(found) > 1 and any(each != found[0] for each in found):
        raise UnstructuredError("it has several JSON objects")
    if not found or at >= 0:
        raise UnstructuredError(reason)
    return found[0]


def cell_of(value: Any) -> str:
    """A value in a table of texts: a text as it is, unless it could be read as JSON; other values as JSON."""
    if isinstance(value, str) and value and not _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def fields_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields that a row has as an object of JSON or in columns of a table; None where it has none."""
    fields = row.get("fields")
    if isinstance(fields, Mapping):
        return dict(fields)
    columns = {str(name)[len(PREFIX) :]: value for name, value in row.items() if str(name).startswith(PREFIX)}
    known = {name: _value_of(value) for name, value in columns.items() if value not in (None, "")}
    return known or None


def _value_of(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _kind(schema: Any) -> str:
    """How a property stands in a column; `json` where its values may differ in kind."""
    if not isinstance(schema, dict):
        return "json"
    named = schema.get("type")
    types = [each for each in ([named] if isinstance(named, str) else named or []) if each != "null"]
    if not types and all(isinstance(each, str) for each in schema.get("enum", [0])):
        return "text"
    if types == ["array"] and _kind(schema.get("items")) == "text":
        return "texts"
    return _KINDS.get(types[0], "json") if len(types) == 1 else "json"


def _validator(name: str, schema: Mapping[str, Any]) -> Any:
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry
    except ImportError:
        raise missing_extra("jsonschema", "schema", "Structured captions") from None
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path)) or "its top"
        raise UsageError(f"{name} is no JSON Schema: at {place}, {first_line(error)}.", "Mend it.") from None
    return kind(schema, registry=Registry())


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _no_constant(name: str) -> None:
    raise UnstructuredError(f"{name} is no value of JSON")


def _small_integer(digits: str) -> int:
    if len(digits) > 20 or not -_MOST_INTEGER <= int(digits) < _MOST_INTEGER:
        raise UnstructuredError("it has an integer of more than 64 bits")
    return int(digits)


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise UnstructuredError("it names a field twice")
    return fields
