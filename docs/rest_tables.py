"""Routes of the REST API as Markdown, from the OpenAPI schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]
Schemas = Mapping[str, Any]


def routes(api: Mapping[str, Any], search: set[str], wording: set[str], table: Table) -> str:
    """Every route with its fields, what stands in them, and what can go wrong; the options are listed once."""
    schemas, parts, told, within = api["components"]["schemas"], [], False, list[str]()
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            parts.append(f"### {method.upper()} {path}\n\n{_said(route)}\n")
            asked = route.get("requestBody", {}).get("content", {})
            if asked:
                name = _named(asked["application/json"]["schema"])
                schema = schemas[name]
                within += _within(name, schemas)[1:]
                several = search <= set(schema["properties"])
                leave = (search | wording) if several and told else ()
                parts.append(_fields(schema, table, leave=leave))
                if several and told:
                    more = " and around the caption" if wording <= set(schema["properties"]) else ""
                    parts.append(f"And the options of the search{more}, as for `/v1/caption`.\n")
                told = told or several
            answer = route["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
            several = answer.get("type") == "array"
            one = answer["items"] if several else answer
            if "$ref" in one:
                within += _within(_named(one), schemas)
                parts.append(f"Answer: {'a list of ' if several else ''}{_linked(one)}\n")
    for name in dict.fromkeys([*within, "ProblemBody"]):
        parts.append(f"### {name}\n\n{_about(schemas[name])}" + _fields(schemas[name], table))
    parts.append("### Errors\n\nA `ProblemBody` as `application/problem+json`:\n")
    return "\n".join([*parts, table(("status", "when"), sorted(_problems(api).items()))])


def _said(route: Mapping[str, Any]) -> str:
    summary = route["summary"]
    return f"{summary}{'' if summary.endswith('?') else '.'} {route['description']}"


def _problems(api: Mapping[str, Any]) -> dict[str, str]:
    answers = [route["responses"] for methods in api["paths"].values() for route in methods.values()]
    return {code: said["description"] for one in answers for code, said in one.items() if code >= "4"}


def _within(name: str, schemas: Schemas) -> list[str]:
    """A schema and those that stand in it."""
    found = [name]
    for inner in re.findall(r"schemas/(\w+)", json.dumps(schemas[name]["properties"])):
        found += [one for one in _within(inner, schemas) if one not in found]
    return found


def _about(schema: Mapping[str, Any]) -> str:
    return f"{schema['description']}\n\n" if "description" in schema else ""


def _fields(schema: Mapping[str, Any], table: Table, leave: Iterable[str] = ()) -> str:
    known = {name: field for name, field in schema["properties"].items() if name not in leave}
    head, rows = ["field", "type", "meaning"], [
        [f"`{name}`", _type(field), field.get("description", "")] for name, field in known.items()
    ]  # fmt: skip
    if "Request" in schema["title"]:
        head.insert(2, "default")
        for row, (name, field) in zip(rows, known.items(), strict=True):
            row.insert(2, _default(name, field, schema))
    return table(head, rows)


def _default(name: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if name in schema.get("required", ()):
        return "needed"
    return "" if field.get("default") is None else f"`{json.dumps(field['default'], ensure_ascii=False)}`"


def _type(field: Mapping[str, Any]) -> str:
    return " or ".join(_one_type(one) for one in field.get("anyOf", [field]) if one.get("type") != "null")


def _one_type(one: Mapping[str, Any]) -> str:
    if "$ref" in one:
        return _linked(one)
    if "enum" in one:
        return ", ".join(f"`{word}`" for word in one["enum"])
    if one.get("type") == "array":
        return f"list of {_type(one['items'])}" if "items" in one else "list"
    return str(one.get("type", "any"))


def _named(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _linked(schema: Mapping[str, Any]) -> str:
    return f"[`{_named(schema)}`](#{_named(schema).lower()})"
