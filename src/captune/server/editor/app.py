"""The editor: application, middleware and page put together, run until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
import webbrowser
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from captune.core.config import resolve
from captune.core.errors import missing_extra
from captune.core.progress import SILENT, Progress

try:
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse, Response
except ImportError as error:
    raise missing_extra(error.name or "fastapi", "serve", "captune edit") from None

from captune import __version__
from captune.core.options import WhereOptions
from captune.core.options.library import EditOptions
from captune.core.options.serve import ServeOptions
from captune.library.library import Library
from captune.server.connections import Connection, Connections, TrustedProxies
from captune.server.editor import reading, writing
from captune.server.editor.drafting import LazyModel
from captune.server.editor.origin import COOKIE, SameOrigin
from captune.server.editor.service import Drafting, EditorService
from captune.server.keys import VARIABLE, Keys, read_keys
from captune.server.logs import configure_logging
from captune.server.middleware import PUBLIC_PATHS, RequestLimits
from captune.server.openapi import add_schema
from captune.server.problems import add_problem_handlers
from captune.server.startup import listen, parse_models

LOCAL = ("127.0.0.1", "::1", "localhost")
# A model is loaded, and images are captioned, within a request.
_SECONDS = 900.0
_MAX_BODY, _MAX_QUEUE, _CONNECTIONS = 4.0, 64, 64
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_editor(
    library: Library,
    options: EditOptions | None = None,
    keys: Mapping[str, str] | None = None,
    *,
    models: Mapping[str, Drafting] | None = None,
    run_on: WhereOptions | None = None,
) -> FastAPI:
    """The editor of a library as an ASGI application; `models` can caption images again.

    `run_on` is where the library's matcher works, by which images are found.
    """
    options = options or EditOptions()
    limits = ServeOptions(
        host=options.host, hosts=options.hosts, timeout=_SECONDS, max_body=_MAX_BODY, max_queue=_MAX_QUEUE,
        access_log=False,
    )  # fmt: skip
    service = EditorService(
        library, options, limits, options.who or user_name(), models or {}, run_on or WhereOptions()
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="captune edit", version=__version__, lifespan=lifespan, redirect_slashes=False,
        openapi_url=None, docs_url=None, redoc_url=None,
        description="Captions of a library. Errors are RFC 9457 problem+json; each answer has an X-Request-ID.",
    )  # fmt: skip
    app.include_router(reading.router)
    app.include_router(writing.router)
    pages = page_files()
    _add_page(app, pages)
    add_problem_handlers(app)
    app.state.service = service
    app.state.connections = Connections(_CONNECTIONS, TrustedProxies(()))
    app.add_middleware(
        RequestLimits,
        options=limits,
        keys=Keys(keys or {}),
        admission=service.admission,
        metrics=service.metrics,
        public_paths=PUBLIC_PATHS | set(pages),
    )
    app.add_middleware(SameOrigin)
    add_schema(app)
    return app


@cache
def page_files() -> dict[str, tuple[bytes, str, str]]:
    """The files of the page by their paths: bytes, type, digest."""
    found = {}
    for file in (files("captune.server.editor") / "page").iterdir():
        suffix = os.path.splitext(file.name)[1]
        if suffix in _TYPES:
            data = file.read_bytes()
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            found[path] = (data, _TYPES[suffix], sha256(data).hexdigest()[:16])
    return found


def _add_page(app: FastAPI, pages: Mapping[str, tuple[bytes, str, str]]) -> None:
    async def page(request: Request) -> Response:
        data, kind, digest = pages[request.url.path]
        headers = {"Cache-Control": "no-cache", "ETag": f'"{digest}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=kind, headers=headers)

    for path in pages:
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)

    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/session", summary="A cookie with the key", tags=["library"])
    async def session(request: Request) -> Response:
        """The key of this request in a cookie of the browser, which scripts cannot read."""
        key = request.headers.get("authorization", "").partition(" ")[2].strip()
        answer = JSONResponse({"status": "ok"})
        answer.set_cookie(COOKIE, key, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer


def user_name() -> str:
    """The name of the system's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have none
        return "person"


def edit(
    folder: str | os.PathLike[str],
    models: Sequence[str] = (),
    *,
    config: str | os.PathLike[str] | None = None,
    sets: Sequence[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> None:
    """Serve the page of a folder's library until SIGTERM or Ctrl-C; a folder without a library gets one.

    Options are those of `captune edit --help`; keys come from CAPTUNE_API_KEYS and `keys_file`. `models` (`MODEL` or
    `NAME=MODEL`) can caption images again. Raises `CaptuneError` where the port is taken or the folder is not there.
    """
    environment = os.environ if environment is None else environment
    resolved = resolve("edit", file=config, environment=environment, flags=options, sets=sets)
    values = resolved.values
    keys = read_keys(environment, values.edit.keys_file)
    named = parse_models(models) if models else {}
    captioning = {
        name: value
        for group in (values.generation, values.translation, values.run_on, values.endpoint)
        for name, value in group.model_dump(exclude_defaults=True).items()
    }
    library = Library(
        folder, values.library.library, create=True,
        images=values.tables.images, allow_outside=values.tables.allow_outside,
    )  # fmt: skip
    if values.edit.scan:
        library.add(progress=progress)
    if not keys and values.edit.host not in LOCAL:
        progress.warn(f"Everyone who reaches {values.edit.host} can edit: set {VARIABLE}=name=key, or --keys-file.")
    drafting = {name: LazyModel(source, captioning) for name, source in named.items()}
    app = create_editor(library, values.edit, keys, models=drafting, run_on=values.run_on)
    listener = listen(values.edit.host, values.edit.port)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    configure_logging()
    try:
        asyncio.run(_run(app, listener, progress, address, values.edit.open_browser))
    finally:
        listener.close()


async def _run(app: FastAPI, listener: socket.socket, progress: Progress, address: str, open_browser: bool) -> None:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    progress.info(f"The page is at {address} (Ctrl-C ends it).")
    if open_browser:
        webbrowser.open(address)
    await server.serve(sockets=[listener])
