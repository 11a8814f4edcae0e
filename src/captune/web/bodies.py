"""From the body of a request, JSON or a form, to what it says; away from the event loop, as it may be large."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request

from captune.web.forms import read_form
from captune.web.freed import give_back
from captune.web.json_bodies import read_json
from captune.web.problems import Problem

Asked = TypeVar("Asked", bound=BaseModel)
MULTIPART = "multipart/form-data"
# Smaller bodies are read at once: a change of threads costs more.
_SMALL = 4_000
MOST_ITEMS = 1_000
_LONGEST_NAME = 200


def check_type(headers: Headers) -> None:
    """Raises `Problem` (415) for the head of a body that is neither JSON nor a form, or is packed."""
    packed = headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        raise Problem(415, f"A body packed by {packed[:100]} is not read.", "Send it as it is.")
    content = _media_type(headers)
    if content and content not in (MULTIPART, "application/json") and not content.endswith("+json"):
        raise Problem(
            415, f"A body of the type {content[:100]} is not known.", f"Send {MULTIPART} or application/json."
        )


async def read_body(request: Request, kind: type[Asked]) -> Asked:
    """The body as `kind`; raises `Problem` (400, 413, 415, 422). It is forgotten then: what was read is a copy."""
    check_type(request.headers)
    body = request.scope["captune.visit"].body
    read = partial(_read, body, request.headers, kind)
    if len(body) <= _SMALL:
        return read()
    return await asyncio.get_running_loop().run_in_executor(request.app.state.service.readers, read)


def _read(body: bytearray, headers: Headers, kind: type[Asked]) -> Asked:
    size = len(body)
    give_back(size)
    try:
        return _said(body, headers, kind)
    finally:
        body.clear()
        give_back(size)


def _said(body: bytearray, headers: Headers, kind: type[Asked]) -> Asked:
    if _media_type(headers) == MULTIPART:
        lists = [name for name, field in kind.model_fields.items() if get_origin(field.annotation) is list]
        said = read_form(body, headers["content-type"], lists)
    else:
        said = read_json(body)
        if not isinstance(said, dict):
            raise Problem(422, "The body is not a JSON object.", 'For example: {"image": "<base64>"}')
        _check_shape(said)
    try:
        return kind.model_validate(said)
    except ValidationError as error:  # here and not in the event loop: there may be thousands of errors
        raise Problem.of(error) from None


def _check_shape(said: dict[str, Any]) -> None:
    """Before each item may have an error of its own; raises `Problem` (422) for long lists, objects and names."""
    open_ones: list[Any] = [said]
    while open_ones:
        one = open_ones.pop()
        if len(one) > MOST_ITEMS:
            what = "An object" if isinstance(one, dict) else "A list"
            raise Problem(422, f"{what} has {len(one):,} items; {MOST_ITEMS:,} are allowed.", "Send fewer at once.")
        if isinstance(one, dict):
            for name in one:
                if len(name) > _LONGEST_NAME:
                    raise Problem(422, f"{name[:_LONGEST_NAME]}…: no field has a name as long.")
        items = one.values() if isinstance(one, dict) else one
        open_ones += [item for item in items if isinstance(item, (dict, list))]


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
