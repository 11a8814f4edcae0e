"""The OpenAPI schema, and the page at /docs that shows the routes and tries them (Swagger UI, from files here)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from mimetypes import guess_type
from pathlib import Path
from typing import Any, get_origin

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from captune.server.bodies import MULTIPART
from captune.server.middleware import PUBLIC_PATHS
from captune.server.problems import Problem, ProblemBody
from captune.server.schemas import AskRequest, BatchRequest, CaptionRequest, ChatRequest, MatchRequest, with_field_names

REQUEST_SCHEMAS: tuple[type[BaseModel], ...] = (
    CaptionRequest,
    BatchRequest,
    AskRequest,
    MatchRequest,
    ChatRequest,
    ProblemBody,
)
PICTURES = ("image", "images")


def body(kind: type[BaseModel], example: dict[str, Any], *, forms: bool = True) -> dict[str, Any]:
    """The body of a route, for OpenAPI."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}, "example": example}
    }
    if forms:
        content[MULTIPART] = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}Form"}}
    return {"requestBody": {"required": True, "content": content}}


def components() -> dict[str, Any]:
    """The schemas of all bodies; of those that may be forms a second one, whose pictures are files."""
    template = "#/components/schemas/{model}"
    _, found = models_json_schema([(kind, "validation") for kind in REQUEST_SCHEMAS], ref_template=template)
    schemas: dict[str, Any] = with_field_names(found["$defs"])
    for kind in REQUEST_SCHEMAS[:4]:
        form = {**schemas[kind.__name__], "title": f"{kind.__name__}Form"}
        form["properties"] = {name: dict(field) for name, field in form["properties"].items()}
        for name in PICTURES:
            if name in form["properties"]:
                file = {"type": "string", "format": "binary"}
                several = get_origin(kind.model_fields[name].annotation) is list
                form["properties"][name] = {"type": "array", "items": file, "minItems": 1} if several else file
        schemas[f"{kind.__name__}Form"] = form
    return schemas


def document(app: FastAPI) -> None:
    """The schemas of bodies that routes read themselves, and the key, in the application's schema."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            known = schema.setdefault("components", {})
            known["schemas"] = dict(sorted({**known.get("schemas", {}), **components()}.items()))
            known["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, methods in schema["paths"].items():
                for method in methods.values():
                    method["security"] = [] if path in PUBLIC_PATHS else [{"key": []}, {}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


PAGE, FILES = "/docs", "/docs/files"
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"
_PIECE = 1 << 16


def add_docs_page(app: FastAPI) -> None:
    """Serve the page and its files."""

    @app.get(FILES + "/{name}", include_in_schema=False)
    async def file(name: str) -> StreamingResponse:
        if name not in (_SCRIPT, _STYLE, _ICON):
            raise Problem(404, "Not Found")
        content = _content(name)
        headers = {"Content-Length": str(len(content)), "Cache-Control": "max-age=3600"}
        return StreamingResponse(_pieces(content), headers=headers, media_type=guess_type(name)[0])

    @app.get(PAGE, include_in_schema=False)
    async def explore(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        files = root + FILES
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_ui_parameters={"validatorUrl": None},  # it would ask another server
            swagger_js_url=f"{files}/{_SCRIPT}",
            swagger_css_url=f"{files}/{_STYLE}",
            swagger_favicon_url=f"{files}/{_ICON}",
        )


@cache
def _content(name: str) -> bytes:
    """A file in memory: were it opened for each client, those that do not read on would take up all descriptors."""
    return (Path(fastapi_offline.__file__).parent / "static" / name).read_bytes()


async def _pieces(content: bytes) -> AsyncIterator[memoryview]:
    """As much at once as a client that does not read on may keep."""
    whole = memoryview(content)
    for at in range(0, len(content), _PIECE):
        yield whole[at : at + _PIECE]
