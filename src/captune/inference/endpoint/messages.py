"""A caption as a request to a server: the image as JPEG, the options in the API's words."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.decoding.encoding import FollowUp, Turn

JPEG_QUALITY = 90
# What neither the API nor the common servers behind it take.
_UNKNOWN = ("length_penalty", "no_repeat_ngram_size", "early_stopping", "prompt_in_caption")
# What vLLM, SGLang and llama.cpp take besides, sent where it is asked for.
_BESIDES = {"repetition_penalty": "repetition_penalty", "min_new_tokens": "min_tokens"}


def to_jpeg(pixels: np.ndarray) -> bytes:
    """JPEG of RGB levels (3, height, width), uint8."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def check_options(options: GenerationOptions) -> None:
    """Raise `UsageError` for what such a server cannot do."""
    default = GenerationOptions()
    if options.num_beams > 1:
        raise UsageError("A model behind a server has no beams.", "Leave out --num-beams; --sample --num-captions 5.")
    for name in _UNKNOWN:
        if getattr(options, name) != getattr(default, name):
            raise UsageError(f"A model behind a server has no --{name.replace('_', '-')}.", "Leave it out.")
    if options.prefill:
        raise UsageError(
            "A model behind a server begins its captions itself.", "Leave out --prefill; say it in the --prompt."
        )
    if options.num_captions > 1 and not options.sample:
        raise UsageError(
            "A model behind a server has one best caption.", "Add --sample for several; or --variations 3."
        )


def body_of(
    model: str,
    jpeg: bytes,
    prompt: str,
    options: GenerationOptions,
    temperature: float,
    count: int,
    schema: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON of a request for so many captions of an image; a `temperature` of 0 takes the likeliest tokens.

    With a `schema` the server is to hold the answer to it.
    """
    address = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
    turns = [*(prompt.earlier if isinstance(prompt, FollowUp) else ()), Turn("user", prompt)]
    messages: list[dict[str, Any]] = [{"role": turn.role, "content": turn.text} for turn in turns]
    first = {"type": "text", "text": turns[0].text}
    messages[0]["content"] = [{"type": "image_url", "image_url": {"url": address}}, first]
    if options.system_prompt:
        messages.insert(0, {"role": "system", "content": options.system_prompt})
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "max_tokens": options.max_new_tokens,
        "temperature": temperature,
        "logprobs": True,
    }
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "caption", "schema": schema}}
    default = GenerationOptions()
    if count > 1:
        body["n"] = count
    if options.sample:
        body["top_p"] = options.top_p
        if options.sample_seed is not None:
            body["seed"] = options.sample_seed % 2**63
        if options.top_k != default.top_k:
            body["top_k"] = options.top_k
    for name, api_name in _BESIDES.items():
        if getattr(options, name) != getattr(default, name):
            body[api_name] = getattr(options, name)
    return body
