"""What every request passes: a name, its key, its route, its body within limits, a place, a deadline, a log line."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from captune.core.serve_options import ServeOptions
from captune.web.admission import Admission
from captune.web.bodies import check_type
from captune.web.clients import Clients, is_local_name, is_loopback, neighbourhood
from captune.web.connection import LIMITED
from captune.web.connections import Clocks
from captune.web.keys import Guesses, Keys, Rate
from captune.web.logs import tell
from captune.web.measures import Measures
from captune.web.problems import Problem

OPEN = frozenset(("/health/live", "/health/ready"))
ANYONE = "anyone"
GONE = 499  # nginx's word for a client that left before its answer
# What is read of a body that is refused, in largest ones.
_DISCARD_BODIES = 4
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)


class _Left(Exception):
    """The client has gone."""


@dataclass(eq=False)
class Visit:
    """A request on its way: what the log says of it, and what is given back at its end (`stack`).

    `heard`: its body has arrived; `begun`, `ended`: so has its answer. `held` are the bytes of the body, and `body`
    is itself, until a route has read it. `client` is an address.
    """

    id: str
    deadline: float
    client: str | None = None
    key: str = ANYONE
    body: bytearray = field(default_factory=bytearray)
    model: str | None = None
    pictures: int = 0
    held: int = 0
    heard: bool = False
    status: int = 0
    begun: bool = False
    ended: bool = False
    started: float = field(default_factory=time.monotonic)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)


class Gate:
    """ASGI around the routes; a route finds its `Visit` in `scope["captune.visit"]`."""

    def __init__(
        self, app: ASGIApp, *, options: ServeOptions, keys: Keys, admission: Admission, measures: Measures
    ) -> None:
        self.app, self.options, self.keys, self.admission, self.measures = app, options, keys, admission, measures
        self.rate, self.guesses = Rate(options.rate), Guesses()
        self.clients = Clients(options.forwarded_allow_ips)
        self.most = int(options.max_body * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        visit = Visit(given if _ID.fullmatch(given) else uuid4().hex, time.monotonic() + self.options.timeout)
        visit.client = self.clients.of(scope, headers)
        visit.heard = not _has_body(headers)
        scope["captune.visit"] = visit

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.begun, visit.status = True, message["status"]
                close = [] if visit.heard else [(b"connection", b"close")]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", visit.id.encode()), *close]
            elif not message.get("more_body"):
                visit.ended = True
            await send(message)

        try:
            await self._pass(scope, headers, visit, receive, telling)
        except _Left:
            visit.status = GONE
        except Problem as problem:
            await self._answer(problem, visit, scope, receive, telling)
        except Exception as error:  # noqa: BLE001 - the last place that can answer
            tell("error", level=logging.ERROR, error=error, request_id=visit.id)
            await self._answer(Problem.of(RuntimeError()), visit, scope, receive, telling)
        finally:
            seconds = time.monotonic() - visit.started
            self.admission.leave(visit.pictures, visit.held, seconds)
            await visit.stack.aclose()
            self._note(scope, visit, seconds)

    async def _answer(self, problem: Problem, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        if not visit.begun:
            await problem.response(visit.id)(scope, receive, send)

    async def _pass(self, scope: Scope, headers: Headers, visit: Visit, receive: Receive, send: Send) -> None:
        clocks: Clocks = scope["app"].state.connections.clocks
        try:
            if scope["path"] not in OPEN:
                self._let_in(scope, headers, visit)
            if scope["method"] == "POST" and _is_routed(scope):
                check_type(headers)
                self.admission.check()
                await self._body(clocks, headers, visit, receive)
                self.admission.take()
                visit.pictures = 1
            elif not visit.heard:
                await self._discard(clocks, headers, receive)
        except Problem as problem:
            if not visit.heard and problem.status != 503:  # short of descriptors, or stopping
                await self._discard(clocks, headers, receive)
            raise
        gone = asyncio.Event()
        told = False

        async def replay() -> Message:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": b"", "more_body": False}  # routes read the visit's
            await gone.wait()
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self.app(scope, replay, send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            left = visit.deadline - time.monotonic()
            done, _ = await asyncio.wait((work, leaving), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work in done or visit.ended:
                await work
            elif leaving in done:
                raise _Left
            else:
                raise Problem(504, f"There was no answer within {self.options.timeout:g} s.", "Try again later.")
        finally:
            gone.set()
            for task in (work, leaving):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work

    def _let_in(self, scope: Scope, headers: Headers, visit: Visit) -> None:
        limited = scope.get("state", {}).get(LIMITED)
        if limited is not None:
            raise Problem(limited, "Too many connections are open.", "Close some.", headers={"Retry-After": "1"})
        if self.keys:
            self._know(headers, visit)
        elif is_loopback((scope.get("server") or [None])[0]):
            host = headers.get("host", "")
            if not is_local_name(host, self.options.hosts):
                raise Problem(
                    421,
                    f"A server without keys is not called {host[:200]}.",
                    "Call it localhost or by its address, or start it with --hosts and this name, or with keys.",
                )
        seconds = self.rate.wait(visit.key)
        if seconds:
            raise Problem(
                429,
                f"More than {self.options.rate:g} requests a minute.",
                f"Try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )

    def _know(self, headers: Headers, visit: Visit) -> None:
        """Find the name of a request's key; raises `Problem`: 401, or 429 where too many wrong ones came."""
        given = headers.get("authorization", "")
        name = self.keys.name_of(given)
        seconds = self.guesses.wait(neighbourhood(visit.client), name) if given else 0
        if seconds:
            raise Problem(
                429,
                "Too many wrong keys came from this address.",
                f"Try again in {seconds} s.",
                headers={"Retry-After": str(seconds)},
            )
        if name is None:
            raise Problem(
                401,
                "A key is missing, or is not known.",
                "Send it as: Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        visit.key = name

    async def _body(self, clocks: Clocks, headers: Headers, visit: Visit, receive: Receive) -> None:
        """Fill the visit's body; raises `Problem` (408, 413, 429) and `_Left`."""
        said = headers.get("content-length", "")
        if said.isdecimal() and (len(said) > 18 or int(said) > self.most):
            raise self._too_large()
        began = time.monotonic()
        self.admission.arriving += 1
        try:
            visit.heard = False
            while not visit.heard:
                allowed = min(self.options.timeout, clocks.body + visit.held / clocks.body_rate)
                async with asyncio.timeout(began + allowed - time.monotonic()):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Left
                part, visit.heard = message.get("body", b""), not message.get("more_body")
                if visit.held + len(part) > self.most:
                    raise self._too_large()
                self.admission.hold(len(part))
                visit.held += len(part)
                visit.body += part
        except TimeoutError:
            raise Problem(
                408, f"The body did not arrive within {time.monotonic() - began:.0f} s.", "Send it again."
            ) from None
        finally:
            self.admission.arriving -= 1

    async def _discard(self, clocks: Clocks, headers: Headers, receive: Receive) -> None:
        """Read on, to the end of a body that nobody wants, or for a while; not one that waits for a 100 first."""
        if headers.get("expect", "").lower() == "100-continue":
            return
        most = self.most * _DISCARD_BODIES
        with suppress(TimeoutError):
            async with asyncio.timeout(clocks.rest):
                while most > 0:
                    message = await receive()
                    most -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return

    def _too_large(self) -> Problem:
        return Problem(413, f"The body is larger than {self.options.max_body:g} MB.", "Send a smaller picture.")

    def _note(self, scope: Scope, visit: Visit, seconds: float) -> None:
        route: Any = scope.get("route")
        self.measures.answered(getattr(route, "path", "none"), visit.status, seconds)
        if not self.options.access_log or scope["path"] in OPEN:
            return
        tell(
            "request",
            request_id=visit.id,
            key=visit.key if self.keys else None,
            client=visit.client,
            method=scope["method"],
            path=scope["path"],
            status=visit.status,
            ms=round(1000 * seconds, 1),
            bytes=visit.held or None,
            pictures=visit.pictures or None,
            model=visit.model,
        )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_routed(scope: Scope) -> bool:
    """Whether the application has a route for the path and the method: it answers 404 and 405 without a body."""
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].router.routes)
