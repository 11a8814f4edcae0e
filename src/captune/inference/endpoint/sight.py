"""Whether a server sees: some lose images on the way to the model, which then invents what it describes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions

COLOURS = {"red": (215, 25, 30), "green": (30, 150, 50), "blue": (25, 60, 200), "yellow": (250, 220, 40)}
QUESTION = "What colour is this image? Answer with one word."
_SIDE, _ENOUGH = 224, 3


class BlindError(CaptuneError):
    """A server whose model does not see the images that it is sent."""


Ask = Callable[[np.ndarray, str, GenerationOptions], Coroutine[Any, Any, str]]


async def check_sight(ask: Ask, name: str) -> None:
    """Ask for the colours of drawn images; raises `BlindError` where fewer than three of four are named."""
    options = GenerationOptions(num_beams=1, max_new_tokens=64)
    drawn = [np.full((3, _SIDE, _SIDE), np.array(levels)[:, None, None], np.uint8) for levels in COLOURS.values()]
    answers = await asyncio.gather(*(ask(pixels, QUESTION, options) for pixels in drawn))
    correct = sum(_names(text, colour) for text, colour in zip(answers, COLOURS, strict=True))
    if correct < _ENOUGH:
        listed = ", ".join(
            f"of {colour}: “{' '.join(text.split())[:40]}”" for text, colour in zip(answers, COLOURS, strict=True)
        )
        raise BlindError(
            f"{name} does not see: it named {correct} of {len(COLOURS)} colours ({listed}).",
            "Take a model that reads images, and a server that hands them to it (llama.cpp needs its mmproj file). "
            "A model that sees and cannot name colours: --no-sight-check.",
        )


def _names(text: str, colour: str) -> bool:
    """Whether a text names this colour and no other one."""
    words = text.casefold()
    return [one for one in COLOURS if one in words] == [colour]
