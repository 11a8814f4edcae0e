"""A job that is refused before a shard is whole leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from captune.core.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, CaptuneError
from captune.core.folders import folders_to_make
from captune.data.bulk.names import JOB
from captune.data.bulk.store import LocalStore, Store


@contextmanager
def remove_if_refused(store: Store, *, alone: bool) -> Iterator[None]:
    """Around a job: where it was not there before and an error ends it with no file of captions, its own files go.

    `alone`: no other part of it runs elsewhere. A stop by a signal leaves what there is.
    """
    new = alone and not store.names()
    missing = folders_to_make(store.folder) if isinstance(store, LocalStore) else []
    try:
        yield
    except Exception as error:
        stopped = isinstance(error, CaptuneError) and error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
        if new and not stopped and all(name.startswith(f"{JOB}/") for name in store.names()):
            with suppress(CaptuneError):  # the error that ends the job is the one to tell
                for name in store.names():
                    store.delete(name)
            if isinstance(store, LocalStore):
                for folder in (store.folder / JOB, *missing):
                    with suppress(OSError):  # it holds something, or is not there
                        folder.rmdir()
        raise
