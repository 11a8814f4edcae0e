"""Captions piece by piece: as they are written, or of one that is done, with the tokens of each piece."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from queue import Queue
from threading import Event
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.inference.captioning import CaptioningModel, captions_or_reason

# Text of tokens.
Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Piece:
    """A piece of a caption's text with its tokens and their log-likelihoods; all pieces joined are the caption.

    Tokens whose text is only known with those behind them are in one piece; the last has the end token, if any.
    """

    text: str
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()


class PieceReader:
    """Pieces of a caption from its tokens, one after the other; `text` is that of all so far."""

    def __init__(self, decode: Decode) -> None:
        self.text = ""
        self._decode = decode
        self._tokens: list[int] = []
        self._pending: list[tuple[int, float]] = []

    def read(self, token: int, log_prob: float) -> Piece | None:
        """The piece that a token completes; None where more belong to it."""
        self._tokens.append(token)
        self._pending.append((token, log_prob))
        now = self._decode(self._tokens)
        # The bytes of a character may come apart.
        if now == self.text or not now.startswith(self.text) or now.endswith("\N{REPLACEMENT CHARACTER}"):
            return None
        return self._piece(now)

    def rest(self, text: str) -> Piece:
        """The last piece, of a caption whose whole text this is."""
        return self._piece(text)

    def _piece(self, now: str) -> Piece:
        tokens, log_probs = zip(*self._pending, strict=True) if self._pending else ((), ())
        piece = Piece(now.removeprefix(self.text), tokens, log_probs)
        self.text, self._pending = now, []
        return piece


def pieces_of(model: CaptioningModel, caption: Caption, options: GenerationOptions) -> list[Piece]:
    """The pieces of a caption; one without tokens where they are not known, or not its own: it was translated."""
    if not caption.tokens or caption.original is not None:
        return [Piece(caption.text)]
    reader = PieceReader(lambda tokens: model.codec.text(tokens, options.prompt, options))
    found = [reader.read(*pair) for pair in zip(caption.tokens, caption.log_probs, strict=True)]
    return [piece for piece in (*found, reader.rest(caption.text)) if piece is not None]


def stream_pieces(
    model: CaptioningModel, inputs: np.ndarray, options: GenerationOptions
) -> Generator[Piece, None, Caption]:
    """The caption of one image (1, 3, size, size) piece by piece as it is written; its value is the caption.

    A search with beams knows its caption only at the end: then it is one piece. The search runs in a
    thread that ends with the generator. Raises `CaptuneError` where the model has nothing to say of the image.
    """
    queue: Queue[tuple[int, float] | None] = Queue()
    closed = Event()

    def on_token(tokens: Any, log_probs: Any) -> None:
        if closed.is_set():
            raise InterruptedError
        queue.put((int(tokens[0, 0]), float(log_probs[0, 0])))

    with ThreadPoolExecutor(1, thread_name_prefix="captune-stream") as pool:
        writing = pool.submit(model.generate, inputs, options, on_token=on_token)
        writing.add_done_callback(lambda _: queue.put(None))
        codec = model.codec
        reader = PieceReader(lambda tokens: codec.text(tokens, options.prompt, options))
        streamed = False
        streamed = False
        try:
            while (found := queue.get()) is not None:
                streamed = True
                if piece := reader.read(*found):
                    yield piece
            (written,) = writing.result()
            written = captions_or_reason(model, list(written) if isinstance(written, list) else written, options)
            if isinstance(written, CaptuneError):
                raise written
            best = written[0]
            yield reader.rest(best.text) if streamed else Piece(best.text, best.tokens, best.log_probs)
            return best
        finally:
            closed.set()


def stream_text(model: CaptioningModel, inputs: np.ndarray, options: GenerationOptions) -> Iterator[str]:
    """The text alone of `stream_pieces`."""
    with closing(stream_pieces(model, inputs, options)) as pieces:
        for piece in pieces:
            yield piece.text
