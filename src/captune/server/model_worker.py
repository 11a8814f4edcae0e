"""A loaded model in a thread of its own, which works on the requests of many clients in batches."""

from __future__ import annotations

import asyncio
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.images.batches import stack
from captune.images.preprocessing import Preprocessing
from captune.inference.captioner import Captioner
from captune.inference.pieces import Piece, stream_pieces

if TYPE_CHECKING:
    from captune.inference.match import Match
    from captune.models.matcher import Matcher


Result = TypeVar("Result")
# torch has one random generator for all threads.
_TORCH_RANDOM = threading.Lock()
# From a key and its items to a result, or an exception, for each; runs in the batcher's thread.
Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Pending:
    item: Any
    result: asyncio.Future[Any]
    submitted: float


class Batcher:
    """Gathers items with the same key into batches, and runs one batch at a time in a thread.

    A batch starts when it has `max_batch` items or its first has waited `max_wait` seconds, and the thread is free; the
    oldest goes first. An item whose caller has left before its batch starts is dropped. Use it in one event loop;
    `close` ends it.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch: int,
        max_wait: float,
        name: str = "model",
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run, self._max_batch, self._max_wait, self._on_batch = run, max_batch, max_wait, on_batch
        self._pending: dict[Hashable, list[_Pending]] = {}
        self._changed = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"captune-{name}")
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run_batches())

    async def submit(self, key: Hashable, item: Any) -> Any:
        """The result of an item; raises what its work raised."""
        pending = _Pending(item, self._loop.create_future(), self._loop.time())
        self._pending.setdefault(key, []).append(pending)
        self._changed.set()
        try:
            return await pending.result
        finally:
            self._remove(key, [pending])

    async def close(self) -> None:
        """Stop after the batch that runs; items that wait are cancelled."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for group in self._pending.values():
            for pending in group:
                pending.result.cancel()
        self._thread.shutdown(wait=False)

    def _remove(self, key: Hashable, batch: Sequence[_Pending]) -> None:
        rest = [pending for pending in self._pending.pop(key, ()) if pending not in batch]
        if rest:
            self._pending[key] = rest

    async def _run_batches(self) -> None:
        while True:
            while not self._pending:
                self._changed.clear()
                await self._changed.wait()
            now = self._loop.time()
            # When each group may start: at once where it is full.
            starts = {
                key: group[0].submitted + (0 if len(group) >= self._max_batch else self._max_wait)
                for key, group in self._pending.items()
            }
            key = min(starts, key=lambda each: starts[each])
            if starts[key] > now:
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), starts[key] - now)
                continue
            batch = self._pending[key][: self._max_batch]
            self._remove(key, batch)
            await self._run_batch(key, [pending for pending in batch if not pending.result.done()])

    async def _run_batch(self, key: Hashable, batch: list[_Pending]) -> None:
        if not batch:
            return
        self._on_batch(len(batch))
        items = [pending.item for pending in batch]
        results = await self._loop.run_in_executor(self._thread, self._results, key, items)
        for pending, result in zip(batch, results, strict=True):
            if pending.result.done():
                continue
            if isinstance(result, Exception):
                pending.result.set_exception(result)
            else:
                pending.result.set_result(result)

    def _results(self, key: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        """The results of a batch; where it fails as a whole each item is tried alone, so that one costs one."""
        try:
            return self._run(key, items)
        except Exception as error:  # noqa: BLE001 - whoever submitted the item gets it
            return [error] if len(items) == 1 else [self._results(key, [item])[0] for item in items]


class Work(ABC, Generic[Result]):
    """Work for a model. Works with equal keys share a batch; each has its own key, if a subclass gives no other."""

    @property
    def key(self) -> Hashable:
        return self

    @staticmethod
    @abstractmethod
    def run(worker: ModelWorker, batch: Sequence[Any]) -> Sequence[Result | CaptuneError]:
        """A result, or an exception, for each work of a batch."""


class ModelWorker:
    """A loaded model that does the works of many requests in batches, in a thread of its own."""

    def __init__(
        self,
        model: Captioner | Matcher,
        *,
        max_batch: int,
        max_wait: float,
        name: str,
        translator: str | None,
        on_batch: Callable[[int], None],
    ) -> None:
        self.model, self.translator = model, translator
        self._batcher = Batcher(
            lambda key, batch: batch[0].run(self, batch),
            max_batch=max_batch, max_wait=max_wait, name=name, on_batch=on_batch,
        )  # fmt: skip

    @property
    def captioner(self) -> Captioner:
        assert isinstance(self.model, Captioner)
        return self.model

    def answered(self, options: GenerationOptions) -> str | None:
        """The prompt that captions answer; None where they continue it, or answer the model's own."""
        return options.prompt if self.captioner.model.codec.answers else None

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        if isinstance(self.model, Captioner):
            return self.model.model.weights
        torch_model = self.model.model
        return sum(part.numel() * part.element_size() for part in (*torch_model.parameters(), *torch_model.buffers()))

    @property
    def preprocessing(self) -> Preprocessing:
        """What an image becomes before the model gets it."""
        return self.model.model.pixels if isinstance(self.model, Captioner) else self.model.pixels

    async def submit(self, work: Work[Result]) -> Result:
        """The result of a work; raises what its `run` raised."""
        result: Result = await self._batcher.submit(work.key, work)
        return result

    async def stream(
        self, pixels: np.ndarray, options: GenerationOptions
    ) -> AsyncGenerator[int | Piece | Caption, None]:
        """The caption of an image as it is written: first the number of the prompt's tokens, then pieces, then itself.

        Generation ends soon after the iterator is closed.
        """
        loop, found = asyncio.get_running_loop(), asyncio.Queue[int | Piece | None]()

        def on_piece(piece: int | Piece) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(found.put_nowait, piece)

        work = StreamWork(pixels, options, on_piece)
        result = asyncio.ensure_future(self.submit(work))
        result.add_done_callback(lambda _: found.put_nowait(None))
        try:
            while (piece := await found.get()) is not None:
                yield piece
            yield await result
        finally:
            work.cancelled.set()
            result.cancel()

    async def close(self) -> None:
        await self._batcher.close()


@dataclass(frozen=True)
class CaptionResult:
    """Captions of an image, and the tokens of the prompt before them, those of the image included."""

    captions: list[Caption]
    prompt_tokens: int


@dataclass(frozen=True, eq=False)
class CaptionWork(Work[CaptionResult]):
    """Captions for an image's pixels (3, size, size), those of the image alone, whatever its batch."""

    pixels: np.ndarray
    options: GenerationOptions
    language: str | None = None

    @property
    def key(self) -> Hashable:
        """Prompts may differ in a batch. What is drawn from a seed of its own has a batch of its own."""
        alone = self if _samples(self.options) and self.options.sample_seed is not None else None
        return self.options.model_copy(update={"prompt": None}), self.language, alone

    @staticmethod
    def run(worker: ModelWorker, batch: Sequence[CaptionWork]) -> list[CaptionResult | CaptuneError]:
        captioner, language, prompts = worker.captioner, batch[0].language, [work.options.prompt for work in batch]
        pixels = stack([work.pixels for work in batch])
        with _torch_random(batch[0].options.model_copy(update={"prompt": None})) as options:
            results = captioner.generate(pixels, options, prompts)
        if language is not None:
            results = captioner.translate(results, language, worker.translator)
        return [
            captions
            if isinstance(captions, CaptuneError)
            else CaptionResult(captions, _prompt_tokens(captioner, work.options, work.pixels))
            for work, captions in zip(batch, results, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class MatchWork(Work["list[Match]"]):
    """How well each text fits an image's pixels (3, size, size)."""

    pixels: np.ndarray
    texts: Sequence[str]
    key = "match"

    @staticmethod
    def run(worker: ModelWorker, batch: Sequence[MatchWork]) -> list[list[Match]]:
        from captune.inference.match import match_pixels

        assert not isinstance(worker.model, Captioner)
        return match_pixels(worker.model, [work.pixels for work in batch], [work.texts for work in batch])


@dataclass(frozen=True, eq=False)
class ExplainWork(Work[list[dict[str, Any]]]):
    """Attention maps of captions, for an image's pixels (3, size, size) and upright size (width, height).

    Its `run` raises `CaptuneError` for a model that has none.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    captions: Sequence[Caption]
    options: GenerationOptions

    @staticmethod
    def run(worker: ModelWorker, batch: Sequence[ExplainWork]) -> list[list[dict[str, Any]]]:
        explain = worker.captioner.explain_pixels
        return [
            [explain(work.pixels, work.size, one, work.options).to_json() for one in work.captions] for work in batch
        ]


@dataclass(frozen=True, eq=False)
class StreamWork(Work[Caption]):
    """A caption: `on_piece` gets the number of the prompt's tokens, and each piece until `cancelled` is set."""

    pixels: np.ndarray
    options: GenerationOptions
    on_piece: Callable[[int | Piece], None]
    cancelled: threading.Event = field(default_factory=threading.Event)

    @staticmethod
    def run(worker: ModelWorker, batch: Sequence[StreamWork]) -> list[Caption]:
        return [work._stream(worker.captioner) for work in batch]

    def _stream(self, captioner: Captioner) -> Caption:
        self.on_piece(_prompt_tokens(captioner, self.options, self.pixels))
        with _torch_random(self.options) as options:
            pieces = stream_pieces(captioner.model, self.pixels[None], options)
            with closing(pieces):
                while not self.cancelled.is_set():
                    try:
                        self.on_piece(next(pieces))
                    except StopIteration as end:
                        caption: Caption = end.value
                        return caption
        return Caption("", 0.0, cut=True)


def _prompt_tokens(captioner: Captioner, options: GenerationOptions, pixels: np.ndarray) -> int:
    """Tokens before a caption: start, template, prompt and, where they are among them, those of the image."""
    model = captioner.model
    codec = model.codec.under(options)
    text = len(codec.start(codec.prompt if options.prompt is None else options.prompt))
    image = model.image_tokens(pixels.shape[-1], pixels.shape[-2])
    return text - 1 + image if image else text  # they stand in the place of one


def _samples(options: GenerationOptions) -> bool:
    return bool(options.sample or options.variations)


@contextmanager
def _torch_random(options: GenerationOptions) -> Iterator[GenerationOptions]:
    """The options with a seed, where they sample. Then models take turns: torch has one generator for all threads."""
    if not _samples(options):
        yield options
        return
    with _TORCH_RANDOM:
        seed = secrets.randbits(31) if options.sample_seed is None else options.sample_seed
        yield options.model_copy(update={"sample_seed": seed})
