"""Input shards in, result shards out, whether a job runs on one machine or on many.

Decoding, the model and writing overlap. A result shard appears whole or not at all, and needs no other.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from captune.captions.prompts.styles import Style, styled
from captune.captions.provenance import Provenance
from captune.captions.quality import flags_of
from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.machine import Halving
from captune.core.options import WordingOptions
from captune.core.records import Caption
from captune.core.stores import fingerprints_name
from captune.core.stores.local import Store
from captune.datasets.sources.input_shards import ImageSource
from captune.images.batches import stack
from captune.images.duplicates import NO_FINGERPRINT, read_fingerprints
from captune.images.open import MAX_PIXELS
from captune.images.preprocessing import Preprocessing
from captune.inference.captioning import Submit, caption_each
from captune.inference.prompting import ImagePrompts
from captune.jobs.decode_ahead import DecodeAhead, Decoded, ShardTask
from captune.jobs.shards import ShardFormat, shard_name

_BATCHES_AHEAD = 4
_SHARDS_TO_WRITE = 2
_OUT_OF_MEMORY_HINT = (
    "Free some, use --precision bf16, fewer --num-beams, or another --device; then run the same command again."
)


class BatchCaptioner(NamedTuple):
    """A loaded model: `generate` gives the captions, best first, of each image of uint8 pixels (batch, 3, size, size).

    It gets a prompt for each as well (None: the model's own). Of an image that has no caption it gives the reason.
    `preprocessing` is how such pixels are made of an image. With `submit` images are captioned each by itself,
    `concurrency` of them at a time. `provenance` is what rows note of it, with what `own_words` gives of each caption.
    `prompts` are those of images (None: the options' own for all).
    """

    generate: Callable[[np.ndarray, Sequence[str | None]], list[list[Caption] | CaptuneError]]
    preprocessing: Preprocessing
    submit: Submit | None = None
    concurrency: int = 1
    provenance: Provenance | None = None
    own_words: Callable[[Caption], str] | None = None
    prompts: ImagePrompts | None = None

    def prompt_of(self, image: ImageSource, decoded: Decoded) -> str | None:
        """The prompt that the model reads for an image."""
        if image.prompt is not None or self.prompts is None:
            return image.prompt
        return self.prompts.filled(image.name, decoded.known)

    def row_prompt(self, image: ImageSource, prompt: str | None) -> str | None:
        """A prompt as it stands in the row: only where it is not the same for all."""
        return prompt if image.prompt is not None or (self.prompts is not None and self.prompts.vary) else None


@dataclass(frozen=True)
class FinishedShard:
    """A shard that is written: its number, images captioned in this run, and the rows without a caption."""

    number: int
    images: int
    failed: tuple[CaptionRow, ...]


@dataclass(frozen=True)
class ShardOptions:
    """How shards are captioned and written; the same for every shard of a job.

    `total` is the number of shards of the whole job, `language` the one that captions should be in, `prompt` what they
    answer, if they do. Flags are about captions as the model wrote them, before `wording`. Rows
    have a `provenance` where they note it, and in tables the columns of `fields`.
    """

    format: ShardFormat
    total: int
    batch_size: int = 8
    workers: int = 0
    max_pixels: int = MAX_PIXELS
    language: str | None = None
    prompt: str | None = None
    wording: WordingOptions = field(default_factory=WordingOptions)
    style: Style | None = None
    fingerprints: bool = True
    provenance: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)


def caption_shards(
    model: BatchCaptioner,
    tasks: Iterable[ShardTask],
    store: Store,
    options: ShardOptions,
    *,
    advance: Callable[[int], None] = lambda images: None,
    check_inputs: Callable[[], None] = lambda: None,
    on_written: Callable[[FinishedShard], None] = lambda finished: None,
    stop: Callable[[], None] = lambda: None,
) -> Generator[FinishedShard]:
    """Caption shards, and yield each when it is written.

    An image that cannot be read, or does not fit into memory by itself, is a row with that reason. A batch never
    spans two shards, so a result depends on its input shard alone. `advance` is called with the number of images
    done, `on_written` with each shard as soon as it is written (in another thread). `check_inputs` is called before
    a shard with missing images is written, and may raise. Where `tasks` may block, `stop` ends it. Raises
    `CaptuneError` where nothing can be written; shards that were yielded stay.
    """
    ahead = DecodeAhead(
        tasks,
        model.preprocessing,
        workers=options.workers,
        max_pixels=options.max_pixels,
        ahead=_BATCHES_AHEAD * options.batch_size,
        fingerprints=options.fingerprints,
        fields=model.prompts.fields if model.prompts is not None else (),
        stop=stop,
    )
    writing: deque[Future[FinishedShard]] = deque()
    with ahead as decoding, ThreadPoolExecutor(1, thread_name_prefix="captune-writer") as writer:
        for task, images in decoding.shards():
            results: dict[int, _Result] = {}
            for index, result in _caption(model, images, options):
                _check_unchanged(task, index, result.row)
                results[index] = result
                advance(1)
            if any(result.missing for result in results.values()):
                check_inputs()
            writing.append(writer.submit(_write, task, results, store, options, on_written))
            while writing and (writing[0].done() or len(writing) > _SHARDS_TO_WRITE):
                yield writing.popleft().result()
        while writing:
            yield writing.popleft().result()


@dataclass(frozen=True, slots=True)
class _Result:
    row: CaptionRow
    fingerprint: bytes = NO_FINGERPRINT
    missing: bool = False


_Image = tuple[int, ImageSource, Decoded]


def _caption(model: BatchCaptioner, images: Iterator[_Image], options: ShardOptions) -> Iterator[tuple[int, _Result]]:
    """A result for each image of a shard with its index, in no order."""
    if model.submit is not None:
        yield from _caption_each(model, model.submit, images, options)
        return
    # What fits into memory is found anew for each shard.
    halving = Halving(_OUT_OF_MEMORY_HINT)
    batch: list[_Image] = []
    for index, source, decoded in images:
        if decoded.pixels is None:
            yield index, _Result(_failed(source, decoded.reason), missing=decoded.kind == "missing")
            continue
        batch.append((index, source, decoded))
        if len(batch) == options.batch_size:
            yield from _caption_batch(model, halving, batch, options)
            batch = []
    if batch:
        yield from _caption_batch(model, halving, batch, options)


def _caption_each(
    model: BatchCaptioner, submit: Submit, images: Iterator[_Image], options: ShardOptions
) -> Iterator[tuple[int, _Result]]:
    def pixels_of(decoded: Decoded) -> np.ndarray | CaptuneError:
        return CaptuneError(decoded.reason, "") if decoded.pixels is None else decoded.pixels

    def prompted() -> Iterator[tuple[tuple[_Image, str | None], np.ndarray | CaptuneError, str | None]]:
        for image in images:
            _, source, decoded = image
            prompt = None if decoded.pixels is None else model.prompt_of(source, decoded)
            yield (image, prompt), pixels_of(decoded), prompt

    for ((index, source, decoded), prompt), found in caption_each(submit, model.concurrency, prompted()):
        if decoded.pixels is None:
            yield index, _Result(_failed(source, decoded.reason), missing=decoded.kind == "missing")
        else:
            yield index, _result(source, decoded, found, options, model, prompt)


def _result(
    source: ImageSource,
    decoded: Decoded,
    captions: list[Caption] | CaptuneError,
    options: ShardOptions,
    model: BatchCaptioner,
    prompt: str | None,
) -> _Result:
    if isinstance(captions, CaptuneError):
        return _Result(_failed(source, captions.message))
    flags = tuple(flags_of(captions[0], options.language, options.prompt and (prompt or options.prompt)))
    texts = tuple(styled(each, options.wording, options.style) for each in captions)
    if texts[0].decorative:
        flags = ()
    own_words = map(model.own_words, captions) if model.own_words else ()
    varied = model.row_prompt(source, prompt)
    noted = model.prompts.noted(model.provenance, varied) if model.prompts else model.provenance
    provenance = noted and noted.of(texts, own_words)
    row = CaptionRow(source.name, texts, "ok", None, "", flags, provenance, varied)
    return _Result(row, decoded.fingerprint)


def _caption_batch(
    model: BatchCaptioner, halving: Halving, batch: list[_Image], options: ShardOptions
) -> Iterator[tuple[int, _Result]]:
    pixels = stack([decoded.pixels for _, _, decoded in batch if decoded.pixels is not None])
    prompts = [model.prompt_of(source, decoded) for _, source, decoded in batch]
    results = halving.results(len(pixels), lambda start, end: model.generate(pixels[start:end], prompts[start:end]))
    for (index, source, decoded), prompt, captions in zip(batch, prompts, results, strict=True):
        if captions is None:
            yield index, _Result(_failed(source, "needs more memory than the model has left"))
            continue
        yield index, _result(source, decoded, captions, options, model, prompt)


def _failed(source: ImageSource, reason: str) -> CaptionRow:
    return CaptionRow(source.name, (), "error", reason, "", ())


def _check_unchanged(task: ShardTask, index: int, row: CaptionRow) -> None:
    """Check that an image that is captioned again has the name that it had."""
    if task.rows and row.image == task.source.location:
        raise CaptuneError(f"{row.image}: {row.error}", "Nothing was changed.")
    if task.rows and (index >= len(task.rows) or task.rows[index].image != row.image):
        raise CaptuneError(
            f"The input has changed: it has {row.image} where another image was.",
            "Put back what the job began with, or start it anew with --restart.",
        )


def _write(
    task: ShardTask,
    results: dict[int, _Result],
    store: Store,
    options: ShardOptions,
    on_written: Callable[[FinishedShard], None],
) -> FinishedShard:
    new = [result for _, result in sorted(results.items())]
    # A shard that could not be read to its end has gaps in its indices; one that is repaired has its earlier rows.
    changed = results if task.rows else dict(enumerate(new))
    rows = list(task.rows) or [result.row for result in new]
    for index, result in changed.items():
        rows[index] = result.row
    if options.fingerprints:
        fingerprints = read_fingerprints(store, task.number) if task.rows else []
        if len(fingerprints) != len(rows):
            fingerprints = [NO_FINGERPRINT] * len(rows)
        for index, result in changed.items():
            fingerprints[index] = result.fingerprint
        store.publish(fingerprints_name(task.number), b"".join(fingerprints))
    store.publish(
        shard_name(task.number, options.total, options.format.suffix),
        options.format.encode(rows, options.provenance, options.fields),
    )
    finished = FinishedShard(task.number, len(results), tuple(row for row in rows if row.status == "error"))
    on_written(finished)
    return finished
