"""A model behind a server as captune's other models are: images in, captions out."""

import asyncio
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from captune.core.endpoints import FAMILY, GENERATION, Endpoint
from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.options.endpoint import EndpointOptions
from captune.core.records import Caption
from captune.decoding.encoding import DESCRIBE, TextCodec
from captune.decoding.generate import normalized, temperatures
from captune.images.preprocessing import Preprocessing
from captune.inference.captioning import NoCaptionError
from captune.inference.endpoint.answer_cache import request_key
from captune.inference.endpoint.answers import captions_in
from captune.inference.endpoint.asker import Asker
from captune.inference.endpoint.client import Client, key_from
from captune.inference.endpoint.messages import body_of, check_options, to_jpeg
from captune.inference.endpoint.sight import check_sight

# What such a model reads of a prompt; its server says where it is less.
_LONGEST = 1 << 20
_ENCODERS = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="captune-jpeg")


class EndpointCodec(TextCodec):
    """Prompts are messages, whose tokens the server alone knows."""

    @property
    def answers(self) -> bool:
        return True

    def under(self, options: GenerationOptions) -> "EndpointCodec":
        check_options(options)
        return self

    def start(self, prompt: str) -> list[int]:
        return []


@dataclass
class EndpointModel:
    """A `captune.inference.captioning.CaptioningModel` that an OpenAI-compatible server runs."""

    endpoint: Endpoint
    client: Client
    sighted: bool = False
    asker: Asker | None = None
    family: str = FAMILY
    prompt: str = DESCRIBE
    generation: Mapping[str, Any] = field(default_factory=lambda: dict(GENERATION))
    precision: str = "the server's"
    decoder: str = "the server's"
    weights: int = 0
    schema: Mapping[str, Any] | None = None
    _checking: Lock = field(default_factory=Lock, repr=False)

    @classmethod
    def load(cls, endpoint: Endpoint, options: EndpointOptions) -> "EndpointModel":
        """Nothing is asked before the first image. Raises `CaptuneError` where a key cannot be read."""
        client = Client(endpoint, options, key_from(options, os.environ))
        return cls(endpoint, client, sighted=not options.sight_check)

    @contextmanager
    def keeping(self, file: Path) -> Iterator[None]:
        """Within a block answers are written into a file as they come, and those in it are not asked for again."""
        options = self.client.options
        self.asker = Asker(self.endpoint, options, key_from(options, os.environ), file)
        asker = self.asker
        try:
            yield
        except BaseException:
            asker.close(wait=False)  # who stops a job does not wait for a slow server
            raise
        else:
            asker.close()
        finally:
            self.asker = None

    def constrain(self, schema: Mapping[str, Any]) -> None:
        """Let the server hold its captions to a JSON Schema, where it can."""
        self.schema = schema

    @property
    def pixels(self) -> Preprocessing:
        return Preprocessing(0, longest=self.client.options.image_side)

    @property
    def device(self) -> str:
        return self.endpoint.url

    @property
    def codec(self) -> TextCodec:
        return EndpointCodec(lambda text: [], lambda tokens: "", 0, 0, _LONGEST, self.prompt)

    def image_tokens(self, width: int, height: int) -> int:
        return 0

    def generate(
        self,
        inputs: np.ndarray,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Any, Any], None] | None = None,
    ) -> list[list[Caption] | CaptuneError]:
        """Captions of each image, or the reason why it has none; raises where the server has none for any.

        `inputs` are RGB levels (3, height, width), uint8, of each image. Captions come whole: `on_token` is not called.
        """
        prompt_of_each = prompts or [options.prompt] * len(inputs)
        work = [self.submit(pixels, options, prompt) for pixels, prompt in zip(inputs, prompt_of_each, strict=True)]
        try:
            return [each.result() for each in work]
        finally:
            for each in work:
                each.cancel()

    def submit(
        self, pixels: np.ndarray, options: GenerationOptions, prompt: str | None = None
    ) -> Future[list[Caption] | CaptuneError]:
        """Begin to caption one image; the result is as in `generate`. The first waits until the server was looked at.

        Not more requests than `concurrency` are sent at a time, however many are submitted.
        """
        check_options(options)
        options = normalized(options)
        self._look()
        return self.client.submit(self._captions(pixels, self.prompt if prompt is None else prompt, options))

    @property
    def concurrency(self) -> int:
        return self.client.options.concurrency

    def _look(self) -> None:
        """Check once that the server sees."""
        with self._checking:
            if not self.sighted:
                self.client.submit(check_sight(self._answer, self.endpoint.model)).result()
                self.sighted = True

    async def _answer(self, pixels: np.ndarray, prompt: str, options: GenerationOptions) -> str:
        try:
            return (await self._ask(pixels, prompt, options))[0].text
        except NoCaptionError as error:
            return error.message

    async def _captions(
        self, pixels: np.ndarray, prompt: str, options: GenerationOptions
    ) -> list[Caption] | CaptuneError:
        try:
            found = await self._ask(pixels, prompt, options, self.schema)
        except NoCaptionError as error:
            return error
        return sorted(found, key=lambda caption: -caption.confidence if not math.isnan(caption.confidence) else 0.0)

    async def _complete(self, body: Mapping[str, Any], number: int) -> Any:
        if self.asker is None:
            return await self.client.complete(body)
        return await self.asker.complete(body, request_key(self.endpoint.url, body, number))

    async def _ask(
        self, pixels: np.ndarray, prompt: str, options: GenerationOptions, schema: Mapping[str, Any] | None = None
    ) -> list[Caption]:
        jpeg = await asyncio.get_running_loop().run_in_executor(_ENCODERS, to_jpeg, pixels)
        captions: list[Caption] = []
        for temperature, count in _draws(options):
            body = body_of(self.endpoint.model, jpeg, prompt, options, temperature, count, schema)
            drawn: list[Caption] = []
            while len(drawn) < count:  # some servers answer with one, whatever `n` they are asked for
                drawn += captions_in(await self._complete(body, len(drawn)))
            captions += drawn[:count]
        return captions


def _draws(options: GenerationOptions) -> list[tuple[float, int]]:
    """Temperatures with how many captions each: 0 takes the likeliest tokens."""
    if options.variations:
        return [(temperature, 1) for temperature in temperatures(options, options.variations)]
    return [(options.temperature if options.sample else 0.0, options.num_captions)]
