"""uvicorn's connection, closed where a client does not say what it wants, or does not read what it is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from captune.web.connections import Connections

LIMITED = "captune.limited"  # in a scope's state: the status for requests other than health
_LIMITED_HEAD_SECONDS = 5.0
# Chunks of a body this small cost more than they bring: bytes for each line of what arrives at once.
_SMALLEST_CHUNKS = 16


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
            self.app_state = {**self.app_state, LIMITED: status}
            self._head_seconds = min(self._head_seconds, _LIMITED_HEAD_SECONDS)
        self._head = self.loop.call_later(self._head_seconds, self._late)

    def data_received(self, data: bytes) -> None:
        if self._in_crumbs(data):
            self.transport.abort()
            return
        super().data_received(data)
        if not self.waits:
            self._arrived()
        elif self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(self._head_seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self.left = True
        self._arrived()
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

    def _in_crumbs(self, data: bytes) -> bool:
        """Whether a chunked body comes in chunks of a few bytes: a megabyte of them would keep the loop for seconds."""
        return (
            self.conn.their_state is h11.SEND_BODY
            and len(data) > 8 * _SMALLEST_CHUNKS
            and any(name == b"transfer-encoding" for name, _ in self.headers or ())
            and data.count(b"\r\n") * _SMALLEST_CHUNKS > len(data)
        )

    def _arrived(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        self._head = None
        if self.waits and not self.transport.is_closing():
            self.transport.close()
