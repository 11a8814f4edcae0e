"""Digests of the result files that captune put at an address, so that a person's are never taken for its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from captune.data.bulk.names import WRITTEN
from captune.data.writers.existing import known_digests

_MOST = 1000  # digests of a file: it is written whole again for each result
# What a listing tells of an object that changes whenever its contents do; the first that is there counts.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "content_md5",
    "mtime",
    "last_modified",
    "LastModified",
    "created",
)


class RemoteLedger:
    """As `captune.data.writers.existing.Ledger`, where no line can be added to a file.

    Several runs may write at a time, so each has files of its own, `_job/written-…`; what they hold together counts.
    `read` gives the contents of all of them, `write` puts one in its place, by name.
    """

    def __init__(self, read: Callable[[], Iterable[bytes]], write: Callable[[str, bytes], None]) -> None:
        self._read, self._write = read, write
        self._known: set[str] = set()
        self._name, self._own, self._later = _new_name(), [], []  # type: str, list[str], list[str]

    def refresh(self) -> None:
        """Read what all runs have noted."""
        for data in self._read():
            self._known |= known_digests(data)

    def has(self, digest: str) -> bool:
        return digest in self._known

    def add(self, digest: str) -> None:
        """Note what is about to be written, and what `later` was given."""
        if len(self._own) >= _MOST:
            self._name, self._own = _new_name(), []
        self._own += [*self._later, digest]
        self._later = []
        self._write(self._name, "".join(f"{one}\n" for one in self._own).encode("ascii"))
        self._known.add(digest)

    def later(self, digest: str) -> None:
        """Note, with what is written next, what only saves time."""
        self._later.append(digest)
        self._known.add(digest)


def version_of(facts: Mapping[str, Any]) -> str | None:
    """Which contents an object has, told by its listing without fetching it; None where the listing does not tell."""
    found = next((str(facts[name]) for name in _VERSIONS if facts.get(name)), None)
    return None if found is None else f"version {found} {facts.get('size')}"


def _new_name() -> str:
    return f"{WRITTEN}-{secrets.token_hex(6)}"
