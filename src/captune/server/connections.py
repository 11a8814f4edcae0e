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
    """`trusted` are addresses and networks of proxies whose X-Forwarded-For is believed; `*`: everyone's."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._any = _ANY in trusted
        try:
            self._trusted = [ip_network(each, strict=False) for each in trusted if each != _ANY]
        except ValueError as error:
            raise UsageError(
                f"--forwarded-allow-ips: {error}.", "Give addresses or networks, such as 10.0.0.0/8, or *."
            ) from None

    def is_proxy(self, address: str | None) -> bool:
        """Whether what an address says of others is believed."""
        found = _parse_address(address or "")
        return found is not None and (self._any or any(found in network for network in self._trusted))

    def of(self, scope: Scope, headers: Headers) -> str | None:
        """The address of the client: the last one of X-Forwarded-For that no trusted proxy has; None: not known."""
        peer: str | None = (scope.get("client") or [None])[0]
        if not self.is_proxy(peer):
            return peer
        for part in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")[-20:]):
            found = _parse_address(part)
            if found is None:  # not an address: what stands before it is not believed either
                break
            peer = str(found)
            if not self.is_proxy(peer):
                break
        return peer


def client_network(address: str | None) -> str:
    """What limits are counted for: an address, of IPv6 the /64 that one client has to itself."""
    found = _parse_address(address or "")
    return str(IPv6Network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(address)


def is_loopback(address: str | None) -> bool:
    """Whether only this machine reaches an address."""
    found = _parse_address(address or "")
    return found is not None and found.is_loopback


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
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


@dataclass(frozen=True)
class Timeouts:
    """Seconds. All count total time: a byte now and then does not wind one up.

    `head`: until a request's line and headers are there; `body`: until its body is, and longer by what has come at
    `body_rate` bytes a second; `rest`: of a body that is refused, so that its client gets to read the answer;
    `write`: until a client that stopped reading has read on; `linger`: until a closed connection has sent what it has;
    `moment`: that a new connection has for its request before it gives way to others.
    """

    head: float = 20.0
    body: float = 10.0
    body_rate: float = 10_000
    write: float = 20.0
    rest: float = 2.0
    linger: float = 5.0
    sweep: float = 1.0
    moment: float = 0.1


def _count_open_files() -> int:
    """Descriptors of this process; 0 where the system does not list them."""
    try:
        return len(os.listdir("/dev/fd")) - 1  # without the one that lists them
    except OSError:
        return 0


@dataclass(frozen=True)
class FileDescriptors:
    """Open files that the process may have, and how many of them are left to health and to its own work.

    `used` counts those that are open.
    """

    most: int
    reserve: int
    used: Callable[[], int] = _count_open_files

    @property
    def not_reserved(self) -> int:
        """So many are given to connections, and to what is open beside them."""
        return self.most - self.reserve

    @classmethod
    def of_process(cls) -> FileDescriptors | None:
        """None where the system does not limit them (Windows)."""
        try:
            import resource
        except ImportError:
            return None
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return None if most == resource.RLIM_INFINITY else cls(most, min(64, most // 4))


class Connections:
    """Those of one server; a connection enters, and leaves at its end.

    Above `each` connections of a client, and where descriptors run short, the one that has waited longest for a
    request gives way: one of the client's own, or of one that has as many. Where none has waited for a moment, a new
    one is `limited`: it is told about health and nothing else.
    """

    def __init__(
        self,
        each: int,
        clients: TrustedProxies,
        *,
        clocks: Timeouts | None = None,
        descriptors: FileDescriptors | None = None,
    ) -> None:
        self.clocks = clocks or Timeouts()
        self._each, self._clients = each, clients
        self._descriptors = descriptors or FileDescriptors.of_process()
        # By client, the oldest first.
        self._open: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        # Of connections, and of everything else that the process has open.
        self._count = self._others = 0
        self._check_timer: asyncio.TimerHandle | None = None

    def enter(self, connection: Connection, descriptor: int) -> int | None:
        """The status that requests other than health get, None where all are served."""
        now = time.monotonic()
        own = self._open[client_network(connection.address)]
        own[connection] = None
        self._count += 1
        if self._check_timer is None:
            self._count_others()
            self._check_timer = connection.loop.call_later(self.clocks.sweep, self._check_all, connection.loop)
        before = now - self.clocks.moment
        if (
            len(own) > self._each
            and not self._clients.is_proxy(connection.address)
            and not _close_oldest_idle(own, before)
        ):
            return 429
        # A new connection gets the lowest free number: the number alone does not tell how many there are.
        used = max(descriptor, self._count + self._others)
        if self._descriptors is None or used < self._descriptors.not_reserved or self._close_one_idle(before, len(own)):
            return None
        if used >= self._descriptors.most - self._descriptors.reserve // 2 and not self._close_one_idle(now, len(own)):
            connection.left = True
            connection.transport.abort()
        return 503

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        client = client_network(connection.address)
        if connection in self._open[client]:
            del self._open[client][connection]
            self._count -= 1
        if not self._open[client]:
            del self._open[client]

    def _check_all(self, loop: asyncio.AbstractEventLoop) -> None:
        self._check_timer = None
        now = time.monotonic()
        for crowd in list(self._open.values()):
            for connection in list(crowd):
                connection.check(now)
        if self._descriptors is not None and 2 * (self._count + self._others) > self._descriptors.most:
            self._count_others()
            for _ in range(self._count + self._others - self._descriptors.not_reserved):
                if not self._close_one_idle(now):
                    break
        if self._open:
            self._check_timer = loop.call_later(self.clocks.sweep, self._check_all, loop)

    def _count_others(self) -> None:
        if self._descriptors is not None:
            self._others = max(0, self._descriptors.used() - self._count)

    def _close_one_idle(self, before: float, least: int = 1) -> bool:
        """Close a connection that was made before some time and waits for a request; False where none does.

        It is one of the client that has most, and at `least` so many.
        """
        crowds = sorted((crowd for crowd in self._open.values() if len(crowd) >= least), key=len, reverse=True)
        return any(_close_oldest_idle(crowd, before) for crowd in crowds)


def _close_oldest_idle(crowd: dict[Connection, None], before: float) -> bool:
    """Whether one of a client's connections, made before some time, waited for a request; it is closed."""
    for connection in crowd:
        if connection.made >= before:
            return False
        if connection.waits and not connection.left:
            connection.left = True
            connection.transport.abort()
            return True
    return False


