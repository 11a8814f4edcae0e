"""Captions by a backbone: captune's own search or, where a family has no decoder for it, that of `transformers`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.decoding.generate import captions_of, normalized, search, temperatures
from captune.decoding.rows import Generated
from captune.decoding.torch_ops import TorchOps
from captune.models.backbone import Backbone


def generate(
    backbone: Backbone,
    memory: Tensor,
    options: GenerationOptions,
    *,
    prompts: Sequence[str | None] | None = None,
    on_token: Callable[[Tensor, Tensor], None] | None = None,
) -> list[list[Caption]]:
    """Captions of each image of memory (images, length, width), the best first.

    `prompts`, one an image, replace the options' prompt (None: the model's own); captions begin behind it, or
    with it by `prompt_in_caption`. `on_token` gets the tokens (images, captions) of every step of captune's own search
    without beams.
    """
    options = normalized(options)
    memory = memory.to(backbone.compute_dtype)
    # `transformers` gets the same prompt for all images of a search.
    group = len if backbone.searched_by == "captune" else tuple

    def search_group(images: list[int], prefixes: list[list[int]]) -> Generated:
        part = memory if len(images) == len(memory) else memory[images]
        return search_tokens(backbone, part, torch.tensor(prefixes, device=memory.device), options, on_token)

    # A search with a seed leaves torch's generator as it was, for all threads share it; one without draws on.
    seeded = options.sample and options.sample_seed is not None
    devices = [memory.device] if memory.is_cuda else []
    with torch.inference_mode(), torch.random.fork_rng(devices=devices, enabled=seeded):
        if seeded:
            torch.manual_seed(options.sample_seed)
        return captions_of(backbone.codec, prompts or [options.prompt] * len(memory), options, search_group, group)


def search_tokens(
    backbone: Backbone,
    memory: Tensor,
    prompts: Tensor,
    options: GenerationOptions,
    on_token: Callable[[Tensor, Tensor], None] | None = None,
) -> Generated:
    """Captions behind prompts (images, tokens) of one length, or the same for all where `transformers` searches.

    `options` are `normalized`; captune's own search runs without autocast, in the number type that it would choose.
    """
    memory = memory.to(backbone.compute_dtype)
    decoder = backbone.cached_decoder(memory) if backbone.own_search else None
    if decoder is None:
        return transformers_search(backbone, memory, prompts, options)
    with torch.autocast(memory.device.type, enabled=False):
        ops, eos_token_id = TorchOps(memory.device), backbone.eos_token_id
        return search(decoder, ops, prompts, options, eos_token_id, on_token, backbone.suppressed_tokens)


def transformers_search(backbone: Backbone, memory: Tensor, prompts: Tensor, options: GenerationOptions) -> Generated:
    """By `transformers`' search; the prompts (images, tokens) are all the same."""
    one = options.model_copy(update={"num_captions": 1}) if options.variations else options
    images, prompt_length = prompts.shape
    parts = [
        backbone.search(memory, prompts[0].tolist(), one, temperature)[:, prompt_length:]
        for temperature in temperatures(options, 1)
    ]
    width = max(part.shape[1] for part in parts)
    padded = [functional.pad(part, (0, width - part.shape[1]), value=backbone.eos_token_id) for part in parts]
    tokens = torch.cat([part.view(images, -1, width) for part in padded], 1).flatten(0, 1)
    ended = (tokens == backbone.eos_token_id).int()
    lengths = torch.where(ended.any(1), ended.argmax(1) + 1, width)
    captions = len(tokens) // images
    owner = torch.arange(images, device=tokens.device).repeat_interleave(captions)
    whole = torch.cat([prompts[owner], tokens], 1)
    given = torch.full_like(lengths, prompt_length)
    losses = backbone.token_losses(memory, whole, lengths + prompt_length, owner, given)
    log_probs = torch.zeros(tokens.shape, device=tokens.device)
    log_probs[torch.arange(width, device=tokens.device) < lengths[:, None]] = -losses.nll.float()
    shape = (images, captions)
    return Generated(tokens.view(*shape, width), lengths.view(shape), log_probs.view(*shape, width))
