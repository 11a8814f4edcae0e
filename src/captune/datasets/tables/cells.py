"""Captions in one cell of a table or one value of JSON: a text, a list of texts, tokens, Karpathy's sentences."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from captune.core.files.limits import is_deep, parse_json
from captune.core.text import unspaced_language

_TEXT_KEYS = ("raw", "caption", "text", "sentence", "answer")
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
# As Python prints a list, or as numpy prints an array: without commas.
_PRINTED = re.compile(rf"\[\s*{_LITERAL}(?:(?:\s*,\s*|\s+){_LITERAL})*\s*,?\s*\]", re.DOTALL)
_FEW = 3  # single words: fewer may be captions of one word
_SHORT = 3  # letters: the mean word of a script without spaces is shorter


class NotText(ValueError):
    """A value that holds no captions; the message goes on after the name of its column."""


def texts_in(value: Any, *, several: bool, answers: bool = False) -> list[str]:
    """The captions of a cell, none for an empty one.

    `several` says that its column is one of lists (`captions`). A list of single words elsewhere is one sentence's
    tokens; with `answers` (to a question) every text is one answer. Raises `NotText` for what is neither text nor
    list, and for a list of which it is open what it means. An answer that JSON or a table has as a number or as
    true or false is its text, as in CSV; 3.0 is 3.
    """
    if value is None or value != value:  # NaN, as pandas writes what is missing
        return []
    if answers and (plain := _plain_value(value)) is not None:
        return [plain]
    if isinstance(value, str):
        parsed = _parsed(value)
        return [value] if parsed is None else texts_in(parsed, several=several, answers=answers)
    if isinstance(value, Mapping):
        return _of_mapping(value, answers)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise NotText(f"is {_shown(value)}, not text")
    items = [item for item in value if item is not None]
    if answers:
        items = [item if (plain := _plain_value(item)) is None else plain for item in items]
    if items and all(isinstance(item, str) for item in items):
        return items if answers else _of_strings(items, several)
    if items and all(isinstance(item, int | float) for item in items):
        raise NotText(f"is a list of numbers ({_shown(value)}): token ids must be decoded to text")
    if items and all(isinstance(item, Mapping) and _turn(item) for item in items):
        return [_answer(items)]
    lists = [item for item in items if isinstance(item, list | tuple) and _are_words(item)]
    if any(len(item) >= _FEW for item in lists):  # sentences in tokens, a short one among them too
        items = [" ".join(item) if item in lists else item for item in items]
    return [text for item in items for text in texts_in(item, several=False, answers=answers)]


def _are_words(items: Sequence[Any]) -> bool:
    """Whether all are texts of one word in a script that puts spaces between words."""
    return all(isinstance(item, str) and len(item.split()) == 1 and not unspaced_language(item) for item in items)


def _plain_value(value: Any) -> str | None:
    """The text of a number or of true or false, None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    return None


def _of_mapping(value: Mapping[str, Any], answers: bool) -> list[str]:
    for key in _TEXT_KEYS:
        if isinstance(value.get(key), str):
            return [value[key]]
    if (answers or "answer" in value) and (plain := _plain_value(value.get("answer"))) is not None:
        return [plain]
    tokens = value.get("tokens")
    if isinstance(tokens, list | tuple) and all(isinstance(token, str) for token in tokens):
        return [" ".join(tokens)]
    raise NotText(f"is {_shown(value)}: expected a text, or one of {', '.join(_TEXT_KEYS)}, tokens in it")


def _of_strings(items: Sequence[str], several: bool) -> list[str]:
    words = [item.strip() for item in items]
    if len(words) < 2 or any(not word or any(sign.isspace() for sign in word) for word in words):
        return list(items)
    if all(unspaced_language(word) or not any(map(str.isalnum, word)) for word in words):
        if len(words) > _FEW and sum(map(len, words)) / len(words) < _SHORT:
            raise NotText(f"is a list of {len(words)} words ({_shown(items)}): join those of a sentence")
        return list(items)
    marks = any(not any(map(str.isalnum, word)) for word in words)
    if several:
        if len(words) > _FEW or marks:
            raise NotText(
                f"is a list of {len(words)} single words ({_shown(items)}): one sentence is a text or a list in the "
                "list, captions of one word need a row each"
            )
        return list(items)
    return [" ".join(words)] if len(words) >= _FEW or marks else list(items)


def _turn(item: Mapping[str, Any]) -> bool:
    return ("from" in item and "value" in item) or ("role" in item and "content" in item)


def _answer(turns: Sequence[Mapping[str, Any]]) -> str:
    """What the assistant says in a conversation of one answer."""
    answers = [
        turn.get("value", turn.get("content"))
        for turn in turns
        if str(turn.get("from", turn.get("role"))).lower() in ("gpt", "assistant", "model", "chatgpt")
    ]
    if len(answers) != 1 or not isinstance(answers[0], str):
        raise NotText(f"is a conversation with {len(answers)} answers: a caption is one text")
    return answers[0]


def _parsed(cell: str) -> list[Any] | None:
    """A list written into a cell as JSON, or as Python or numpy prints it; None for any other text."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        if _PRINTED.fullmatch(text):
            return [ast.literal_eval(literal) for literal in re.findall(_LITERAL, text, re.DOTALL)]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        if is_deep(value):
            return None
    readable = isinstance(value, list) and all(isinstance(item, str | list | dict) for item in value)
    return value if readable else None  # "[1]" may well be what a caption says


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
