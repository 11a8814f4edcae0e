"""Errors as RFC 9457 problem+json, from every route."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from captune.core.errors import CaptuneError
from captune.core.machine import is_out_of_memory

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
# What is below is Ollama's API.
OLLAMA_PATHS = "/api/"
# OpenAI's API; /v1/models is shared.
_OPENAI_PATHS = ("/v1/chat/completions", "/v1/models")
# What a client sent may be in a name or a message: an answer is not as long as its request.
_MAX_MESSAGE_LENGTH = 300


class ProblemBody(BaseModel):
    """What went wrong, where, and what to do next (RFC 9457)."""

    type: str = Field("about:blank", description="Always about:blank: the status says what kind it is.")
    title: str = Field(description="The status in words.", examples=["Unprocessable Entity"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="What is wrong.", examples=["the image: truncated"])
    hint: str | None = Field(None, description="What to do next.", examples=["Download or copy it again."])
    request_id: str | None = Field(None, description="The request's X-Request-ID, as in the server's log.")
    errors: list[dict[str, str]] | None = Field(
        None, description=f"Fields that are wrong, the first {MAX_ERRORS} of them: `field`, `message`."
    )
    error_count: int | None = Field(None, description="How many fields are wrong, where `errors` has not all.")


class Problem(Exception):
    """An answer with an error status."""

    def __init__(
        self,
        status: int,
        detail: str,
        hint: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[dict[str, str]] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint = status, detail, hint
        self.headers, self.errors = dict(headers or {}), list(errors)
        self.error_count: int | None = None

    @property
    def text(self) -> str:
        """What went wrong and what to do next, in a line."""
        return f"{self.detail} {self.hint}".strip()

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """The members of the problem that are set."""
        members = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint or None,
            "request_id": request_id,
            "errors": self.errors or None,
            "error_count": self.error_count,
        }
        return {name: value for name, value in members.items() if value is not None}

    def response(self, request_id: str | None = None, path: str = "") -> Response:
        """The answer to a request for `path`: Ollama's clients read the text in `error`, OpenAI's in its `message`."""
        body = self.body(request_id)
        if path.startswith(OLLAMA_PATHS):
            body["error"] = self.text
        elif path.startswith(_OPENAI_PATHS):
            kind = "invalid_request_error" if self.status < 500 else "server_error"
            body["error"] = {"message": self.text, "type": kind, "param": None, "code": None}
        text = json.dumps(body, ensure_ascii=False)
        return Response(
            text.encode("utf-8", "replace"), status_code=self.status, headers=self.headers, media_type=MEDIA_TYPE
        )

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """The problem for an exception; an unexpected one is 500 and reveals nothing."""
        if isinstance(error, Problem):
            return error
        if isinstance(error, ValidationError):  # first: as a text it is longer than what was sent
            return cls.of_fields(error.errors(include_url=False, include_context=False, include_input=False))
        if is_out_of_memory(error):
            return cls(
                503, "The server does not have enough memory for this image now.", "Try again later, or fewer beams."
            )
        if isinstance(error, CaptuneError):
            return cls(422, error.message, as_field(error.hint))
        return cls(500, "Something unexpected went wrong.", "The server's log has the request_id.")

    @classmethod
    def of_fields(cls, details: Sequence[Any]) -> Problem:
        """The problem of fields that are not valid; their values are not repeated."""
        errors = [
            {
                "field": _cut(".".join(str(part)[:_MAX_MESSAGE_LENGTH] for part in one["loc"] if part != "body")),
                "message": _cut(str(one["msg"]).removeprefix("Value error, ")),
            }
            for one in details[:MAX_ERRORS]
        ]
        first = errors[0]
        detail = f"{first['field']}: {first['message']}" if first["field"] else first["message"]
        if len(details) <= MAX_ERRORS:
            return cls(422, detail, errors=errors)
        problem = cls(422, f"{detail} ({len(details):,} fields are wrong)", errors=errors)
        problem.error_count = len(details)
        return problem


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_LENGTH else f"{text[: _MAX_MESSAGE_LENGTH - 1]}…"


def as_field(hint: str) -> str:
    """Words for the command line, for a request: `--max-pixels` becomes `max_pixels`."""
    return re.sub(r"--([a-z][a-z-]+)", lambda flag: flag[1].replace("-", "_"), hint)


def add_problem_handlers(app: FastAPI) -> None:
    """Make an application answer all errors as problems."""

    def answer(request: Request, error: Exception) -> Response:
        context = request.scope.get("captune.request")
        if isinstance(error, HTTPException):
            problem = Problem(error.status_code, str(error.detail), headers=error.headers)
        elif isinstance(error, RequestValidationError):
            problem = Problem.of_fields(error.errors())
        else:
            problem = Problem.of(error)
        return problem.response(context.id if context else None, request.url.path)

    for kind in (Problem, CaptuneError, ValidationError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
