"""From the body of a request, JSON or multipart, to what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from captune.web.problems import Problem

Asked = TypeVar("Asked", bound=BaseModel)
MULTIPART = "multipart/form-data"


async def read_body(request: Request, kind: type[Asked]) -> Asked:
    """The body as `kind`; raises `Problem` (400, 415) and pydantic's `ValidationError`."""
    content = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content == MULTIPART:
        return kind.model_validate(await _form(request, _lists(kind)))
    if content and content != "application/json" and not content.endswith("+json"):
        raise Problem(
            415, f"A body of the type {content[:100]} is not known.", f"Send {MULTIPART} or application/json."
        )
    try:
        said = from_json(await request.body(), allow_inf_nan=False)
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}.", f"Send {MULTIPART} or application/json.") from None
    if not isinstance(said, dict):
        raise Problem(422, "The body is not a JSON object.", 'For example: {"image": "<base64>"}')
    return kind.model_validate(said)


def _lists(kind: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in kind.model_fields.items() if get_origin(field.annotation) is list)


async def _form(request: Request, lists: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        async with request.form(max_files=1000, max_fields=1000) as form:
            for name, value in form.multi_items():
                said = await value.read() if isinstance(value, UploadFile) else value
                if name in lists:
                    found.setdefault(name, []).append(said)
                elif name in found:
                    raise Problem(422, f"{name[:100]}: given twice.", errors=_twice(name))
                else:
                    found[name] = said
    except HTTPException as error:
        raise Problem(error.status_code, f"The form cannot be read: {error.detail}") from None
    except (UnicodeError, LookupError, ValueError, AssertionError):
        raise Problem(400, "The form cannot be read.", "Is it cut off, or in another encoding than UTF-8?") from None
    return found


def _twice(name: str) -> Sequence[dict[str, str]]:
    return [{"field": name[:100], "message": "given twice"}]
