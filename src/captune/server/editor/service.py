"""What the editor's routes share: the library, threads that read and the one that writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Request

from captune.core.options import WhereOptions
from captune.core.options.library import EditOptions
from captune.core.options.serve import ServeOptions
from captune.images.open import MAX_PIXELS
from captune.library.history import ConflictError, Draft
from captune.library.library import Library
from captune.server.editor.thumbnails import Thumbnails
from captune.server.middleware import ANONYMOUS, Admission, RequestContext, ServerMetrics
from captune.server.problems import Problem
from captune.server.searching import LibrarySearch

T = TypeVar("T")
_READERS, _DECODERS = 3, 2
THUMBNAILS = "thumbnails"


class Drafting(Protocol):
    """A model that writes drafts of images, which are paths or the bytes of files; loaded when it is called first."""

    def __call__(self, images: list[str | bytes]) -> list[Draft | str]:
        """A draft of each image, or the reason why there is none."""
        ...


class Changed(Problem):
    """409: what stands there now goes with it."""

    def __init__(self, error: ConflictError) -> None:
        super().__init__(409, error.message, error.hint)
        self.conflict = {"image": error.image, "caption": error.caption, "text": error.text}

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        return {**super().body(request_id), "conflict": self.conflict}


class EditorService:
    """The state of one editor."""

    def __init__(
        self,
        library: Library,
        options: EditOptions,
        limits: ServeOptions,
        who: str,
        models: Mapping[str, Drafting],
        run_on: WhereOptions,
    ) -> None:
        self.library, self.who, self.models = library, who, dict(models)
        self.metrics = ServerMetrics()
        self.admission = Admission(limits.max_queue, int(limits.max_body * 1e6) * 4)
        self.thumbnails = Thumbnails(
            library.folder, library.own / THUMBNAILS, max_pixels=MAX_PIXELS, follow_links=options.follow_links,
            data_set=library.data_set,
        )  # fmt: skip
        self.readers = ThreadPoolExecutor(_READERS, thread_name_prefix="captune-read")
        self.decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="captune-decode")
        # SQLite has one writer at a time: others would wait in it, and not in order.
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="captune-write")
        self.drafter = ThreadPoolExecutor(1, thread_name_prefix="captune-draft")
        self.search = LibrarySearch(library, run_on)

    async def read(self, function: Callable[..., T], *values: Any) -> T:
        """Call a function with a connection that shows one state of the library, and `values`."""

        def call() -> T:
            with self.library.database.read() as connection:
                return function(connection, *values)

        return await asyncio.get_running_loop().run_in_executor(self.readers, call)

    async def write(self, function: Callable[..., T], *values: Any) -> T:
        """Call a function that writes, after all that were called before; what it wrote is on the disk when it is back.

        Raises `Changed` (409) where somebody changed the same meanwhile.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self.writer, function, *values)
        except ConflictError as error:
            raise Changed(error) from None

    async def count(self) -> dict[str, Any]:
        """How many images, captions and keywords there are, and of what kind."""

        def call() -> dict[str, Any]:
            return self.library.status().to_json()

        return await asyncio.get_running_loop().run_in_executor(self.readers, call)

    async def decode(self, function: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.decoders, function, *values)

    async def draft(self, model: str, images: list[str | bytes]) -> list[Draft | str]:
        """What a model writes of images, which are paths or bytes; raises `Problem` (404) where it is not here."""
        if model not in self.models:
            hint = f"Models here: {', '.join(self.models)}." if self.models else "Start captune edit with --model M."
            raise Problem(404, f"There is no model '{model[:100]}'.", hint)
        return await asyncio.get_running_loop().run_in_executor(self.drafter, self.models[model], images)

    def who_of(self, context: RequestContext) -> str:
        """Who does what a request does: the name of its key, else that of the editor."""
        return self.who if context.key == ANONYMOUS else context.key

    def close(self) -> None:
        self.search.close()
        for pool in (self.readers, self.decoders, self.writer, self.drafter):
            pool.shutdown(wait=False, cancel_futures=True)


async def _service(request: Request) -> EditorService:
    service: EditorService = request.app.state.service
    return service


TheEditor = Annotated[EditorService, Depends(_service)]
