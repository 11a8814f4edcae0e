"""From prompts and options to captions, whatever runs the model."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.decoding.beams import beam_search
from captune.decoding.encoding import TextCodec
from captune.decoding.ops import Array, ArrayOps
from captune.decoding.penalties import Penalties
from captune.decoding.rows import CachedDecoder, Generated, Rows, confidence_of
from captune.decoding.sampling import Sampler, sample

# Temperatures of `variations`: a safe caption, then braver ones.
FIRST, RISE = 0.6, 0.3
# Below this temperature nothing but the likeliest token is drawn; scores divided by less would overflow.
MIN_TEMPERATURE = 1e-4


def captions_of(
    codec: TextCodec,
    prompts: Sequence[str | None],
    options: GenerationOptions,
    search: Callable[[list[int], list[list[int]]], Generated],
    group: Callable[[list[int]], Hashable] = len,
) -> list[list[Caption]]:
    """Captions of each image behind its prompt (None: the model's own), the best first; `options` are `normalized`.

    `search` gets the indices and prefixes (start and prompt) of images that are searched together: those whose
    prefixes have the same `group`.
    """
    prefixes = [codec.prefix(prompt, options) for prompt in prompts]
    groups: dict[Hashable, list[int]] = {}
    for image, prefix in enumerate(prefixes):
        groups.setdefault(group(prefix), []).append(image)
    captions: list[list[Caption]] = [[] for _ in prefixes]
    for images in groups.values():
        generated = search(images, [prefixes[image] for image in images])
        for image, each in zip(images, generated.captions(), strict=True):
            captions[image] = [
                Caption(
                    codec.text(tokens, prompts[image], options),
                    confidence_of(log_probs),
                    tuple(tokens),
                    cut=not tokens or tokens[-1] != codec.eos_token_id,
                    log_probs=tuple(log_probs),
                )
                for tokens, log_probs in each
            ]
    return captions


def search(
    decoder: CachedDecoder,
    ops: ArrayOps,
    prompts: Array,
    options: GenerationOptions,
    eos_token_id: int,
    on_token: Callable[[Array, Array], None] | None = None,
    suppressed: tuple[int, ...] = (),
) -> Generated:
    """Captions behind prompts (images, tokens), start included; `options` are `normalized`.

    `on_token` gets the tokens (images, captions) of every step of a search without beams, and their log-likelihoods;
    tokens that are `suppressed` are never written.
    """
    count = rows_of(options)
    rows = Rows(decoder, ops, prompts, count, options.max_new_tokens)
    penalties = Penalties(
        options.repetition_penalty, options.no_repeat_ngram_size, options.min_new_tokens, eos_token_id, ops, suppressed
    )
    sampler = None
    if options.sample:
        sampler = Sampler(ops.array(temperatures(options, count)), options.top_k, options.top_p, ops)
    if options.num_beams == 1:
        return sample(rows, prompts, penalties, options.max_new_tokens, sampler, on_token)
    return beam_search(rows, prompts, penalties, options, sampler)


def normalized(options: GenerationOptions) -> GenerationOptions:
    """The options of a search as it runs: at least as many beams as captions, `variations` as samples.

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


def transformers_kwargs(options: GenerationOptions, temperature: float) -> dict[str, Any]:
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


def rows_of(options: GenerationOptions) -> int:
    """How many captions of an image are written side by side."""
    return options.num_beams if options.num_beams > 1 else options.num_captions


def temperatures(options: GenerationOptions, rows: int) -> list[float]:
    """The temperature of each of `rows` captions of an image, none below `MIN_TEMPERATURE`."""
    if options.variations:
        return [max(MIN_TEMPERATURE, options.temperature * (FIRST + RISE * step)) for step in range(options.variations)]
    return [max(MIN_TEMPERATURE, options.temperature)] * rows
