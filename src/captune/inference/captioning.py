"""Images in, captions out: in batches, in order, whatever runs the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from captune.captions.prompts.choice import Prompts
from captune.core.errors import CaptuneError
from captune.core.machine import LESS_MEMORY, Halving, OutOfMemory
from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress, track
from captune.core.records import Caption, ImageRecord
from captune.core.wording import counted
from captune.decoding.encoding import TextCodec
from captune.images.batches import Features, stack, stream_pixels
from captune.images.open import MAX_PIXELS
from captune.images.preprocessing import Preprocessing
from captune.inference.prompting import ImagePrompts

Key = TypeVar("Key")


class CaptioningModel(Protocol):
    """What the rest of captune uses of a loaded captioner, run by torch or exported.

    `prompt` comes before every caption, with a question in place of `{question}`, else at its end; `generation` are
    the options saved with the model; `device`, `precision` and `decoder` name where it runs, its number type, and
    whose search writes the captions; `weights` are its bytes.
    """

    @property
    def family(self) -> str: ...

    @property
    def prompt(self) -> str: ...

    @property
    def generation(self) -> Mapping[str, Any]: ...

    @property
    def pixels(self) -> Preprocessing: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def decoder(self) -> str: ...

    @property
    def weights(self) -> int: ...

    @property
    def codec(self) -> TextCodec: ...

    def image_tokens(self, width: int, height: int) -> int:
        """Tokens that an image of so many pixels has among those of its prompt; 0 where it has none."""
        ...

    def generate(
        self,
        inputs: np.ndarray,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Any, Any], None] | None = None,
    ) -> Sequence[list[Caption] | CaptuneError]:
        """Captions of each image of pixels (images, 3, size, size), uint8, or of its features; the best first.

        A server may have a reason instead why an image has none.
        `prompts`, one an image, replace the options' prompt (None: the model's own); captions begin behind it, or with
        it by `prompt_in_caption`. `on_token` gets the tokens (images, captions) of each step of a search without beams.
        """
        ...


@runtime_checkable
class ConcurrentModel(Protocol):
    """A captioning model that has several images at work, each by itself: `concurrency` of them at a time."""

    @property
    def concurrency(self) -> int: ...

    def submit(
        self, pixels: np.ndarray, options: GenerationOptions, prompt: str | None = None
    ) -> Future[list[Caption] | CaptuneError]:
        """Begin to caption one image; the result is what `generate` has for it."""
        ...


@runtime_checkable
class AnsweringModel(ConcurrentModel, Protocol):
    """One whose captions are paid for: what it answers can be kept in a file, and is not asked for again."""

    def keeping(self, file: Path) -> AbstractContextManager[None]:
        """Within a block answers are written into a file as they come, and those in it are not asked for again."""
        ...

    def constrain(self, schema: Mapping[str, Any]) -> None:
        """Let captions be JSON of a schema, where the model can be held to it; they are checked all the same."""
        ...


Submit = Callable[[np.ndarray, str | None], "Future[list[Caption] | CaptuneError]"]


def caption_each(
    submit: Submit, concurrency: int, images: Iterable[tuple[Key, np.ndarray | CaptuneError, str | None]]
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    """Captions of each (key, pixels, prompt) in order, twice as many submitted as can be at work.

    An error in the place of pixels passes through.
    """
    waiting: deque[tuple[Key, Future[list[Caption] | CaptuneError] | CaptuneError]] = deque()
    try:
        for key, pixels, prompt in images:
            waiting.append((key, pixels if isinstance(pixels, CaptuneError) else submit(pixels, prompt)))
            while waiting and (len(waiting) > 2 * concurrency or _is_done(waiting[0][1])):
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        for _, found in waiting:
            if isinstance(found, Future):
                found.cancel()


def _is_done(found: Future[list[Caption] | CaptuneError] | CaptuneError) -> bool:
    return not isinstance(found, Future) or found.done()


def _first(
    waiting: deque[tuple[Key, Future[list[Caption] | CaptuneError] | CaptuneError]],
) -> tuple[Key, list[Caption] | CaptuneError]:
    key, found = waiting[0]
    result = found.result() if isinstance(found, Future) else found
    waiting.popleft()
    return key, result


def caption_stream(
    model: CaptioningModel,
    items: Iterable[tuple[Key, Any]],
    options: GenerationOptions,
    *,
    prompt_of: Callable[[Key, Any], str | None] | None = None,
    batch_size: int = 8,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    features: Features | None = None,
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    """Captions of every (key, source), in order; an unreadable image yields its error and stops nothing.

    `prompt_of` gives the prompt of an image (None: the model's own) in place of the options'; it is called in threads
    that read images, with what was fetched of a source. A batch that has no room in memory is halved, as are those
    after it; an image that has none by itself yields `OutOfMemory`.
    """
    prompted = _with_prompts(items, options.prompt, prompt_of, features)
    reading = stream_pixels(prompted, model.pixels, workers=workers, max_pixels=max_pixels, features=features)
    if isinstance(model, ConcurrentModel):
        each = ((item, pixels, item.prompt) for item, pixels in reading)
        for item, found in caption_each(partial(_submit, model, options), model.concurrency, each):
            yield item.key, found
        return
    waiting: list[tuple[_Item[Key], np.ndarray | CaptuneError]] = []
    good = 0
    halving = Halving(LESS_MEMORY)
    for item, pixels in reading:
        waiting.append((item, pixels))
        good += isinstance(pixels, np.ndarray)
        if good == batch_size or (good == 0 and len(waiting) >= batch_size):
            yield from _caption_batch(model, waiting, options, halving)
            waiting, good = [], 0
    yield from _caption_batch(model, waiting, options, halving)


@dataclass
class _Item(Generic[Key]):
    """An image on its way to the model; its prompt is known once it is read."""

    key: Key
    prompt: str | None


def _with_prompts(
    items: Iterable[tuple[Key, Any]],
    prompt: str | None,
    prompt_of: Callable[[Key, Any], str | None] | None,
    features: Features | None,
) -> Iterator[tuple[_Item[Key], Any]]:
    """The items with the same prompt, or with sources that find their prompts when they are read."""
    for key, source in items:
        item = _Item(key, prompt)
        if prompt_of is None:
            yield item, source
        elif features is not None and source in features:  # nothing is read of it
            item.prompt = prompt_of(key, source)
            yield item, source
        else:
            yield item, partial(_read_prompted, item, source, prompt_of)


def _read_prompted(item: _Item[Key], source: Any, prompt_of: Callable[[Key, Any], str | None]) -> Any:
    source = source() if callable(source) else source
    item.prompt = prompt_of(item.key, source)
    return source


def _submit(
    model: ConcurrentModel, options: GenerationOptions, pixels: np.ndarray, prompt: str | None
) -> Future[list[Caption] | CaptuneError]:
    return model.submit(pixels, options, prompt)


def _caption_batch(
    model: CaptioningModel,
    batch: list[tuple[_Item[Key], np.ndarray | CaptuneError]],
    options: GenerationOptions,
    halving: Halving,
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    good = {n: pixels for n, (_, pixels) in enumerate(batch) if isinstance(pixels, np.ndarray)}
    batch_prompts = [batch[n][0].prompt for n in good]
    inputs = stack(list(good.values())) if good else np.empty(0)
    captions = iter(
        halving.results(
            len(good), lambda start, end: model.generate(inputs[start:end], options, prompts=batch_prompts[start:end])
        )
    )
    for item, pixels in batch:
        key = item.key
        if not isinstance(pixels, np.ndarray):
            yield key, pixels
        else:
            each = next(captions)
            if each is None:
                yield key, OutOfMemory("needs more memory than the model has left", LESS_MEMORY)
            else:
                yield key, captions_or_reason(model, each, options)


class NoCaptionError(CaptuneError):
    """A model has no caption for an image: why."""


def captions_or_reason(
    model: CaptioningModel, found: list[Caption] | CaptuneError, options: GenerationOptions
) -> list[Caption] | CaptuneError:
    """What a model found for an image, where a caption that was cut before its first word is none."""
    if isinstance(found, CaptuneError) or not (found[0].is_missing and model.codec.answers):
        return found
    return NoCaptionError(
        f"The model wrote {options.max_new_tokens} tokens and no caption: it was still thinking.",
        "Raise --max-new-tokens, or take a model that does not think.",
    )


def caption_records(
    model: CaptioningModel,
    records: Sequence[ImageRecord],
    options: GenerationOptions,
    *,
    batch_size: int = 16,
    features: Features | None = None,
    progress: Progress = SILENT,
    label: str = "Captioning",
) -> dict[str, Caption]:
    """The best caption of each record, or answer to its question, by its id.

    An image that cannot be read raises its error, and one that has no room in memory `OutOfMemory`. One of which the
    model has nothing to say has an empty caption; how many those are is a warning.
    """
    captions: dict[str, Caption] = {}
    silent: list[str] = []
    prompts = ImagePrompts(Prompts(options.prompt, model.prompt), model.codec, options)

    def prompt_of(record: ImageRecord, image: Any) -> str | None:
        return prompts.read(image, record.image, record.question)

    items = ((record, record.image) for record in records)
    stream = caption_stream(model, items, options, prompt_of=prompt_of, batch_size=batch_size, features=features)
    for record, result in track(stream, progress, label, len(records)):
        key = record.id
        if isinstance(result, OutOfMemory):
            raise OutOfMemory(f"{key} {result.message}.", result.hint)
        if isinstance(result, NoCaptionError):
            silent.append(f"{key}: {result.message}")
            result = [Caption("", 0.0)]
        if isinstance(result, CaptuneError):
            raise result
        captions[key] = result[0]
    if silent:
        progress.warn(
            f"Without a caption, and counted as empty: {len(silent):,} of {counted(len(records), 'image')}. {silent[0]}"
        )
    return captions


def own_words_of(codec: TextCodec, caption: Caption) -> str:
    """All that a model wrote of a caption, with thoughts and before its translation."""
    if caption.own_words is not None:
        return caption.own_words
    if caption.tokens:
        return codec.decode(caption.tokens)
    return caption.text if caption.original is None else caption.original
