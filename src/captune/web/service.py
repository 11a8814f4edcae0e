"""What the routes share: the models, the limits, the processes that decode images."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import TYPE_CHECKING, Any

from captune.core.config import Resolved
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.core.sampling import with_sampling
from captune.core.search import asking, check_prompt
from captune.core.serve_options import ServeConfig
from captune.web.admission import Admission
from captune.web.decoding import Decoding
from captune.web.gate import Visit
from captune.web.hosted import Hosted
from captune.web.logs import tell
from captune.web.measures import Measures
from captune.web.pictures import is_address, picture_bytes
from captune.web.problems import Problem
from captune.web.shelf import Served, Shelf

if TYPE_CHECKING:
    import numpy as np

# Bodies that may be held at once, in largest ones.
_BODIES = 32


class Service:
    """One server's state."""

    def __init__(self, models: Mapping[str, str], config: Resolved[ServeConfig]) -> None:
        self.options = config.values.serve
        self._translation = config.values.translation
        self.measures = Measures()
        self.admission = Admission(self.options.max_queue, int(self.options.max_body * 1e6) * _BODIES)
        self.measures.waiting.set_function(lambda: self.admission.taken)
        self.shelf = Shelf(models, config, on_batch=self._batch, on_load=self._loaded)
        self.measures.loaded.set_function(lambda: sum(m.hosted is not None for m in self.shelf.models.values()))
        self.decoding = Decoding(self.options, fast=config.values.run_on.preprocessing == "fast")
        self.threads = ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="captune-base64")
        # Two bodies are read at once: while it is read, one costs up to three times its size.
        self.readers = ThreadPoolExecutor(2, thread_name_prefix="captune-body")

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    @property
    def status(self) -> str:
        """`ready`, or why no request should come now."""
        if self.admission.draining:
            return "stopping"
        if not self.shelf.ready:
            return "loading"
        return "busy" if self.decoding.stuck else "ready"

    async def start(self) -> None:
        """Load the models and start what decodes; raises `CaptuneError` where that cannot be."""
        await asyncio.gather(self.decoding.start(), self.shelf.start())

    async def close(self) -> None:
        self.decoding.close()
        await self.shelf.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.readers.shutdown(wait=False, cancel_futures=True)

    async def model(self, name: str | None, task: str, visit: Visit) -> tuple[Served, Hosted]:
        """The model for a task, loaded until the visit ends; raises `Problem`."""
        served = await self.shelf.find(name, task)
        visit.model = served.name
        return served, await visit.stack.enter_async_context(self.shelf.lease(served))

    async def contents(self, picture: str | bytes) -> bytes:
        """The bytes of a picture's file, fetched where that is allowed; raises `Problem`."""
        if isinstance(picture, str) and is_address(picture):
            if not self.options.allow_urls:
                raise Problem(
                    422,
                    "Pictures are not fetched from addresses here.",
                    "Send the picture itself, or start the server with --allow-urls.",
                )
            from captune.web.urls import fetch

            most = int(self.options.max_body * 1e6)
            picture = await asyncio.to_thread(fetch, picture, most_bytes=most, seconds=min(10.0, self.options.timeout))
        return await asyncio.get_running_loop().run_in_executor(self.threads, picture_bytes, picture)

    async def pixels(self, picture: str | bytes, hosted: Hosted) -> np.ndarray:
        """What a model sees of a picture; raises `Problem` and `ImageError`."""
        return (await self.pixels_and_size(picture, hosted, size=False))[0]

    async def pixels_and_size(
        self, picture: str | bytes, hosted: Hosted, *, size: bool
    ) -> tuple[np.ndarray, tuple[int, int] | None]:
        """As `pixels`, with the `size` (width, height) of the upright image where it is wanted."""
        contents = await self.contents(picture)
        if size:
            return await self.decoding.pixels_and_size(contents, hosted.square)
        return await self.decoding.pixels(contents, hosted.square), None

    def search(
        self, hosted: Hosted, given: Mapping[str, Any], question: str | None = None, *, shorten: bool = False
    ) -> GenerationOptions:
        """The options of a search: those given, else the model's, else captune's. Raises `Problem` for too much work.

        With `shorten` captions end where the work allowed is used up instead. A question takes its place in the prompt,
        and new tokens are at most those that the model has room for behind it.
        """
        own = hosted.captioner.options.generation
        try:
            options = GenerationOptions.model_validate({**own.model_dump(), **with_sampling(given)})
        except UsageError as error:
            raise Problem(422, error.message, error.hint) from None
        if options.min_new_tokens > options.max_new_tokens:
            raise Problem(422, "min_new_tokens is larger than max_new_tokens.", "Lower the one or raise the other.")
        captions = options.variations or options.num_beams * options.num_captions
        if shorten and captions <= self.options.max_work:
            most = min(options.max_new_tokens, self.options.max_work // captions)
            options = options.model_copy(update={"max_new_tokens": most})
        work = captions * options.max_new_tokens
        if work > self.options.max_work:
            raise Problem(
                422,
                f"Beams × captions × tokens are {work:,}; {self.options.max_work:,} are allowed.",
                "Ask for fewer or shorter captions.",
            )
        if question is not None:
            options = options.model_copy(
                update={"prompt": asking(hosted.captioner.model.prompt, question.strip(), options.prompt)}
            )
        model = hosted.captioner.model
        check_prompt(model.prompt if options.prompt is None else options.prompt, options)
        room = model.token_budget(options.prompt)
        if room < options.max_new_tokens and room >= max(1, options.min_new_tokens):
            options = options.model_copy(update={"max_new_tokens": room})
        return options

    def language(self, asked: str | None) -> str | None:
        """The language of a request's captions, None for the models' own; raises `Problem` where it is not offered."""
        own = self._translation.language
        offered = {"en", *self.options.languages, *filter(None, (own,))}
        if asked is not None and asked not in offered:
            raise Problem(
                422, f"Captions are not offered in '{asked}'.", f"Offered here: {', '.join(sorted(offered))}."
            )
        language = asked or own
        return None if language == "en" else language

    def _batch(self, model: str, size: int) -> None:
        self.measures.batches.labels(model).observe(size)

    def _loaded(self, model: str, seconds: float) -> None:
        self.measures.loads.labels(model).inc()
        tell("model loaded", model=model, seconds=round(seconds, 2))


def one_problem(error: Exception, request_id: str) -> dict[str, Any]:
    """What is said of one picture of several; raises what is not about a picture."""
    if isinstance(error, UsageError) or not isinstance(error, (CaptuneError, Problem)):
        raise error
    return Problem.of(error).body(request_id)
