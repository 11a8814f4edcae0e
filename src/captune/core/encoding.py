"""A reference as the tokens that a model is taught and measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """A reference or prompt as the model reads it; the first `given` tokens are not supervised."""

    tokens: tuple[int, ...]
    given: int


def encoded(
    reference: str, asked: str, words: Callable[[str], list[int]], *, start: int, end: int, most: int, longest: int
) -> Encoded:
    """Start, the prompt `asked`, at most `most` tokens of the reference, end; `longest` in all. `words` tokenises."""
    prompt = words(asked)
    said = words(f"{asked} {reference}" if prompt else reference)
    # In many vocabularies a word behind a space is another token; where the prompt's tokens
    # changed by what follows, they are kept as generation will write them.
    said = said[len(prompt) :] if said[: len(prompt)] == prompt else words(reference)
    before = [start, *prompt]
    room = min(most, longest - len(before) - 1)
    return Encoded((*before, *said[:room], end), len(before))
