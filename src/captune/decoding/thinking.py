"""What a model writes for itself before its answer."""

import re

THINKS, ANSWERS = "<think>", "</think>"
_THINKING = re.compile(rf"{THINKS}.*?({ANSWERS}|\Z)", re.DOTALL)


def without_thinking(text: str) -> str:
    """A caption without what the model wrote for itself before it, also where that has no end."""
    return _THINKING.sub("", text).strip()
