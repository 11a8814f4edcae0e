"""Open connections: the client of each, how many a client may have, and time limits for slow ones."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import h11
from starlette.datastructures import Headers
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from captune.core.errors import UsageError

_ANY = "*"


class TrustedProxies:
    """`trusted` are addresses and networks of proxies whose X-Forwarded-For is trusted; `*`: all."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._any = _ANY in trusted
        try:
            self._trusted = [ip_network(each, strict=False) for each in trusted if each != _ANY]
        except ValueError as error:
            raise UsageError(
                f"--forwarded-allow-ips: {error}.", "Give addresses or networks, such as 10.0.0.0/8, or *."
            ) from None

    def is_proxy(self, address: str | None) -> bool:
        """Whether X-Forwarded-For of an address is trusted."""
        parsed = _parse_address(address or "")
        return parsed is not None and (self._any or any(parsed in network for network in self._trusted))

    def client_of(self, scope: Scope, headers: Headers) -> str | None:
        """The address of the client: the last one of X-Forwarded-For that no trusted proxy has; None: not known."""
        peer: str | None = (scope.get("client") or [None])[0]
        if not self.is_proxy(peer):
            return peer
        for part in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")[-20:]):
            address = _parse_address(part)
            if address is None:  # what stands before it is not trusted either
                break
            peer = str(address)
            if not self.is_proxy(peer):
                break
        return peer


