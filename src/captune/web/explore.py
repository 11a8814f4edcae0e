"""The page at /docs that shows the routes and tries them: Swagger UI, whose files come from here and not from a CDN."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PAGE, FILES = "/docs", "/docs/files"


def add_to(app: FastAPI) -> None:
    """Serve the page and its files."""
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(FILES, StaticFiles(directory=folder), name="explore")

    @app.get(PAGE, include_in_schema=False)
    async def explore(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        files = root + FILES
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_ui_parameters={"validatorUrl": None},  # it would ask another server
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon.png",
        )
