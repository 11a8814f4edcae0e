"""Pictures in, captions out: in batches, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.data.images import MAX_PIXELS
from captune.engine.decoding import generate
from captune.engine.features import Features
from captune.engine.pictures import stream_pixels
from captune.models.backbone import Backbone

Key = TypeVar("Key")


def caption_pixels(
    backbone: Backbone,
    seen: np.ndarray,
    options: GenerationOptions,
    heard: Callable[[Tensor], None] | None = None,
    prompts: Sequence[str | None] | None = None,
) -> list[list[Caption]]:
    """Captions of pixels (pictures, 3, size, size), uint8, or of cached features; the rest as in `generate`."""
    with torch.inference_mode():
        return generate(backbone, backbone.memory(torch.from_numpy(seen)), options, heard=heard, prompts=prompts)


def spoken(backbone: Backbone, seen: np.ndarray, options: GenerationOptions) -> Iterator[str]:
    """The caption of one picture (1, 3, size, size) piece by piece as it is written; the pieces joined are the caption.

    A search with beams knows its caption only at the end: then it is one piece. The search runs in a
    thread that ends with the iterator.
    """
    said: Queue[int | None] = Queue()
    left = Event()

    def heard(tokens: Tensor) -> None:
        if left.is_set():
            raise InterruptedError
        said.put(int(tokens[0, 0]))

    with ThreadPoolExecutor(1, thread_name_prefix="captune-spoken") as pool:
        writing = pool.submit(caption_pixels, backbone, seen, options, heard)
        writing.add_done_callback(lambda _: said.put(None))
        tokens: list[int] = []
        text = ""
        try:
            while (token := said.get()) is not None:
                tokens.append(token)
                now = backbone.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                # The bytes of a character may come apart.
                if now.startswith(text) and not now.endswith("\N{REPLACEMENT CHARACTER}"):
                    yield now[len(text) :]
                    text = now
            yield writing.result()[0][0].text.removeprefix(text)
        finally:
            left.set()


def caption_stream(
    backbone: Backbone,
    items: Iterable[tuple[Key, Any]],
    options: GenerationOptions,
    *,
    prompts: Mapping[Any, str] | None = None,
    batch_size: int = 8,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    features: Features | None = None,
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    """Captions of every (key, source), in order; an unreadable picture yields its error and stops nothing.

    `prompts` replace the options' prompt for some keys.
    """
    waiting: list[tuple[Key, np.ndarray | CaptuneError]] = []
    good = 0
    for key, pixels in stream_pixels(items, backbone.pixels, workers=workers, max_pixels=max_pixels, features=features):
        waiting.append((key, pixels))
        good += isinstance(pixels, np.ndarray)
        if good == batch_size or (good == 0 and len(waiting) >= batch_size):
            yield from _caption_batch(backbone, waiting, options, prompts or {})
            waiting, good = [], 0
    yield from _caption_batch(backbone, waiting, options, prompts or {})


def _caption_batch(
    backbone: Backbone,
    batch: list[tuple[Key, np.ndarray | CaptuneError]],
    options: GenerationOptions,
    prompts: Mapping[Any, str],
) -> Iterator[tuple[Key, list[Caption] | CaptuneError]]:
    good = {n: pixels for n, (_, pixels) in enumerate(batch) if isinstance(pixels, np.ndarray)}
    asked = [prompts.get(batch[n][0], options.prompt) for n in good]
    captions = iter(caption_pixels(backbone, np.stack(list(good.values())), options, prompts=asked) if good else [])
    for key, pixels in batch:
        yield key, next(captions) if isinstance(pixels, np.ndarray) else pixels
