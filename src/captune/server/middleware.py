"""What every request passes: request id, key, rate limit, size of its body, place in the queue, time-out, log line."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Collection
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captune.core.options.serve import ServeOptions
from captune.server.bodies import check_type
from captune.server.connections import (
    LIMIT_STATUS,
    Timeouts,
    TrustedProxies,
    client_network,
    is_local_host,
    is_loopback,
)
from captune.server.keys import Keys, RateLimit, WrongKeyLimit
from captune.server.logs import log_event
from captune.server.problems import Problem


class Admission:
    """At most `max_images` from the end of a request's body to its answer, and `max_bytes` of bodies in memory."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self.max_images, self.max_bytes = max_images, max_bytes
        self.images = self.body_bytes = 0
        self.receiving = 0  # requests whose bodies are on their way
        self.draining = False
        self._mean_seconds = 1.0
        self._empty = asyncio.Event()

    def check(self) -> None:
        """Raises `Problem`, before a body is read: 429 where the queue is full, 503 where the server stops."""
        if self.draining:
            raise Problem(503, "The server is stopping.", "Try another one.", headers={"Retry-After": "1"})
        if self.images >= self.max_images:
            raise self._busy("Too many images are waiting.")

    def acquire(self, images: int = 1) -> None:
        """Add images of a received request to the queue; raises `Problem` (429)."""
        if self.images + images > self.max_images:
            raise self._busy("Too many images are waiting.")
        self.images += images

    def reserve_bytes(self, size: int) -> None:
        """Count bytes of a body; raises `Problem` (429)."""
        if self.body_bytes + size > self.max_bytes:
            raise self._busy("Too many large requests at once.")
        self.body_bytes += size

    def release(self, images: int, size: int, seconds: float) -> None:
        """Give images and bytes back, `seconds` after the request came."""
        self.images -= images
        self.body_bytes -= size
        if images:
            self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        if not self.images and not self.receiving:
            self._empty.set()

    async def wait_until_empty(self) -> None:
        """Wait until there is no request."""
        while self.images or self.receiving:
            self._empty.clear()
            await self._empty.wait()

    def _busy(self, why: str) -> Problem:
        return _too_many(why, min(60, max(1, math.ceil(self._mean_seconds))))


def _too_many(why: str, seconds: int) -> Problem:
    return Problem(429, why, f"Try again in {seconds} s.", headers={"Retry-After": str(seconds)})


