"""The server: application, middleware and models put together, run until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from captune.core.config import Resolved, resolve
from captune.core.errors import EXIT_TERMINATED, missing_extra
from captune.core.progress import SILENT, Progress

try:
    import fastapi_offline  # noqa: F401
    import prometheus_client  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.cors import CORSMiddleware
except ImportError as error:
    raise missing_extra(error.name or "fastapi", "serve", "captune serve") from None

from captune import __version__
from captune.server.connections import Connection, Connections, TrustedProxies
from captune.server.keys import VARIABLE, Keys, read_keys
from captune.server.logs import configure_logging, log_event
from captune.server.middleware import RequestLimits
from captune.server.openapi import add_docs_page, add_schema
from captune.server.problems import add_problem_handlers
from captune.server.routes import ROUTES
from captune.server.service import Service
from captune.server.startup import listen, parse_models

# Seconds that the exit may take beyond `--drain`, and after all accepted requests were answered.
_GRACE_SECONDS, _END_SECONDS = 0.3, 3.0
THREADS = "captune-"
LOCAL = ("127.0.0.1", "::1", "localhost")


def create_app(
    models: Mapping[str, str],
    config: Resolved | None = None,
    keys: Mapping[str, str] | None = None,
    *,
    on_loaded: Callable[[asyncio.Task[None]], object] | None = None,
    service: Service | None = None,
) -> FastAPI:
    """The server as an ASGI application, for a process manager or a larger application of your own.

    `models` are names and what they stand for (a run, a folder, a Hub id), `keys` names and keys.
    Models are loaded before the first request is taken; with `on_loaded` meanwhile, and it gets the task that ended.
    """
    config = config or resolve("serve")
    options = config.values.serve
    service = service or Service(models, config)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        try:
            if on_loaded is None:
                await loading
            else:
                loading.add_done_callback(on_loaded)
            yield
        finally:
            loading.cancel()
            await service.close()

    app = FastAPI(
        title="captune",
        version=__version__,
        description="Captions for images. Errors are RFC 9457 problem+json; each answer has an X-Request-ID.",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # served by `add_schema`
        docs_url=None,
        redoc_url=None,
    )
    add_docs_page(app)
    for router in ROUTES.values():
        app.include_router(router)
    add_problem_handlers(app)
    app.state.service = service
    app.state.connections = Connections(options.client_connections, TrustedProxies(options.forwarded_allow_ips))
    app.add_middleware(
        RequestLimits, options=options, keys=Keys(keys or {}), admission=service.admission, metrics=service.metrics
    )
    if options.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    add_schema(app)
    return app


def serve(
    models: Sequence[str],
    *,
    config: str | os.PathLike[str] | None = None,
    sets: Sequence[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> None:
    """Serve models (`MODEL` or `NAME=MODEL`) until SIGTERM or Ctrl-C; accepted requests are answered first.

    Options are those of `captune serve --help`; keys come from CAPTUNE_API_KEYS and `keys_file`. Raises
    `CaptuneError` where the port is taken or a model cannot be loaded.
    """
    environment = os.environ if environment is None else environment
    resolved = resolve("serve", file=config, environment=environment, flags=options, sets=sets)
    values = resolved.values.serve
    keys = read_keys(environment, values.keys_file)
    model_sources = parse_models(models)
    if not keys and values.host not in LOCAL:
        progress.warn(f"Everyone who reaches {values.host} can send requests: set {VARIABLE}=name=key, or --keys-file.")
    listener = listen(values.host, values.port)
    host, port = listener.getsockname()[:2]
    configure_logging()
    shown = f"[{host}]" if ":" in host else host

    def on_ready() -> None:
        progress.info(f"Serving {', '.join(model_sources)} at http://{shown}:{port} (API: /docs; stop with Ctrl-C)")

    def exit_process(code: int) -> None:
        if code:  # in a thread: whoever reads stderr may stall
            writer = threading.Thread(target=_log_cut_off, daemon=True)
            writer.start()
            writer.join(_GRACE_SECONDS / 2)
        os._exit(code)

    exit_timer = ExitTimer(exit_process)
    try:
        if not asyncio.run(_run(model_sources, resolved, keys, listener, on_ready, exit_timer)):
            # A batch cannot be interrupted, and its thread would keep the process alive.
            exit_process(EXIT_TERMINATED)
        for thread in threading.enumerate():  # some still work for requests that were cancelled
            if thread.name.startswith(THREADS) and not thread.daemon:
                thread.join()
    finally:
        exit_timer.cancel()
        listener.close()


def _log_cut_off() -> None:
    log_event("requests cut off", level=logging.WARNING, hint="They took longer than --drain allows.")
    logging.shutdown()


async def _run(
    models: Mapping[str, str],
    config: Resolved,
    keys: Mapping[str, str],
    listener: socket.socket,
    on_ready: Any,
    exit_timer: ExitTimer,
) -> bool:
    """Whether all accepted requests were answered. Health is answered while models are loaded."""
    options = config.values.serve
    loading: asyncio.Task[None] | None = None

    def loaded(task: asyncio.Task[None]) -> None:
        nonlocal loading
        loading = task
        if task.cancelled() or task.exception():
            server.should_exit = True
        else:
            on_ready()

    app = create_app(models, config, keys, on_loaded=loaded)
    server = _Server(
        uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # the middleware reads them, for the log
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
            # More connections at once could take the last file descriptor before others are closed.
            backlog=4,
        ),
        app.state.service,
        options.drain,
        exit_timer,
    )

    await server.serve(sockets=[listener])
    if loading is not None and not loading.cancelled():
        loading.result()
    return server.answered_all


class ExitTimer:
    """Ends the process by `exit(code)` after some time, from a thread of its own; the last `start` counts."""

    def __init__(self, exit: Callable[[int], object]) -> None:
        self._exit = exit
        self._timer: threading.Timer | None = None

    def start(self, seconds: float, code: Callable[[], int]) -> None:
        """Exit after so many seconds, with the code that `code` returns then."""
        self.cancel()
        self._timer = threading.Timer(seconds, lambda: self._exit(code()))
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """Do not exit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """uvicorn that stops in steps: not ready any more, accepted requests answered, then closed."""

    def __init__(self, config: uvicorn.Config, service: Service, seconds: float, exit_timer: ExitTimer) -> None:
        super().__init__(config)
        self.answered_all = True
        self._service, self._seconds, self._exit_timer = service, seconds, exit_timer
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(2048)  # those that wait in the kernel cost no descriptor

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _stop(self) -> None:
        if self._drain is None:
            self._exit_timer.start(self._seconds + _GRACE_SECONDS, self._abort)
            self._drain = asyncio.ensure_future(self._drain_requests())
        else:  # the second signal
            self.answered_all = self._service.admission.images == 0
            self._exit_timer.start(_GRACE_SECONDS, self._abort)
            self.should_exit = True

    def _abort(self) -> int:
        """Kill the decoders; returns the exit code."""
        self._service.decoder.kill()
        return 0 if self.answered_all and self._service.admission.images == 0 else EXIT_TERMINATED

    async def _drain_requests(self) -> None:
        admission = self._service.admission
        admission.draining = True
        started = time.monotonic()
        log_event("stopping", pictures=admission.images)
        try:
            async with asyncio.timeout(self._seconds):
                await admission.wait_until_empty()
        except TimeoutError:
            self.answered_all = False
        else:
            left = started + self._seconds - time.monotonic()
            self._exit_timer.start(max(_GRACE_SECONDS, min(_END_SECONDS, left)), self._abort)
        self.should_exit = True
