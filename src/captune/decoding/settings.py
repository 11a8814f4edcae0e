"""The options of a search, checked and completed before its first step."""

from __future__ import annotations

from typing import Any

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions

# Temperatures of `variations`: a safe caption, then braver ones.
FIRST, RISE = 0.6, 0.3
# Below this temperature nothing but the likeliest token is drawn; scores divided by less would overflow.
MIN_TEMPERATURE = 1e-4


def normalized(options: GenerationOptions) -> GenerationOptions:
    """The options of a search as it runs: as many beams as captions are wanted, `variations` as samples.

    Raises `UsageError` for lengths that exclude each other.
    """
    if options.min_new_tokens > options.max_new_tokens:
        raise UsageError(
            f"The shortest caption ({options.min_new_tokens} tokens) is longer than the longest "
            f"({options.max_new_tokens}).",
            "Lower --min-new-tokens or raise --max-new-tokens.",
        )
    if options.variations:
        return options.model_copy(update={"num_captions": options.variations, "num_beams": 1, "sample": True})
    independent = options.sample and options.num_beams == 1  # samples of one image
    if not independent and options.num_captions > options.num_beams:
        return options.model_copy(update={"num_beams": options.num_captions})
    return options


def keywords(options: GenerationOptions, temperature: float) -> dict[str, Any]:
    """The options of a search as `transformers`' `generate` takes them."""
    chosen: dict[str, Any] = {"do_sample": options.sample, "num_beams": options.num_beams}
    if options.sample:
        chosen |= {"temperature": temperature, "top_k": options.top_k, "top_p": options.top_p}
    if options.num_beams > 1:
        stops = {"on": True, "off": False}.get(options.early_stopping, options.early_stopping)
        chosen |= {"length_penalty": options.length_penalty, "early_stopping": stops}
    return {
        "max_new_tokens": options.max_new_tokens,
        "min_new_tokens": options.min_new_tokens or None,
        "repetition_penalty": options.repetition_penalty,
        "no_repeat_ngram_size": options.no_repeat_ngram_size,
        "num_return_sequences": options.num_captions,
        **chosen,
    }


def check_length(prefix: int, longest: int, options: GenerationOptions) -> None:
    """Raise `UsageError` where start and prompt (`prefix` tokens) leave too little of the `longest` text."""
    if prefix + options.max_new_tokens > longest:
        raise UsageError(
            f"The prompt ({prefix} tokens) and {options.max_new_tokens} new tokens exceed the {longest} tokens this "
            "model can read.",
            f"Set --max-new-tokens to {max(1, longest - prefix)} or less, or shorten the prompt.",
        )


def check_prompt(prompt: str, options: GenerationOptions) -> None:
    """Raise `UsageError` where captions are to begin with a prompt, and neither options nor model have one."""
    if options.prompt_in_caption and not prompt.strip():
        raise UsageError(
            "There is no prompt that captions could begin with: none is given, and the model has none of its own.",
            "Give the words as well, for example --prompt 'a photo of', or turn it off: --no-prompt-in-caption.",
        )


def rows_of(options: GenerationOptions) -> int:
    """How many captions of an image are written side by side."""
    return options.num_beams if options.num_beams > 1 else options.num_captions


def temperatures(options: GenerationOptions, rows: int) -> list[float]:
    """The temperature of each of `rows` captions of an image, none below `MIN_TEMPERATURE`."""
    if options.variations:
        return [max(MIN_TEMPERATURE, options.temperature * (FIRST + RISE * step)) for step in range(options.variations)]
    return [max(MIN_TEMPERATURE, options.temperature)] * rows