PUBLIC_PATHS = frozenset(("/health/live", "/health/ready"))
ANONYMOUS = "anyone"
CLIENT_CLOSED_REQUEST = 499  # nginx's word for a client that left before its answer
# What is read of a body that is refused, in largest ones.
_MAX_DISCARDED_BODIES = 4
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServerMetrics:
    """Counts and times of one server."""

    media_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("captune_requests", "Requests answered.", ["route", "status"], registry=registry)
        self.seconds = Histogram(
            "captune_request_seconds", "Seconds to the answer.", ["route"], registry=registry, buckets=LATENCY_BUCKETS
        )
        self.batches = Histogram(
            "captune_batch_pictures", "Images in a batch.", ["model"], registry=registry, buckets=BATCH_BUCKETS
        )
        self.waiting = Gauge("captune_pictures_waiting", "Images that wait or are worked on.", registry=registry)
        self.loads = Counter("captune_model_loads", "Times that a model was loaded.", ["model"], registry=registry)
        self.loaded = Gauge("captune_models_loaded", "Models in memory.", registry=registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request by its route's template (bounded in number) and its status."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _ClientDisconnected(Exception):
    """The client has gone."""


@dataclass(eq=False)
class RequestContext:
    """A request in progress: its fields in the log, and what is released at its end (`stack`).

    `received`: its body is complete. `body` holds it until a route has read it. `client` is an address.
    """

    id: str
    deadline: float
    client: str | None = None
    key: str = ANONYMOUS
    body: bytearray = field(default_factory=bytearray)
    model: str | None = None
    images: int = 0
    body_bytes: int = 0
    received: bool = False
    status: int = 0
    started_response: bool = False
    finished: bool = False
    started: float = field(default_factory=time.monotonic)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def owner(self) -> str:
        """Whose request it is, for limits: the name of its key, else the client's network."""
        return self.key if self.key != ANONYMOUS else client_network(self.client)


class RequestLimits:
    """ASGI around the routes; a route finds its `RequestContext` in `scope["captune.request"]`.

    `public_paths` need no key, and are not logged.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        options: ServeOptions,
        keys: Keys,
        admission: Admission,
        metrics: ServerMetrics,
        public_paths: Collection[str] = PUBLIC_PATHS,
    ) -> None:
        self.public_paths = public_paths
        self.app, self.options, self.keys, self.admission, self.metrics = app, options, keys, admission, metrics
        self.rate, self.wrong_keys = RateLimit(options.rate), WrongKeyLimit()
        self.proxies = TrustedProxies(options.forwarded_allow_ips)
        self.max_bytes = int(options.max_body * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        context = RequestContext(
            request_id if _ID.fullmatch(request_id) else uuid4().hex, time.monotonic() + self.options.timeout
        )
        context.client = self.proxies.client_of(scope, headers)
        context.received = not _has_body(headers)
        scope["captune.request"] = context

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.started_response, context.status = True, message["status"]
                close = [] if context.received else [(b"connection", b"close")]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", context.id.encode()), *close]
            elif not message.get("more_body"):
                context.finished = True
            await send(message)

        try:
            await self._handle(scope, headers, context, receive, send_with_id)
        except _ClientDisconnected:
            context.status = CLIENT_CLOSED_REQUEST
        except Problem as problem:
            await self._send_problem(problem, context, scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - the last place that can answer
            log_event("error", level=logging.ERROR, error=error, request_id=context.id)
            await self._send_problem(Problem.of(RuntimeError()), context, scope, receive, send_with_id)
        finally:
            seconds = time.monotonic() - context.started
            self.admission.release(context.images, context.body_bytes, seconds)
            await context.stack.aclose()
            self._log_request(scope, context, seconds)

    async def _send_problem(
        self, problem: Problem, context: RequestContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if not context.started_response:
            await problem.response(context.id, scope["path"])(scope, receive, send)

    async def _handle(
        self, scope: Scope, headers: Headers, context: RequestContext, receive: Receive, send: Send
    ) -> None:
        timeouts: Timeouts = scope["app"].state.connections.timeouts
        try:
            if scope["path"] not in self.public_paths:
                self._authorize(scope, headers, context)
            if scope["method"] == "POST" and _has_route(scope):
                check_type(headers, scope["path"])
                self.admission.check()
                await self._receive_body(timeouts, headers, context, receive)
                self.admission.acquire()
                context.images = 1
            elif not context.received:
                await self._discard(timeouts, headers, receive)
        except Problem as problem:
            if not context.received and problem.status != 503:  # short of descriptors, or stopping
                await self._discard(timeouts, headers, receive)
            raise
        gone = asyncio.Event()
        # Routes read the body of the context.
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def replay() -> Message:
            if not messages:
                await gone.wait()
            return messages.pop() if messages else {"type": "http.disconnect"}

        work = asyncio.ensure_future(self.app(scope, replay, send))
        leaving = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            left = context.deadline - time.monotonic()
            done, _ = await asyncio.wait((work, leaving), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work in done or context.finished:
                await work
            elif leaving in done:
                raise _ClientDisconnected
            else:
                raise Problem(504, f"There was no answer within {self.options.timeout:g} s.", "Try again later.")
        finally:
            gone.set()
            for task in (work, leaving):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

    def _authorize(self, scope: Scope, headers: Headers, context: RequestContext) -> None:
        limited = scope.get("state", {}).get(LIMIT_STATUS)
        if limited is not None:
            raise Problem(limited, "Too many connections are open.", "Close some.", headers={"Retry-After": "1"})
        if self.keys:
            self._check_key(headers, context)
        elif is_loopback((scope.get("server") or [None])[0]):
            host = headers.get("host", "")
            if not is_local_host(host, self.options.hosts):
                raise Problem(
                    421,
                    f"A server without keys is not called {host[:200]}.",
                    "Call it localhost or by its address, or start it with --hosts and this name, or with keys.",
                )
        if seconds := self.rate.retry_after(context.key):
            raise _too_many(f"More than {self.options.rate:g} requests a minute.", seconds)

    def _check_key(self, headers: Headers, context: RequestContext) -> None:
        """Set the name of the request's key; raises `Problem`: 401, or 429 after too many wrong keys."""
        authorization = headers.get("authorization", "")
        name = self.keys.name_of(authorization)
        seconds = self.wrong_keys.retry_after(client_network(context.client), name) if authorization else 0
        if seconds:
            raise _too_many("Too many wrong keys came from this address.", seconds)
        if name is None:
            raise Problem(
                401,
                "A key is missing, or is not known.",
                "Send it as: Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        context.key = name

    async def _receive_body(
        self, timeouts: Timeouts, headers: Headers, context: RequestContext, receive: Receive
    ) -> None:
        """Read the body; raises `Problem` (408, 413, 429) and `_ClientDisconnected`."""
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self.max_bytes):
            raise self._too_large()
        began = time.monotonic()
        self.admission.receiving += 1
        try:
            context.received = False
            while not context.received:
                allowed = min(self.options.timeout, timeouts.body + context.body_bytes / timeouts.body_rate)
                async with asyncio.timeout(began + allowed - time.monotonic()):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientDisconnected
                part, context.received = message.get("body", b""), not message.get("more_body")
                if context.body_bytes + len(part) > self.max_bytes:
                    raise self._too_large()
                self.admission.reserve_bytes(len(part))
                context.body_bytes += len(part)
                context.body += part
        except TimeoutError:
            raise Problem(
                408, f"The body did not arrive within {time.monotonic() - began:.0f} s.", "Send it again."
            ) from None
        finally:
            self.admission.receiving -= 1

    async def _discard(self, timeouts: Timeouts, headers: Headers, receive: Receive) -> None:
        """Read a refused body, for a while, so that its client gets the answer; not one that waits for a 100 first."""
        if headers.get("expect", "").lower() == "100-continue":
            return
        remaining = self.max_bytes * _MAX_DISCARDED_BODIES
        with suppress(TimeoutError):
            async with asyncio.timeout(timeouts.discard):
                while remaining > 0:
                    message = await receive()
                    remaining -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return

    def _too_large(self) -> Problem:
        return Problem(413, f"The body is larger than {self.options.max_body:g} MB.", "Send a smaller image.")

    def _log_request(self, scope: Scope, context: RequestContext, seconds: float) -> None:
        route: Any = scope.get("route")
        self.metrics.answered(getattr(route, "path", "none"), context.status, seconds)
        if not self.options.access_log or scope["path"] in self.public_paths:
            return
        log_event(
            "request",
            request_id=context.id,
            key=context.key if self.keys else None,
            client=context.client,
            method=scope["method"],
            path=scope["path"],
            status=context.status,
            ms=round(1000 * seconds, 1),
            bytes=context.body_bytes or None,
            pictures=context.images or None,
            model=context.model,
        )


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _has_route(scope: Scope) -> bool:
    """Whether the application has a route for the path and the method: it answers 404 and 405 without a body."""
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].router.routes)
