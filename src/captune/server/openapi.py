"""The schema of `/openapi.json`, made of the routes and the bodies that they read, and the page at `/docs`."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from captune.server.bodies import MULTIPART, RequestBody, is_list
from captune.server.middleware import PUBLIC_PATHS
from captune.server.problems import Problem, ProblemBody

SCHEMA_PATH = "/openapi.json"
_IMAGE_FIELDS = ("image", "images", "like")
_REFERENCE = "#/components/schemas/{model}"
_FLAG = re.compile(r"--([a-z][a-z-]+)")


def add_schema(app: FastAPI) -> None:
    """Add the bodies that routes read (`RequestBody`) and the key to the application's schema, and serve it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            bodies = _bodies(app)
            known = schema.setdefault("components", {})
            known["schemas"] = dict(sorted({**known.get("schemas", {}), **_components(bodies.values())}.items()))
            known["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, methods in schema["paths"].items():
                for method, operation in methods.items():
                    if (path, method) in bodies:
                        operation["requestBody"] = _described(bodies[path, method])
                        operation["responses"] = operation.pop("responses")  # behind the body
                    operation["security"] = [] if path in PUBLIC_PATHS else [{"key": []}, {}]
            app.openapi_schema = schema
        return app.openapi_schema

    @cache
    def rendered(root: str) -> bytes:
        servers = {"servers": [{"url": root}]} if root else {}
        return bytes(JSONResponse({**app.openapi(), **servers}).body)

    @app.get(SCHEMA_PATH, include_in_schema=False)
    async def schema(request: Request) -> Response:
        return Response(rendered(_root(request)), media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign]


def _bodies(app: FastAPI) -> dict[tuple[str, str], RequestBody[Any]]:
    """The bodies of routes by path and method."""
    return {
        (route.path, method.lower()): dependency.call
        for route in _api_routes(app.routes)
        for dependency in route.dependant.dependencies
        if isinstance(dependency.call, RequestBody)
        for method in route.methods or ()
    }


def _api_routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif isinstance(router := getattr(route, "original_router", None), APIRouter):  # how newer FastAPI includes one
            yield from _api_routes(router.routes)


def _described(body: RequestBody[Any]) -> dict[str, Any]:
    name = body.schema.__name__
    reference = {"schema": {"$ref": _REFERENCE.format(model=name)}}
    content: dict[str, Any] = {"application/json": {**reference, "example": body.example}}
    if body.forms:
        content[MULTIPART] = {"schema": {"$ref": _REFERENCE.format(model=f"{name}Form")}}
    return {"content": content, "required": True}


def _components(bodies: Iterable[RequestBody[Any]]) -> dict[str, Any]:
    """The schemas of all bodies and errors; of bodies that may be forms a second one, whose images are files."""
    bodies = list(bodies)
    kinds: dict[type[BaseModel], None] = dict.fromkeys([*(body.schema for body in bodies), ProblemBody])
    _, definitions = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_REFERENCE)
    schemas: dict[str, Any] = with_field_names(definitions["$defs"])
    for body in bodies:
        if not body.forms:
            continue
        name = f"{body.schema.__name__}Form"
        form = {**schemas[body.schema.__name__], "title": name}
        form["properties"] = {field: dict(value) for field, value in form["properties"].items()}
        for field in _IMAGE_FIELDS:
            if field in form["properties"]:
                file = {"type": "string", "format": "binary"}
                several = is_list(body.schema.model_fields[field].annotation)
                form["properties"][field] = {"type": "array", "items": file, "minItems": 1} if several else file
        schemas[name] = form
    return schemas


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
        root = _root(request)
        files = root + FILES
        return get_swagger_ui_html(
            openapi_url=root + SCHEMA_PATH,
            title=app.title,
            swagger_ui_parameters={"validatorUrl": None},  # it would ask another server
            swagger_js_url=f"{files}/{_SCRIPT}",
            swagger_css_url=f"{files}/{_STYLE}",
            swagger_favicon_url=f"{files}/{_ICON}",
        )


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


@cache
def _content(name: str) -> bytes:
    """A file in memory: opened for each client, slow clients would use up all file descriptors."""
    return (Path(fastapi_offline.__file__).parent / "static" / name).read_bytes()


async def _pieces(content: bytes) -> AsyncIterator[memoryview]:
    """Parts as large as a slow client may keep in memory."""
    whole = memoryview(content)
    for at in range(0, len(content), _PIECE):
        yield whole[at : at + _PIECE]


def with_field_names(schema: Any) -> Any:
    """A JSON schema whose descriptions name `sample`, not `--sample`."""
    if isinstance(schema, dict):
        return {
            name: _FLAG.sub(lambda flag: f"`{flag[1].replace('-', '_')}`", value)
            if name == "description" and isinstance(value, str)
            else with_field_names(value)
            for name, value in schema.items()
        }
    return [with_field_names(one) for one in schema] if isinstance(schema, list) else schema
