"""The connections that are open: how many, of whom, and for how long."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from captune.web.clients import Clients, neighbourhood

if TYPE_CHECKING:
    from captune.web.connection import Connection


@dataclass(frozen=True)
class Clocks:
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


def _open_files() -> int:
    """Descriptors of this process; 0 where the system does not list them."""
    try:
        return len(os.listdir("/dev/fd")) - 1  # without the one that lists them
    except OSError:
        return 0


@dataclass(frozen=True)
class Descriptors:
    """Open files that the process may have, and how many of them are left to health and to its own work.

    `used` counts those that are open.
    """

    most: int
    reserve: int
    used: Callable[[], int] = _open_files

    @property
    def not_reserved(self) -> int:
        """So many are given to connections, and to what is open beside them."""
        return self.most - self.reserve

    @classmethod
    def of_process(cls) -> Descriptors | None:
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
        clients: Clients,
        *,
        clocks: Clocks | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        self.clocks = clocks or Clocks()
        self._each, self._clients = each, clients
        self._descriptors = descriptors or Descriptors.of_process()
        # By client, the oldest first.
        self._open: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        # Of connections, and of everything else that the process has open.
        self._count = self._others = 0
        self._sweep: asyncio.TimerHandle | None = None

    def enter(self, connection: Connection, descriptor: int) -> int | None:
        """The status that requests other than health get, None where all are served."""
        now = time.monotonic()
        own = self._open[neighbourhood(connection.address)]
        own[connection] = None
        self._count += 1
        if self._sweep is None:
            self._count_others()
            self._sweep = connection.loop.call_later(self.clocks.sweep, self._swept, connection.loop)
        before = now - self.clocks.moment
        if len(own) > self._each and not self._clients.is_proxy(connection.address) and not _give_way(own, before):
            return 429
        # A new connection gets the lowest free number: the number alone does not tell how many there are.
        used = max(descriptor, self._count + self._others)
        if self._descriptors is None or used < self._descriptors.not_reserved or self._make_room(before, len(own)):
            return None
        if used >= self._descriptors.most - self._descriptors.reserve // 2 and not self._make_room(now, len(own)):
            connection.left = True
            connection.transport.abort()
        return 503

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        client = neighbourhood(connection.address)
        if connection in self._open[client]:
            del self._open[client][connection]
            self._count -= 1
        if not self._open[client]:
            del self._open[client]

    def _swept(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep = None
        now = time.monotonic()
        for crowd in list(self._open.values()):
            for connection in list(crowd):
                connection.check(now)
        if self._descriptors is not None and 2 * (self._count + self._others) > self._descriptors.most:
            self._count_others()
            for _ in range(self._count + self._others - self._descriptors.not_reserved):
                if not self._make_room(now):
                    break
        if self._open:
            self._sweep = loop.call_later(self.clocks.sweep, self._swept, loop)

    def _count_others(self) -> None:
        if self._descriptors is not None:
            self._others = max(0, self._descriptors.used() - self._count)

    def _make_room(self, before: float, least: int = 1) -> bool:
        """Close a connection that was made before some time and waits for a request; False where none does.

        It is one of the client that has most, and at `least` so many.
        """
        crowds = sorted((crowd for crowd in self._open.values() if len(crowd) >= least), key=len, reverse=True)
        return any(_give_way(crowd, before) for crowd in crowds)


def _give_way(crowd: dict[Connection, None], before: float) -> bool:
    """Whether one of a client's connections, made before some time, waited for a request; it is closed."""
    for connection in crowd:
        if connection.made >= before:
            return False
        if connection.waits and not connection.left:
            connection.left = True
            connection.transport.abort()
            return True
    return False
