"""A library that requests search: words by threads that read, meaning by its matcher in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.options import WhereOptions
from captune.core.options.library import FilterOptions, Mode
from captune.images.preprocessing import Preprocessing
from captune.library.database import FILE
from captune.library.library import Library
from captune.library.meaning import Embedder, embedder_of
from captune.library.search import FoundImage
from captune.server.logs import log_event
from captune.server.problems import Problem

T = TypeVar("T")
_READERS = 2


def open_library(folder: str, run_on: WhereOptions, **more: Any) -> LibrarySearch:
    """The library of a folder of images, or of the folder of its own files; raises `CaptuneError` where is none."""
    own = folder if os.path.isfile(os.path.join(folder, FILE)) else None
    return LibrarySearch(Library(folder, own), run_on, **more)


class LibrarySearch:
    """Searches of a library for many clients; its matcher is loaded once, when meaning is first looked for.

    `on_load(name, seconds)` is called then.
    """

    def __init__(
        self,
        library: Library,
        run_on: WhereOptions,
        *,
        on_load: Callable[[str, float], None] = lambda name, seconds: None,
    ) -> None:
        self.library, self._run_on, self._on_load = library, run_on, on_load
        self._loaded: set[str] = set()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="captune-search")
        self._matcher = ThreadPoolExecutor(1, thread_name_prefix="captune-meaning")

    async def start(self) -> None:
        """Load the matcher where images have vectors, so that no request waits for it."""
        if self.has_vectors():
            try:
                await self._in(self._matcher, self._embedder)
            except Problem as problem:
                log_event("library without its matcher", level=logging.WARNING, hint=problem.text)

    async def search(
        self, words: str, *, mode: Mode, like: np.ndarray | int | None, limit: int, filter: FilterOptions
    ) -> list[FoundImage]:
        """As `Library.search`; `like` are the pixels of an image (3, size, size), uint8, or its number in the library.

        Raises `Problem`: 422 where images have no vectors, 503 where the matcher cannot be loaded.
        """
        stored = like is None or isinstance(like, int)
        by_meaning = not stored or (like is None and mode != "words" and bool(words.strip()))

        def call() -> list[FoundImage]:
            if by_meaning:
                self._embedder()
            try:
                return list(self.library.search(words, mode=mode, like=like, limit=limit, **filter.model_dump()))
            except CaptuneError as error:  # its hint names commands, not fields
                raise Problem(422, error.message, error.hint) from error

        return await self._in(self._matcher if by_meaning else self._readers, call)

    async def preprocessing(self) -> Preprocessing:
        """What an image becomes before the matcher gets it; raises `Problem` as `search` does."""
        return await self._in(self._matcher, lambda: self._embedder().matcher.pixels)

    def has_vectors(self) -> bool:
        """Whether the library can be searched by meaning; reads the database."""
        try:
            embedder_of(self.library.database)
        except CaptuneError:
            return False
        return True

    def close(self) -> None:
        for pool in (self._readers, self._matcher):
            pool.shutdown(wait=False, cancel_futures=True)

    def _embedder(self) -> Embedder:
        """The matcher whose vectors the library has now; in its thread."""
        try:
            name = embedder_of(self.library.database)
        except CaptuneError as error:
            raise Problem(422, error.message, error.hint) from error
        started = time.perf_counter()
        try:
            embedder = self.library.embedder(name, run_on=self._run_on)
        except CaptuneError as error:
            raise Problem(503, error.message, error.hint) from error
        if name not in self._loaded:
            self._loaded.add(name)
            self._on_load(name, time.perf_counter() - started)
        return embedder

    async def _in(self, pool: ThreadPoolExecutor, function: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *values))
