"""The page at /docs that shows the routes and tries them: Swagger UI, whose files come from here and not from a CDN."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from mimetypes import guess_type
from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, StreamingResponse

from captune.web.problems import Problem

PAGE, FILES = "/docs", "/docs/files"
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"
_PIECE = 1 << 16


def add_to(app: FastAPI) -> None:
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
