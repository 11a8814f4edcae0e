"""From memory and options to tokens: the search of `captune.engine.decoding`, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from captune.core.options import GenerationOptions
from captune.core.search import rows_of, temperatures
from captune.runtime.arrays import Array
from captune.runtime.beams import search
from captune.runtime.memory import Memory, of_pictures
from captune.runtime.penalties import Penalties
from captune.runtime.rows import Rows
from captune.runtime.sampling import Chance, Written, write
from captune.runtime.sessions import Session


def generate(
    text: Session,
    memory: Memory,
    prefixes: Sequence[Sequence[int]],
    options: GenerationOptions,
    end: int,
    on_token: Callable[[Array], None] | None = None,
) -> list[list[tuple[list[int], float]]]:
    """Tokens of each picture's captions with their confidence (0–1), the best first.

    `prefixes` are start and prompt of each picture, `options` are `settled`. `on_token` gets the tokens
    (pictures, captions) of every step of a search without beams. With `sample_seed` the same call gives the same
    captions; they are not those that torch draws.
    """
    found: list[list[tuple[list[int], float]]] = [[] for _ in prefixes]
    source = np.random.default_rng(options.sample_seed)
    # Rows of one search have prompts of one length.
    for length in dict.fromkeys(len(prefix) for prefix in prefixes):
        these = [n for n, prefix in enumerate(prefixes) if len(prefix) == length]
        part = memory if len(these) == len(prefixes) else of_pictures(memory, these)
        prompts = np.array([prefixes[n] for n in these], np.int64)
        written = _searched(text, part, prompts, options, end, source, on_token)
        for n, captions in zip(these, _captions(written), strict=True):
            found[n] = captions
    return found


def _searched(
    text: Session,
    memory: Memory,
    prompts: Array,
    options: GenerationOptions,
    end: int,
    source: np.random.Generator,
    on_token: Callable[[Array], None] | None,
) -> Written:
    each, most = rows_of(options), options.max_new_tokens
    rows, penalties = Rows(text, memory, prompts, each), Penalties.of(options, end)
    chance = None
    if options.sample:
        by_row = np.array(temperatures(options, each), np.float32)
        chance = Chance(by_row, options.top_k, options.top_p, source)
    if options.num_beams == 1:
        return write(rows, prompts, penalties, most=most, end=end, chance=chance, on_token=on_token)
    return search(
        rows,
        prompts,
        penalties,
        most=most,
        end=end,
        wanted=options.num_captions,
        length_penalty=options.length_penalty,
        early_stopping=options.early_stopping,
        chance=chance,
    )


def _captions(written: Written) -> list[list[tuple[list[int], float]]]:
    """Confidence is the geometric mean of the tokens' probabilities."""
    confidence = np.exp(written.log_probs / np.maximum(written.lengths, 1))
    return [
        [(row[:length], value) for row, length, value in zip(*each, strict=True)]
        for each in zip(written.tokens.tolist(), written.lengths.tolist(), confidence.tolist(), strict=True)
    ]
