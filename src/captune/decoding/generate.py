"""From prompts and options to captions, whatever runs the model."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.decoding.beams import beam_search
from captune.decoding.encoding import TextCodec
from captune.decoding.ops import Array, ArrayOps
from captune.decoding.penalties import Penalties
from captune.decoding.rows import CachedDecoder, Generated, Rows
from captune.decoding.sampling import Sampler, sample
from captune.decoding.settings import rows_of, temperatures


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
        found = search(images, [prefixes[image] for image in images])
        for image, each in zip(images, found.captions(), strict=True):
            captions[image] = [
                Caption(codec.text(tokens, prompts[image], options), confidence, tuple(tokens))
                for tokens, confidence in each
            ]
    return captions


def search(
    decoder: CachedDecoder,
    ops: ArrayOps,
    prompts: Array,
    options: GenerationOptions,
    eos_token_id: int,
    on_token: Callable[[Array], None] | None = None,
) -> Generated:
    """Captions behind prompts (images, tokens), start included; `options` are `normalized`.

    `on_token` gets the tokens (images, captions) of every step of a search without beams.
    """
    count, max_new_tokens = rows_of(options), options.max_new_tokens
    rows = Rows(decoder, ops, prompts, count, max_new_tokens)
    penalties = Penalties.of(options, eos_token_id, ops)
    sampler = None
    if options.sample:
        sampler = Sampler(ops.array(temperatures(options, count)), options.top_k, options.top_p, ops)
    if options.num_beams == 1:
        return sample(
            rows,
            prompts,
            penalties,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            sampler=sampler,
            on_token=on_token,
        )
    return beam_search(
        rows,
        prompts,
        penalties,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_token_id,
        num_return_sequences=options.num_captions,
        length_penalty=options.length_penalty,
        early_stopping=options.early_stopping,
        sampler=sampler,
    )
