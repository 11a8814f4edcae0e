"""A job that fails before a shard is written leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError
from captune.core.folders import folders_to_make
from captune.data.bulk.names import JOB
from captune.data.bulk.store import LocalStore, Store


@contextmanager
def remove_if_refused(store: Store, *, alone: bool) -> Iterator[None]:
    """Around a job: where it is new and an error ends it before a file of captions is written, remove its own files.

    `alone`: no other part of it runs elsewhere. A stop by a signal removes nothing.
    """
    new = alone and not store.names()
    missing = folders_to_make(store.folder) if isinstance(store, LocalStore) else []
    try:
        yield
    except Exception as error:
        stopped = isinstance(error, CaptuneError) and error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
        if new and not stopped and all(name.startswith(f"{JOB}/") for name in store.names()):
            with suppress(CaptuneError):  # the error that ends the job matters more
                for name in store.names():
                    store.delete(name)
            if isinstance(store, LocalStore):
                for folder in (store.folder / JOB, *missing):
                    with suppress(OSError):  # it is not empty, or is not there
                        folder.rmdir()
        raise
