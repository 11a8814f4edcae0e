"""Stop sequences: a caption ends before the first of them, also where one comes in several pieces."""

from collections.abc import Sequence
from itertools import pairwise

from captune.inference.pieces import Piece


class StopFilter:
    """Lets the pieces of a caption through up to the first stop sequence.

    What may be the beginning of one is held back until it is none. `found` is set once there was one; `tokens` counts
    those of all pieces read.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found, self.tokens = False, 0
        self._stops = stops
        self._text = ""
        # Those whose tokens have not been let through, and where in the text each begins.
        self._pieces: list[tuple[int, Piece]] = []

    def read(self, piece: Piece) -> list[Piece]:
        """The pieces that may be sent now; those behind a stop sequence never."""
        self.tokens += len(piece.tokens)
        self._pieces.append((len(self._text), piece))
        self._text += piece.text
        ends = [at for stop in self._stops if (at := self._text.find(stop)) >= 0]
        if ends:
            self.found = True
            return self._let_through(min(ends))
        starts = (n for stop in self._stops for n in range(1, len(stop)) if self._text.endswith(stop[:n]))
        return self._let_through(len(self._text) - max(starts, default=0))

    def rest(self) -> list[Piece]:
        """What was held back, once the caption has ended."""
        return self._let_through(len(self._text), last=True)

    def _let_through(self, end: int, *, last: bool = False) -> list[Piece]:
        through = [pair for pair in self._pieces if pair[0] < end or last]
        self._pieces = [(start - end, piece) for start, piece in self._pieces[len(through) :]]
        text, self._text = self._text[:end], self._text[end:]
        if not through:  # the tokens of a piece went with its beginning
            return [Piece(text)] if text else []
        cuts = [0, *(start for start, _ in through[1:]), end]
        return [
            Piece(text[start:until], piece.tokens, piece.log_probs)
            for (_, piece), (start, until) in zip(through, pairwise(cuts), strict=True)
        ]
