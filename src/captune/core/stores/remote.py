"""A job's results on a file system that fsspec knows, with fingerprints of what captune wrote there."""

import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files.existing import digest, known_digests
from captune.core.files.fingerprints import file_digest
from captune.core.stores import JOB, WRITTEN, is_ledger, is_result
from captune.core.stores.files import explained, filesystem
from captune.core.text import fit_name

_MAX_DIGESTS = 1000  # digests of a file: it is written whole again for each result
# What a listing tells of an object that changes whenever its contents do; the first that is there counts.
_VERSIONS = (
    "ETag", "etag", "md5Hash", "generation", "content_md5", "mtime", "last_modified", "LastModified", "created",
)  # fmt: skip


class RemoteLedger:
    """As `captune.core.files.existing.Ledger`, where no line can be added to a file.

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
        if len(self._own) >= _MAX_DIGESTS:
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
    """The version of an object's contents by its listing, without fetching it; None where the listing has none."""
    version = next((str(facts[name]) for name in _VERSIONS if facts.get(name)), None)
    return None if version is None else f"version {version} {facts.get('size')}"


def _new_name() -> str:
    return f"{WRITTEN}-{secrets.token_hex(6)}"


_BLOCK = 8 * 1024 * 1024

# Object stores show an object when it is whole, never before. Elsewhere a file is moved into its place.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"}


class RemoteStore:
    """A folder at an address. There are no locks there: who runs one part twice at a time writes its shards twice."""

    def __init__(self, out: str) -> None:
        self.location = out.rstrip("/")
        self._fs, self._folder = filesystem(self.location)
        self._ledger = RemoteLedger(self._ledgers, self._put)
        self._at_once = out.partition("://")[0].lower() in _WHOLE_AT_ONCE

    def names(self) -> list[str]:
        names: list[str] = []
        for inside in ("", f"{JOB}/"):
            folder = f"{self._folder}/{inside}".rstrip("/")
            self._fs.invalidate_cache(folder)  # others write here too
            with explained(self._address(inside)):
                try:
                    listed = self._fs.ls(folder, detail=True)
                except FileNotFoundError:
                    self._check_bucket()
                    continue
            files = [one["name"].rpartition("/")[2] for one in listed if one["type"] == "file"]
            names += [inside + name for name in files if name and not name.startswith(".")]
        return sorted(names)

    def read(self, name: str) -> bytes:
        with explained(self._address(name)):
            data: bytes = self._fs.cat_file(self._path(name))
            return data

    def find(self, name: str) -> bytes | None:
        with explained(self._address(name)):
            try:
                data: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return data

    def publish(self, name: str, data: bytes | Path) -> None:
        # A file that a person had a part in stays known as such, whatever captune changes in it.
        ours = is_result(name) and not self.not_written([name])
        if ours:
            contents = file_digest(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
            self._ledger.add(digest(name, contents))
        self._put(name, data)
        if ours and (version := version_of(self._facts(name) or {})) is not None:
            self._ledger.later(digest(name, version))

    def not_written(self, names: Iterable[str]) -> list[str]:
        there = [(name, facts) for name in names if (facts := self._facts(name)) is not None]
        if there:
            self._ledger.refresh()
        return [name for name, facts in there if not self._is_ours(name, facts)]

    def _is_ours(self, name: str, facts: Mapping[str, Any]) -> bool:
        """Whether captune wrote a file; it is fetched where its listing does not tell."""
        version = version_of(facts)
        if version is not None and self._ledger.has(digest(name, version)):
            return True
        contents = hashlib.sha256()
        with explained(self._address(name)), self._fs.open(self._path(name), "rb") as file:
            while block := file.read(_BLOCK):
                contents.update(block)
        return self._ledger.has(digest(name, contents.hexdigest()))

    def _facts(self, name: str) -> Mapping[str, Any] | None:
        """What the file system tells of a file, or None where there is none."""
        path = self._path(name)
        self._fs.invalidate_cache(path.rpartition("/")[0])  # others write here too
        with explained(self._address(name)):
            try:
                facts: Mapping[str, Any] = self._fs.info(path)
            except FileNotFoundError:
                return None
            return facts if facts.get("type") == "file" else None

    def _ledgers(self) -> Iterator[bytes]:
        return (self.read(name) for name in self.names() if is_ledger(name))

    def _put(self, name: str, data: bytes | Path) -> None:
        target = self._path(name)
        folder, _, base = target.rpartition("/")
        temporary = f"{folder}/{fit_name(f'.{base}', f'.{socket.gethostname()}-{os.getpid()}.part')}"
        path = target if self._at_once else temporary
        with explained(self._address(name)):
            try:
                if not self._at_once:
                    self._fs.makedirs(folder, exist_ok=True)
                if isinstance(data, Path):
                    self._fs.put_file(str(data), path)
                else:
                    self._fs.pipe_file(path, data)
                if not self._at_once:
                    self._fs.mv(temporary, target)
            finally:
                if not self._at_once:
                    with contextlib.suppress(OSError):  # the error above, if any, is the one to tell
                        self._fs.rm_file(temporary)

    def delete(self, name: str) -> None:
        with explained(self._address(name)):
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _check_bucket(self) -> None:
        """A folder that is not there yet is made with its first file; a bucket is not."""
        bucket = self._folder.strip("/").partition("/")[0]
        if self._at_once and not self._fs.exists(bucket):
            raise CaptuneError(f"{self.location}: there is no bucket '{bucket}'.", "Check its name, or make it first.")

    def _path(self, name: str) -> str:
        if ".." in name.split("/"):
            raise CaptuneError(f"{name} is no name in {self.location}.", "Names may not lead out of the folder.")
        return f"{self._folder}/{name}"

    def _address(self, name: str) -> str:
        return f"{self.location}/{name}"