def client_network(address: str | None) -> str:
    """The network that limits count as one client: the address, or the /64 of an IPv6 address."""
    parsed = _parse_address(address or "")
    return str(IPv6Network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else str(address)


def is_loopback(address: str | None) -> bool:
    """Whether only this machine reaches an address."""
    parsed = _parse_address(address or "")
    return parsed is not None and parsed.is_loopback


def is_local_host(host: str, allowed: Sequence[str]) -> bool:
    """Whether a Host header names a server of this machine: an address, localhost, or a name that is allowed.

    A page on the web can have its own name resolve to 127.0.0.1, but not change the Host that its browser sends.
    """
    name = host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    if not name or name == "localhost" or name.endswith(".localhost") or name in {each.lower() for each in allowed}:
        return True
    return _parse_address(name) is not None


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: perhaps in brackets, perhaps with a port."""
    text = text.strip()[:100]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@dataclass(frozen=True)
class Timeouts:
    """Seconds. All count total time: a byte now and then does not restart one.

    `headers`: until a request's line and headers are there; `body`: until its body is, and longer by what has come at
    `body_rate` bytes a second; `discard`: of a body that is refused, so that its client gets to read the answer;
    `write`: until a client that stopped reading has read on; `linger`: until a closed connection has sent what it has;
    `grace`: that a new connection has for its request before it is closed for others; `check_interval`: between checks.
    """

    headers: float = 20.0
    body: float = 10.0
    body_rate: float = 10_000
    write: float = 20.0
    discard: float = 2.0
    linger: float = 5.0
    check_interval: float = 1.0
    grace: float = 0.1


def _count_open_files() -> int:
    """Descriptors of this process; 0 where the system does not list them."""
    try:
        return len(os.listdir("/dev/fd")) - 1  # without the one that lists them
    except OSError:
        return 0


@dataclass(frozen=True)
class FileDescriptors:
    """The process's `limit` of open files, and the `reserve` for health requests and its own work."""

    limit: int
    reserve: int
    count_open: Callable[[], int] = _count_open_files

    @property
    def not_reserved(self) -> int:
        return self.limit - self.reserve

    @classmethod
    def of_process(cls) -> FileDescriptors | None:
        """None where the system does not limit them (Windows)."""
        try:
            import resource
        except ImportError:
            return None
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if limit == resource.RLIM_INFINITY else cls(limit, min(64, limit // 4))


class Connections:
    """The open connections of one server.

    Above `per_client` connections of a client, and where descriptors run short, the oldest one without a request is
    closed: one of the client's own, or of a client with as many. Where there is none, the new connection is answered
    health requests only.
    """

    def __init__(
        self,
        per_client: int,
        proxies: TrustedProxies,
        *,
        timeouts: Timeouts | None = None,
        descriptors: FileDescriptors | None = None,
    ) -> None:
        self.timeouts = timeouts or Timeouts()
        self._per_client, self._proxies = per_client, proxies
        self._descriptors = descriptors or FileDescriptors.of_process()
        # By client, the oldest first.
        self._open: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        # Of connections, and of everything else that the process has open.
        self._count = self._others = 0
        self._check_timer: asyncio.TimerHandle | None = None

    def add(self, connection: Connection, descriptor: int) -> int | None:
        """The status that requests other than health get, None where all are served."""
        now = time.monotonic()
        own = self._open[client_network(connection.address)]
        own[connection] = None
        self._count += 1
        if self._check_timer is None:
            self._count_others()
            self._check_timer = connection.loop.call_later(
                self.timeouts.check_interval, self._check_all, connection.loop
            )
        before = now - self.timeouts.grace
        if (
            len(own) > self._per_client
            and not self._proxies.is_proxy(connection.address)
            and not _close_oldest_idle(own, before)
        ):
            return 429
        # A new connection gets the lowest free number: the number alone does not tell how many there are.
        open_files = max(descriptor, self._count + self._others)
        if (
            self._descriptors is None
            or open_files < self._descriptors.not_reserved
            or self._close_one_idle(before, len(own))
        ):
            return None
        if open_files >= self._descriptors.limit - self._descriptors.reserve // 2 and not self._close_one_idle(
            now, len(own)
        ):
            connection.closed = True
            connection.transport.abort()
        return 503

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        client = client_network(connection.address)
        if connection in self._open[client]:
            del self._open[client][connection]
            self._count -= 1
        if not self._open[client]:
            del self._open[client]

    def _check_all(self, loop: asyncio.AbstractEventLoop) -> None:
        self._check_timer = None
        now = time.monotonic()
        for group in list(self._open.values()):
            for connection in list(group):
                connection.check(now)
        if self._descriptors is not None and 2 * (self._count + self._others) > self._descriptors.limit:
            self._count_others()
            for _ in range(self._count + self._others - self._descriptors.not_reserved):
                if not self._close_one_idle(now):
                    break
        if self._open:
            self._check_timer = loop.call_later(self.timeouts.check_interval, self._check_all, loop)

    def _count_others(self) -> None:
        if self._descriptors is not None:
            self._others = max(0, self._descriptors.count_open() - self._count)

    def _close_one_idle(self, before: float, at_least: int = 1) -> bool:
        """Close an idle connection opened before some time; False where there is none.

        It is one of the client with the most connections, and at `at_least` so many.
        """
        groups = sorted((group for group in self._open.values() if len(group) >= at_least), key=len, reverse=True)
        return any(_close_oldest_idle(group, before) for group in groups)


def _close_oldest_idle(group: dict[Connection, None], before: float) -> bool:
    """Close the oldest idle one of a client's connections, opened before some time; False where there is none."""
    for connection in group:
        if connection.opened >= before:
            return False
        if connection.idle and not connection.closed:
            connection.closed = True
            connection.transport.abort()
            return True
    return False


LIMIT_STATUS = "captune.limited"  # in a scope's state: the status for requests other than health
_LIMITED_HEADERS_SECONDS = 5.0
# Chunks of a body this small cost more than they bring: bytes for each line of what arrives at once.
_MIN_CHUNK_BYTES = 16


class Connection(H11Protocol):
    """A connection with the limits of `app.state.connections`: closed where its client sends or reads too slowly."""

    def __init__(self, config: Any, *args: Any, **settings: Any) -> None:
        super().__init__(config, *args, **settings)
        self._connections: Connections = config.app.state.connections
        self.address: str | None = None
        self.closed = False
        self.opened = 0.0
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_seconds = self._connections.timeouts.headers
        # Since when: writing is stopped, the rest of a body comes that nobody reads, the connection is being closed.
        self._stopped = self._unread = self._closing = 0.0

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = self.client[0] if self.client else None
        self.opened = time.monotonic()
        status = self._connections.add(self, transport.get_extra_info("socket").fileno())
        if status is not None:
            self.app_state = {**self.app_state, LIMIT_STATUS: status}
            self._header_seconds = min(self._header_seconds, _LIMITED_HEADERS_SECONDS)
        self._header_timer = self.loop.call_later(self._header_seconds, self._on_header_timeout)

    def data_received(self, data: bytes) -> None:
        if self._has_tiny_chunks(data):
            self.transport.abort()
            return
        super().data_received(data)
        if not self.idle:
            self._stop_header_timer()
        elif self._header_timer is None and self.timeout_keep_alive_task is None:
            self._header_timer = self.loop.call_later(self._header_seconds, self._on_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._stop_header_timer()
        self._connections.remove(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stopped = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stopped = 0.0
        super().resume_writing()

    def check(self, now: float) -> None:
        """Close the connection where one of its time limits has passed."""
        timeouts = self._connections.timeouts
        if self.transport.is_closing():
            # Closed it still waits, for ever, for its client to read the rest.
            self._closing = self._closing or now
            if now - self._closing >= timeouts.linger:
                self.transport.abort()
        elif self._stopped and now - self._stopped >= timeouts.write:
            self.transport.abort()
        elif self.cycle is not None and self.idle and self.conn.their_state is h11.SEND_BODY:
            self._unread = self._unread or now
            if now - self._unread >= timeouts.discard:
                self.transport.close()
        else:
            self._unread = 0.0

    def _has_tiny_chunks(self, data: bytes) -> bool:
        """Whether a chunked body comes in chunks of a few bytes: a megabyte of them would keep the loop for seconds."""
        return (
            self.conn.their_state is h11.SEND_BODY
            and len(data) > 8 * _MIN_CHUNK_BYTES
            and any(name == b"transfer-encoding" for name, _ in self.headers or ())
            and data.count(b"\r\n") * _MIN_CHUNK_BYTES > len(data)
        )

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_header_timeout(self) -> None:
        self._header_timer = None
        if self.idle and not self.transport.is_closing():
            self.transport.close()