LIMIT_STATUS = "captune.limited"  # in a scope's state: the status for requests other than health
_LIMITED_HEADERS_SECONDS = 5.0
# Chunks of a body this small cost more than they bring: bytes for each line of what arrives at once.
_MIN_CHUNK_BYTES = 16


class Connection(H11Protocol):
    """A connection on the clocks of `app.state.connections`, which it enters."""

    def __init__(self, config: Any, *args: Any, **settings: Any) -> None:
        super().__init__(config, *args, **settings)
        self.crowd: Connections = config.app.state.connections
        self.address: str | None = None
        self.left = False
        self.made = 0.0
        self._head: asyncio.TimerHandle | None = None
        self._head_seconds = self.crowd.clocks.head
        # Since when: writing is stopped, the rest of a body comes that nobody reads, the connection is being closed.
        self._stopped = self._unread = self._closing = 0.0

    @property
    def waits(self) -> bool:
        """Whether no request is worked on."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = self.client[0] if self.client else None
        self.made = time.monotonic()
        status = self.crowd.enter(self, transport.get_extra_info("socket").fileno())
        if status is not None:
            self.app_state = {**self.app_state, LIMIT_STATUS: status}
            self._head_seconds = min(self._head_seconds, _LIMITED_HEADERS_SECONDS)
        self._head = self.loop.call_later(self._head_seconds, self._on_header_timeout)

    def data_received(self, data: bytes) -> None:
        if self._has_tiny_chunks(data):
            self.transport.abort()
            return
        super().data_received(data)
        if not self.waits:
            self._stop_header_timer()
        elif self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(self._head_seconds, self._on_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left = True
        self._stop_header_timer()
        self.crowd.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._stopped = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stopped = 0.0
        super().resume_writing()

    def check(self, now: float) -> None:
        """End the connection where one of its clocks has run out."""
        clocks = self.crowd.clocks
        if self.transport.is_closing():
            # Closed it still waits, for ever, for its client to read the rest.
            self._closing = self._closing or now
            if now - self._closing >= clocks.linger:
                self.transport.abort()
        elif self._stopped and now - self._stopped >= clocks.write:
            self.transport.abort()
        elif self.cycle is not None and self.waits and self.conn.their_state is h11.SEND_BODY:
            self._unread = self._unread or now
            if now - self._unread >= clocks.rest:
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
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _on_header_timeout(self) -> None:
        self._head = None
        if self.waits and not self.transport.is_closing():
            self.transport.close()
