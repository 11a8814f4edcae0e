"""What a server answers as captions, or as the reason why there is none."""

import math
from collections.abc import Mapping
from typing import Any

from captune.core.records import Caption
from captune.decoding.thinking import THINKS, without_thinking
from captune.inference.captioning import NoCaptionError


def captions_in(answer: Any) -> list[Caption]:
    """The captions of an answer, in its order; raises `NoCaptionError` where it has none, or one is refused."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        raise NoCaptionError("the server's answer has no choices", "")
    return [_caption(choice) for choice in choices]


def tokens_in(answer: Any) -> tuple[int, int]:
    """Tokens of the prompt and of the answer as a server counts them; 0 where it counts none."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    counted = usage if isinstance(usage, Mapping) else {}
    return _count(counted.get("prompt_tokens")), _count(counted.get("completion_tokens"))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _caption(choice: Any) -> Caption:
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(message, Mapping):
        raise NoCaptionError("the server's answer has no message", "")
    reason = choice.get("finish_reason")
    if message.get("refusal"):
        raise NoCaptionError(f"the model refuses: {str(message['refusal'])[:200]}", "")
    if reason == "content_filter":
        raise NoCaptionError("the server's filter held the caption back", "")
    if message.get("tool_calls"):
        raise NoCaptionError("the model calls a tool instead of describing the image", "")
    cut = reason == "length"
    written = _text(message.get("content"))
    text = without_thinking(written)
    if not text:
        thinking = THINKS in written or message.get("reasoning_content") or message.get("reasoning")
        if thinking:
            raise NoCaptionError("the model was still thinking when it had no more tokens", "Raise --max-new-tokens.")
        raise NoCaptionError("the model's answer is empty", "")
    return Caption(text, _confidence(choice.get("logprobs")), cut=cut, own_words=written)


def _text(content: Any) -> str:
    """The words of a message: a text, or a list of parts of which some are text."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text")
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _confidence(logprobs: Any) -> float:
    """The geometric mean of the tokens' probabilities; NaN where the server tells none."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    values = [one.get("logprob") for one in content if isinstance(one, Mapping)] if isinstance(content, list) else []
    known = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value) and value <= 0]
    return math.exp(sum(known) / len(known)) if known and len(known) == len(values) else math.nan
