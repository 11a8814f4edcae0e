"""Stores of a job's files, which are complete or absent: the protocol, and the one in a local folder."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from captune.core.errors import CaptuneError
from captune.core.files import OutputFolders, atomic_file, disk_error, is_running, sync_folder
from captune.core.files.existing import Ledger, digest
from captune.core.files.fingerprints import file_digest
from captune.core.files.locks import lock_file
from captune.core.stores import JOB, MANIFEST, WRITTEN, is_ledger, is_result
from captune.core.stores.files import is_remote

_PART = ".part"


class Store(Protocol):
    """Files by name; a name may begin with the job's own folder (`_job/manifest.json`)."""

    location: str

    def names(self) -> list[str]:
        """The names of all files, also of those in the job's own folder."""

    def read(self, name: str) -> bytes:
        """The contents of a file; raises `CaptuneError` where it cannot be read."""

    def find(self, name: str) -> bytes | None:
        """The contents of a file, which may be in a subfolder; None where there is none."""

    def publish(self, name: str, data: bytes | Path) -> None:
        """Write a file atomically; raises `CaptuneError` where that is not possible."""

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""

    def not_written(self, names: Iterable[str]) -> list[str]:
        """Those of these files that captune did not write, or that were changed since."""

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold a lock within a block; raises `Locked` where another process holds it."""


def check_written(store: Store, names: Iterable[str], hint: str) -> None:
    """Raise `CaptuneError`, with `hint`, where captune did not write one of these files, or nothing tells."""
    changed = store.not_written(names)
    if not changed:
        return
    there = store.names()
    if MANIFEST in there and not any(map(is_ledger, there)):
        raise CaptuneError(
            f"The job in {store.location} was begun by an earlier captune, which did not note what it wrote: whether "
            "somebody corrected its captions since cannot be known.",
            hint,
        )
    several = ", ".join(changed[:3]) + (f" and {len(changed) - 3:,} more" if len(changed) > 3 else "")
    raise CaptuneError(
        f"{store.location} holds captions that captune did not write, or that were changed since: {several}.", hint
    )


def open_store(out: str) -> Store:
    """The store in a folder, or at an address such as `s3://bucket/folder`; either is made with the first file."""
    if is_remote(out):
        from captune.core.stores.remote import RemoteStore

        return RemoteStore(out)
    return LocalStore(out)


class LocalStore:
    """A folder of this machine, or on a disk that several share."""

    def __init__(self, out: str) -> None:
        self.location = out
        self.folder = Path(out)
        self._owner = f"{socket.gethostname()}-{os.getpid()}"
        self._swept = False
        self._folders = OutputFolders()

    def names(self) -> list[str]:
        names = []
        for folder, prefix in ((self.folder, ""), (self.folder / JOB, f"{JOB}/")):
            try:
                names += [prefix + entry.name for entry in os.scandir(folder) if entry.is_file()]
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CaptuneError(f"Cannot look into {folder}: {error.strerror}.", "Choose another --out.") from None
        return sorted(name for name in names if not name.endswith(_PART))

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise CaptuneError(
                f"Cannot read {self.folder / name}: {error.strerror}.", "Start the job anew with --restart."
            ) from None

    def find(self, name: str) -> bytes | None:
        return self.read(name) if (self.folder / name).is_file() else None

    def publish(self, name: str, data: bytes | Path) -> None:
        target = self.folder / name
        try:
            for folder in dict.fromkeys((self.folder, target.parent)):
                self._folders.check(folder)
            self._sweep()
            with atomic_file(target, "wb", owner=self._owner) as file:
                if isinstance(data, Path):
                    with open(data, "rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                # A file that a person had a part in stays known as such, whatever captune changes in it.
                if is_result(name) and not self.not_written([name]):
                    Ledger(self.folder / WRITTEN).add([digest(name, file_digest(Path(file.name)))])
            sync_folder(target.parent)
        except OSError as error:
            raise disk_error(error, target) from error

    def not_written(self, names: Iterable[str]) -> list[str]:
        ledger = Ledger(self.folder / WRITTEN)
        there = [name for name in names if (self.folder / name).is_file()]
        return [name for name in there if not ledger.has(name, file_digest(self.folder / name))]

    def delete(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self.folder / name) from error

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        with lock_file(self.folder / name):
            yield

    def _sweep(self) -> None:
        """Remove what killed runs on this machine left half written."""
        if self._swept:
            return
        self._swept = True
        host = socket.gethostname()
        for folder in (self.folder, self.folder / JOB):
            for left in folder.glob(f".*{_PART}"):
                owner = left.name.removesuffix(_PART).rpartition(f".{host}-")[2]
                if owner.isdigit() and not is_running(int(owner)):
                    with contextlib.suppress(OSError):  # another run swept it
                        left.unlink()
