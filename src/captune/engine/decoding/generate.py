"""From memory and options to captions, by captune's own search or, where a family has none, by `transformers`'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.core.search import check_length, check_prompt, rows_of, settled, temperatures, with_prompt
from captune.engine.decoding.beams import search
from captune.engine.decoding.penalties import Penalties
from captune.engine.decoding.rows import Rows
from captune.engine.decoding.sampling import Chance, Written, write
from captune.models.backbone import Backbone
from captune.models.stepper import Decoder


def generate(
    backbone: Backbone,
    memory: Tensor,
    options: GenerationOptions,
    *,
    prompts: Sequence[str | None] | None = None,
    on_token: Callable[[Tensor], None] | None = None,
) -> list[list[Caption]]:
    """Captions of each picture of memory (pictures, length, width), the best first.

    `prompts`, one a picture, replace the options' prompt (None: the model's own); captions begin behind it, or
    with it by `prompt_in_caption`. Without `backbone.own_search`, or for a family without a `Decoder`,
    `transformers` searches. `on_token` gets the tokens (pictures, captions) of every step of a search without beams.
    """
    options = settled(options)
    asked = prompts or [options.prompt] * len(memory)
    prefixes = [prefix_of(backbone, options, prompt) for prompt in asked]
    decoder = backbone.text_decoder() if backbone.own_search else None
    found: list[list[Caption]] = [[]] * len(memory)
    memory = memory.to(backbone.compute_dtype)
    autocast = torch.autocast(
        memory.device.type, enabled=decoder is None and torch.is_autocast_enabled(memory.device.type)
    )
    # A search with a seed leaves the source of chance as it was, for all threads share it; one without draws on.
    seeded = options.sample and options.sample_seed is not None
    cards = [memory.device] if memory.is_cuda else []
    with torch.inference_mode(), autocast, torch.random.fork_rng(devices=cards, enabled=seeded):
        if seeded:
            torch.manual_seed(options.sample_seed)
        # Rows of one search have prompts of one length; `transformers` gets the same prompt for all.
        kinds = [len(prefix) if decoder else tuple(prefix) for prefix in prefixes]
        for kind in dict.fromkeys(kinds):
            these = [n for n, one in enumerate(kinds) if one == kind]
            part = memory if len(these) == len(memory) else memory[these]
            tokens = torch.tensor([prefixes[n] for n in these], device=memory.device)
            written = (
                search_plain(backbone, part, tokens, options)
                if decoder is None
                else search_own(backbone, decoder, part, tokens, options, on_token)
            )
            for n, captions in zip(these, _captions(backbone, written), strict=True):
                found[n] = _behind_prompt(backbone, captions, asked[n]) if options.prompt_in_caption else captions
    return found


def prefix_of(backbone: Backbone, options: GenerationOptions, prompt: str | None) -> list[int]:
    """Start and prompt as tokens; None is the model's own prompt. Raises `UsageError` for what cannot be continued."""
    words = backbone.prompt if prompt is None else prompt
    check_prompt(words, options)
    prefix = [backbone.bos_token_id, *backbone.tokenize(words)]
    check_length(len(prefix), backbone.max_length, options)
    return prefix


def search_own(
    backbone: Backbone,
    decoder: Decoder,
    memory: Tensor,
    prompts: Tensor,
    options: GenerationOptions,
    on_token: Callable[[Tensor], None] | None = None,
) -> Written:
    """By captune's own search."""
    most, end = options.max_new_tokens, backbone.eos_token_id
    beams = rows_of(options)
    rows = Rows(decoder, decoder.prefill(memory), memory, prompts, beams, most)
    penalties = Penalties.of(options, end)
    chance = None
    if options.sample:
        temperature = torch.tensor(temperatures(options, beams), device=memory.device)
        chance = Chance(temperature, options.top_k, options.top_p)
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


def search_plain(backbone: Backbone, memory: Tensor, prompts: Tensor, options: GenerationOptions) -> Written:
    """By `transformers`' search; the prompts are all the same."""
    one = options.model_copy(update={"num_captions": 1}) if options.variations else options
    pictures, given = prompts.shape
    parts = [
        backbone.search(memory, prompts[0].tolist(), one, temperature)[:, given:]
        for temperature in temperatures(options, 1)
    ]
    width = max(part.shape[1] for part in parts)
    padded = [functional.pad(part, (0, width - part.shape[1]), value=backbone.eos_token_id) for part in parts]
    tokens = torch.cat([part.view(pictures, -1, width) for part in padded], 1).flatten(0, 1)
    ended = (tokens == backbone.eos_token_id).int()
    lengths = torch.where(ended.any(1), ended.argmax(1) + 1, width)
    each = len(tokens) // pictures
    owner = torch.arange(pictures, device=tokens.device).repeat_interleave(each)
    whole = torch.cat([prompts[owner], tokens], 1)
    losses = backbone.token_losses(memory, whole, lengths + given, owner, torch.full_like(lengths, given))
    log_probs = torch.zeros(len(tokens), device=tokens.device).index_add(0, losses.caption, -losses.nll.float())
    shape = (pictures, each)
    return Written(tokens.view(*shape, width), lengths.view(shape), log_probs.view(shape))


def _captions(backbone: Backbone, written: Written) -> list[list[Caption]]:
    """Words and confidence (the geometric mean of the tokens' probabilities) of each caption."""
    confidence = torch.exp(written.log_probs / written.lengths.clamp_min(1))
    return [
        [
            Caption(
                backbone.tokenizer.decode(row[:length], skip_special_tokens=True).strip(), value, tuple(row[:length])
            )
            for row, length, value in zip(*each, strict=True)
        ]
        for each in zip(written.tokens.tolist(), written.lengths.tolist(), confidence.tolist(), strict=True)
    ]


def _behind_prompt(backbone: Backbone, captions: list[Caption], prompt: str | None) -> list[Caption]:
    """Captions whose texts begin with the words of the prompt; their tokens are as they were."""

    def decode(tokens: list[int]) -> str:
        return str(backbone.tokenizer.decode(tokens, skip_special_tokens=True))

    words = backbone.prompt if prompt is None else prompt
    given = backbone.tokenize(words)
    return [replace(one, text=with_prompt(words, given, one.tokens, decode)) for one in captions]
