"""How much is let in at once: places for pictures and bytes of bodies."""

from __future__ import annotations

import asyncio
import math

from captune.web.problems import Problem


class Admission:
    """`places` for pictures, taken from the end of a request's body to its answer; no more than `most_bytes` held."""

    def __init__(self, places: int, most_bytes: int) -> None:
        self.places, self.most_bytes = places, most_bytes
        self.taken = self.held = 0
        self.arriving = 0  # requests whose bodies are on their way
        self.draining = False
        self._seconds = 1.0
        self._empty = asyncio.Event()

    def check(self) -> None:
        """Before a body is read; raises `Problem`: 429 where there is no place, 503 where the server will stop."""
        if self.draining:
            raise Problem(503, "The server is stopping.", "Try another one.", headers={"Retry-After": "1"})
        if self.taken >= self.places:
            raise self._busy("Too many pictures are waiting.")

    def take(self, pictures: int = 1) -> None:
        """Take places for pictures of a request that has arrived; raises `Problem` (429)."""
        if self.taken + pictures > self.places:
            raise self._busy("Too many pictures are waiting.")
        self.taken += pictures

    def hold(self, size: int) -> None:
        """Count bytes that are kept; raises `Problem` (429)."""
        if self.held + size > self.most_bytes:
            raise self._busy("Too many large requests at once.")
        self.held += size

    def leave(self, pictures: int, size: int, seconds: float) -> None:
        """Give places and bytes back, after so many seconds."""
        self.taken -= pictures
        self.held -= size
        if pictures:
            self._seconds += 0.1 * (seconds - self._seconds)
        if not self.taken and not self.arriving:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until nobody is in."""
        while self.taken or self.arriving:
            self._empty.clear()
            await self._empty.wait()

    def _busy(self, why: str) -> Problem:
        seconds = min(60, max(1, math.ceil(self._seconds)))
        return Problem(429, why, f"Try again in {seconds} s.", headers={"Retry-After": str(seconds)})
