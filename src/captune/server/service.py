"""What the routes share: models, limits, image decoders."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import cpu_count
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, Request

from captune.captions.prompts.choice import Prompts
from captune.captions.wording import worded
from captune.core.config import Resolved, with_sampling
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions, WordingOptions
from captune.core.records import Caption
from captune.decoding.encoding import FollowUp, check_prompt, prompt_for
from captune.images.preprocessing import Preprocessing
from captune.inference.captioning import CaptioningModel
from captune.inference.prompting import ImagePrompts
from captune.server.images import DecodedImage, ImageDecoder, fetch_image, image_bytes, is_url
from captune.server.logs import log_event
from captune.server.middleware import Admission, RequestContext, ServerMetrics
from captune.server.model_pool import ModelPool, ServedModel
from captune.server.model_worker import ModelWorker
from captune.server.problems import Problem, as_field
from captune.server.searching import open_library

# Memory for bodies, in bodies of the largest size.
_BODIES = 32


# Where a model's prompt has the message of a chat.
QUESTION = "{question}"


class Service:
    """The state of one server: its models, limits and decoders."""

    def __init__(
        self,
        models: Mapping[str, str],
        config: Resolved,
        *,
        fetch: Callable[..., bytes] = fetch_image,
        load: Callable[[ServedModel], Any] | None = None,
    ) -> None:
        self.options = config.values.serve
        self._fetch = fetch
        self._translation, self._wording = config.values.translation, config.values.wording
        self.metrics = ServerMetrics()
        self.admission = Admission(self.options.max_queue, int(self.options.max_body * 1e6) * _BODIES)
        self.metrics.waiting.set_function(lambda: self.admission.images)
        self.pool = ModelPool(models, config, on_batch=self._on_batch, on_load=self._on_load, load=load)
        self.metrics.loaded.set_function(lambda: sum(m.worker is not None for m in self.pool.models.values()))
        folder = self.options.library
        self.library = None if folder is None else open_library(folder, config.values.run_on, on_load=self._on_load)
        self.decoder = ImageDecoder(self.options, fast=config.values.run_on.preprocessing == "fast")
        self.threads = ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="captune-base64")
        # Two bodies are parsed at once: each takes up to three times its size then.
        self.readers = ThreadPoolExecutor(2, thread_name_prefix="captune-body")

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    @property
    def status(self) -> str:
        """`ready`, or why no requests should be sent now."""
        if self.admission.draining:
            return "stopping"
        if not self.pool.ready:
            return "loading"
        return "busy" if self.decoder.stuck else "ready"

    async def start(self) -> None:
        """Load the models and start a decoder; raises `CaptuneError` where one cannot be.

        A library whose matcher cannot be loaded is searched by words: what meaning needs is in the log.
        """
        await asyncio.gather(self.decoder.start(), self.pool.start())
        if self.library is not None:
            await self.library.start()

    async def close(self) -> None:
        self.decoder.close()
        await self.pool.close()
        if self.library is not None:
            self.library.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.readers.shutdown(wait=False, cancel_futures=True)

    async def acquire_model(
        self, name: str | None, task: str, context: RequestContext
    ) -> tuple[ServedModel, ModelWorker]:
        """The model for a task, loaded until the request ends; raises `Problem`."""
        model = await self.pool.select(name, task)
        context.model = model.name
        return model, await context.stack.enter_async_context(self.pool.use(model))

    async def pixels(
        self, image: str | bytes, worker: ModelWorker, context: RequestContext, *, size: bool = False
    ) -> tuple[np.ndarray, tuple[int, int] | None]:
        """The pixels of an image for a model, with the `size` (width, height) of the upright image if requested.

        Raises `Problem` and `ImageError`.
        """
        decoded = await self.image(image, worker, context, size=size)
        return decoded.pixels, decoded.size

    async def image(
        self,
        image: str | bytes,
        worker: ModelWorker,
        context: RequestContext,
        *,
        size: bool = False,
        fields: Collection[str] = (),
    ) -> DecodedImage:
        """As `pixels`, with `fields` that the image's file says (`images.metadata.fields`)."""
        return await self.decoded(image, worker.preprocessing, context, size=size, fields=fields)

    async def decoded(
        self, image: str | bytes, preprocessing: Preprocessing, context: RequestContext, **more: Any
    ) -> DecodedImage:
        """What an image becomes by `preprocessing`; `more` as `image` has it. Raises `Problem` and `ImageError`."""
        data = await self._read_image(image)
        return await self.decoder.decode(data, preprocessing, client=context.owner, **more)

    def prompts(self, worker: ModelWorker, values: Mapping[str, Any], options: GenerationOptions) -> ImagePrompts:
        """The prompt of a request as a template, for its images; `options` are what `generation_options` made of it."""
        model, own = worker.captioner.model, worker.captioner.options.generation.prompt
        return ImagePrompts(Prompts(values.get("prompt", own), model.prompt), model.codec, options)

    async def _read_image(self, image: str | bytes) -> bytes:
        """The bytes of an image's file, fetched where that is allowed; raises `Problem`."""
        if isinstance(image, str) and is_url(image):
            if not self.options.allow_urls:
                raise Problem(
                    422,
                    "Images are not fetched from addresses here.",
                    "Send the image itself, or start the server with --allow-urls.",
                )
            limits = {"max_bytes": int(self.options.max_body * 1e6), "seconds": min(10.0, self.options.timeout)}
            image = await asyncio.to_thread(self._fetch, image, **limits)
        return await asyncio.get_running_loop().run_in_executor(self.threads, image_bytes, image)

    def generation_options(
        self, worker: ModelWorker, values: Mapping[str, Any], question: str | None = None, *, shorten: bool = False
    ) -> GenerationOptions:
        """Options of the request, else of the model, else captune's; raises `Problem` for too much work.

        With `shorten` captions are shortened to the work allowed instead. A question is put into the prompt, whose
        fields are empty (see `prompts`); one that is a message of a conversation (`FollowUp`) is all of it for a model
        that answers. New tokens are at most those that fit behind the prompt.
        """
        own = worker.captioner.options.generation
        try:
            options = GenerationOptions.model_validate({**own.model_dump(), **with_sampling(values)})
        except UsageError as error:
            raise Problem(422, error.message, error.hint) from None
        if options.min_new_tokens > options.max_new_tokens:
            raise Problem(422, "min_new_tokens is larger than max_new_tokens.", "Lower the one or raise the other.")
        captions = options.variations or options.num_beams * options.num_captions
        if shorten and captions <= self.options.max_work:
            shorter = min(options.max_new_tokens, self.options.max_work // captions)
            options = options.model_copy(update={"max_new_tokens": shorter})
        work = captions * options.max_new_tokens
        if work > self.options.max_work:
            raise Problem(
                422,
                f"Beams × captions × tokens are {work:,}; {self.options.max_work:,} are allowed.",
                "Ask for fewer or shorter captions.",
            )
        model = worker.captioner.model
        try:
            if isinstance(question, FollowUp):
                options = options.model_copy(update={"prompt": _message(model, question, options.prompt)})
            elif question is not None or options.prompt is not None:
                prompt = prompt_for(model.prompt, (question or "").strip(), options.prompt)
                options = options.model_copy(update={"prompt": prompt})
        except UsageError as error:
            raise Problem(422, error.message, error.hint) from None
        check_prompt(model.prompt if options.prompt is None else options.prompt, options)
        try:
            room = model.codec.under(options).token_budget(options.prompt)
        except CaptuneError as error:
            raise Problem(422, error.message, error.hint) from None
        if room < options.max_new_tokens and room >= max(1, options.min_new_tokens):
            options = options.model_copy(update={"max_new_tokens": room})
        return options

    def wording(self, values: Mapping[str, Any]) -> WordingOptions:
        """Options of the request about a caption's text, else the server's; raises `Problem` for no room."""
        options = WordingOptions.model_validate({**self._wording.model_dump(), **values})
        try:
            worded(Caption("a", 0.0), options)
        except UsageError as error:
            raise Problem(422, as_field(error.message), error.hint) from None
        return options

    def language(self, requested: str | None) -> str | None:
        """The language of a request's captions, None for the models' own; raises `Problem` where it is not offered."""
        own = self._translation.language
        offered = {"en", *self.options.languages, *filter(None, (own,))}
        if requested is not None and requested not in offered:
            raise Problem(
                422, f"Captions are not offered in '{requested}'.", f"Offered here: {', '.join(sorted(offered))}."
            )
        language = requested or own
        return None if language == "en" else language

    def _on_batch(self, model: str, size: int) -> None:
        self.metrics.batches.labels(model).observe(size)

    def _on_load(self, model: str, seconds: float) -> None:
        self.metrics.loads.labels(model).inc()
        log_event("model loaded", model=model, seconds=round(seconds, 2))


def _message(model: CaptioningModel, message: FollowUp, prompt: str | None) -> FollowUp:
    """A message of a conversation as the prompt of a model, which has `prompt` or its own where there is no text."""
    own = model.prompt if prompt is None else prompt
    alone = model.codec.answers and QUESTION not in own
    text = message.strip() if alone else prompt_for(model.prompt, message.strip(), prompt)
    return FollowUp(text, [turn if turn.text else replace(turn, text=own) for turn in message.earlier])


def image_problem(error: Exception, request_id: str) -> dict[str, Any]:
    """The problem of one image of several; raises the error if it is not about the image."""
    if isinstance(error, UsageError) or not isinstance(error, (CaptuneError, Problem)):
        raise error
    return Problem.of(error).body(request_id)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _context(request: Request) -> RequestContext:
    context: RequestContext = request.scope["captune.request"]
    return context


# Parameters of routes.
TheService = Annotated[Service, Depends(_service)]
TheContext = Annotated[RequestContext, Depends(_context)]
