"""A loaded model in a thread of its own, which works on the requests of many clients in batches."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from captune.core.config import as_given
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.images.preprocessing import Preprocessing
from captune.inference.captioner import Captioner

if TYPE_CHECKING:
    import numpy as np

    from captune.inference.match import Match
    from captune.models.blip_matcher import BlipMatcher

# From a key and its items to a result, or an exception, for each; runs in the batcher's thread.
Run = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Item:
    item: Any
    answer: asyncio.Future[Any]
    since: float


class Batcher:
    """Gathers items with the same key into batches.

    A batch starts when it has `max_batch` items or its first has waited `max_wait` seconds, and the
    thread is free; who has waited longest goes first. An item whose caller
    has left before its batch starts is not worked on. Use it in one event loop; `close` ends it.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch: int,
        max_wait: float,
        name: str = "model",
        watched: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run, self._max_batch, self._max_wait, self._watched = run, max_batch, max_wait, watched
        self._groups: dict[Hashable, list[_Item]] = {}
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"captune-{name}")
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work())

    async def submit(self, key: Hashable, item: Any) -> Any:
        """The result of an item; raises what its work raised."""
        job = _Item(item, self._loop.create_future(), self._loop.time())
        self._groups.setdefault(key, []).append(job)
        self._news.set()
        try:
            return await job.answer
        finally:
            self._forget(key, job)

    async def close(self) -> None:
        """Stop after the batch that is worked on; items that wait are cancelled."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for jobs in self._groups.values():
            for job in jobs:
                job.answer.cancel()
        self._thread.shutdown(wait=False)

    def _forget(self, key: Hashable, job: _Item) -> None:
        jobs = self._groups.get(key)
        if jobs is not None and job in jobs:
            jobs.remove(job)
            if not jobs:
                del self._groups[key]

    async def _work(self) -> None:
        while True:
            while not self._groups:
                self._news.clear()
                await self._news.wait()
            now = self._loop.time()
            # When each group may start: at once where it is full.
            starts = {
                key: jobs[0].since + (0 if len(jobs) >= self._max_batch else self._max_wait)
                for key, jobs in self._groups.items()
            }
            key = min(starts, key=lambda each: starts[each])
            if starts[key] > now:
                self._news.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), starts[key] - now)
                continue
            jobs = self._groups[key]
            batch, rest = jobs[: self._max_batch], jobs[self._max_batch :]
            if rest:
                self._groups[key] = rest
            else:
                del self._groups[key]
            await self._send_problem(key, [job for job in batch if not job.answer.done()])

    async def _send_problem(self, key: Hashable, batch: list[_Item]) -> None:
        if not batch:
            return
        self._watched(len(batch))
        items = [job.item for job in batch]
        for job, result in zip(
            batch, await self._loop.run_in_executor(self._thread, self._results, key, items), strict=True
        ):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    def _results(self, key: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        """The results of a batch; where it fails as a whole each item is tried alone, so that one costs one."""
        try:
            return self._run(key, items)
        except Exception as error:  # noqa: BLE001 - whoever submitted the item gets it
            return [error] if len(items) == 1 else [self._results(key, [item])[0] for item in items]


# torch draws from one source of chance for all threads: models that draw take turns.
_TORCH_RANDOM = threading.Lock()


@dataclass(frozen=True)
class CaptionResult:
    """Captions of a picture, the tokens of each, and those of the prompt before them."""

    captions: list[Caption]
    tokens: list[int]
    prompt_tokens: int


@dataclass(frozen=True)
class CaptionWork:
    """Pixels (3, size, size) to caption behind a prompt (None: the model's own)."""

    pixels: np.ndarray
    prompt: str | None


@dataclass(frozen=True)
class MatchWork:
    """Pixels (3, size, size) to match with texts."""

    pixels: np.ndarray
    texts: Sequence[str]


@dataclass(frozen=True)
class ExplainWork:
    """Pixels (3, size, size), the size (width, height) of their upright image, and captions to explain."""

    pixels: np.ndarray
    size: tuple[int, int]
    captions: Sequence[Caption]
    options: GenerationOptions


@dataclass(frozen=True)
class StreamWork:
    """Pixels to caption aloud.

    `heard` gets each piece until `left` is set, `counted` the tokens of prompt and caption.
    """

    pixels: np.ndarray
    options: GenerationOptions
    language: str | None
    heard: Callable[[str], None]
    counted: Callable[[int, int], None]
    left: threading.Event = field(default_factory=threading.Event)


class ModelWorker:
    """A model that answers in batches.

    Wishes with the same options (prompts aside) share a batch; captions are those of the picture
    alone. What is drawn by chance from a seed of its own has a batch of its own.
    """

    def __init__(
        self,
        model: Captioner | BlipMatcher,
        *,
        max_batch: int,
        max_wait: float,
        name: str = "model",
        translator: str | None = None,
        watched: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.model, self.translator = model, translator
        self.batcher = Batcher(self._run, max_batch=max_batch, max_wait=max_wait, name=name, watched=watched)

    @property
    def captioner(self) -> Captioner:
        assert isinstance(self.model, Captioner)
        return self.model

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        if isinstance(self.model, Captioner):
            return self.model.model.weights
        torch_model = self.model.model
        return sum(part.numel() * part.element_size() for part in (*torch_model.parameters(), *torch_model.buffers()))

    @property
    def square(self) -> Preprocessing:
        """What an image becomes before the model sees it."""
        if isinstance(self.model, Captioner):
            return self.model.model.pixels
        from captune.inference.torch_model import preprocessing_of

        return preprocessing_of(self.model.pixels)

    async def caption(
        self, pixels: np.ndarray, options: GenerationOptions, language: str | None = None
    ) -> CaptionResult:
        """Captions of a picture, perhaps translated; raises `CaptuneError` for options that do not go together."""
        alone = object() if _seeded(options) else None
        key = (options.model_copy(update={"prompt": None}), language, alone)
        return await self.batcher.submit(key, CaptionWork(pixels, options.prompt))

    async def explain(
        self, pixels: np.ndarray, size: tuple[int, int], captions: Sequence[Caption], options: GenerationOptions
    ) -> list[dict[str, Any]]:
        """Where the model looked for each word of captions of pixels, whose upright image has a size (width, height).

        Raises `CaptuneError` for a model that cannot say.
        """
        return await self.batcher.submit(object(), ExplainWork(pixels, size, captions, options))

    async def match(self, pixels: np.ndarray, texts: Sequence[str]) -> list[Match]:
        """How well each text fits a picture."""
        return await self.batcher.submit("match", MatchWork(pixels, texts))

    async def speak(
        self,
        pixels: np.ndarray,
        options: GenerationOptions,
        counted: Callable[[int, int], None] = lambda prompt, caption: None,
        language: str | None = None,
    ) -> AsyncGenerator[str, None]:
        """The caption of a picture, piece by piece; the search ends soon after the iterator is closed.

        Translated it comes in one piece. At the end `counted` gets the tokens of prompt and caption.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def heard(piece: str) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        speech = StreamWork(pixels, options, language, heard, counted)
        speaking = asyncio.ensure_future(self.batcher.submit(object(), speech))
        speaking.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await speaking
        finally:
            speech.left.set()
            speaking.cancel()

    async def close(self) -> None:
        await self.batcher.close()

    # -- in the model's thread -----------------------------------------------------

    def _run(self, key: Hashable, items: Sequence[Any]) -> Sequence[Any]:
        import numpy as np

        if isinstance(items[0], StreamWork):
            self._speak(items[0])
            return [None]
        if isinstance(items[0], ExplainWork):
            return [self._explain(items[0])]
        seen = np.stack([item.pixels for item in items])
        if isinstance(items[0], MatchWork):
            from captune.inference.match import match_pixels

            assert not isinstance(self.model, Captioner)
            return match_pixels(self.model, seen, [item.texts for item in items])
        assert isinstance(key, tuple)
        return self._caption(seen, key[0], key[1], [item.prompt for item in items])

    def _caption(
        self, seen: np.ndarray, options: GenerationOptions, language: str | None, prompts: list[str | None]
    ) -> list[CaptionResult]:
        model = self.captioner.model
        with ExitStack() as turns:
            if options.sample or options.variations:
                turns.enter_context(_TORCH_RANDOM)
                if options.sample_seed is None:
                    options = options.model_copy(update={"sample_seed": secrets.randbits(31)})
            found = self.captioner.generate(seen, options, prompts)
        if language is not None:
            found = self.captioner.translate(found, language, self.translator)
        return [
            CaptionResult(
                captions,
                [len(model.codec.encode(caption.original or caption.text)) - repeated for caption in captions],
                before,
            )
            for captions, prompt in zip(found, prompts, strict=True)
            for before in [len(model.codec.encode(model.prompt if prompt is None else prompt))]
            for repeated in [before if options.prompt_in_caption else 0]
        ]

    def _explain(self, wanted: ExplainWork) -> list[dict[str, Any]]:
        explain = self.captioner.explain_pixels
        return [explain(wanted.pixels, wanted.size, one, wanted.options).to_json() for one in wanted.captions]

    def _speak(self, speech: StreamWork) -> None:
        options = speech.options
        with ExitStack() as turns:
            if options.sample:
                turns.enter_context(_TORCH_RANDOM)
                if options.sample_seed is None:
                    options = options.model_copy(update={"sample_seed": secrets.randbits(31)})
            into = {"language": speech.language, "translator": self.translator} if speech.language else {}
            pieces = self.captioner.speak(speech.pixels, **as_given(options), **into)
            if isinstance(pieces, Generator):
                turns.callback(pieces.close)
            said = ""
            for piece in pieces:
                if speech.left.is_set():
                    return
                speech.heard(piece)
                said += piece
        model = self.captioner.model
        prompt = model.prompt if options.prompt is None else options.prompt
        before = len(model.codec.encode(prompt))
        speech.counted(before, len(model.codec.encode(said)) - (before if options.prompt_in_caption else 0))


def _seeded(options: GenerationOptions) -> bool:
    return options.sample_seed is not None and bool(options.sample or options.variations)
