"""Scripts that put no spaces between words: a metric that splits at spaces takes a whole caption as one word."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

# First and last code point, and whose writing it is.
_RANGES = (
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Burmese"),
    (0x1780, 0x17FF, "Khmer"),
    (0x3040, 0x30FF, "Japanese"),
    (0x31F0, 0x31FF, "Japanese"),
    (0x3400, 0x4DBF, "Chinese"),
    (0x4E00, 0x9FFF, "Chinese"),
    (0xA9E0, 0xA9FF, "Burmese"),
    (0xAA60, 0xAA7F, "Burmese"),
    (0xF900, 0xFAFF, "Chinese"),
    (0xFF66, 0xFF9F, "Japanese"),
    (0x20000, 0x323AF, "Chinese"),
)
_STARTS = [first for first, _, _ in _RANGES]
# Letters and vowel signs of a word are rarely more, on the average of several words.
_LONGEST_WORD = {"Chinese": 3.5, "Japanese": 4.5}
_LONGEST_ELSEWHERE = 8.0


def unspaced_language(text: str) -> str | None:
    """The language whose script, written without spaces, has most letters of the text; None for other scripts."""
    counts: dict[str, int] = {}
    others = 0
    for sign in text:
        language = _language_of(sign)
        if language is not None:
            counts[language] = counts.get(language, 0) + 1
        elif sign.isalpha():
            others += 1
    if not counts or sum(counts.values()) <= others:
        return None
    # Japanese is written with Chinese characters too, Chinese never with kana.
    return "Japanese" if counts.get("Japanese") else max(counts, key=lambda language: counts[language])


def unsegmented(texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts are in such a script and have no spaces between their words, by language."""
    found: dict[str, list[str]] = {}
    for text in texts:
        language = None if text.isascii() else unspaced_language(text)
        if language is not None:
            found.setdefault(language, []).append(text)
    counts = {}
    for language, group in found.items():
        words = [word for text in group for word in text.split() if unspaced_language(word)]
        longest = _LONGEST_WORD.get(language, _LONGEST_ELSEWHERE)
        if sum(map(len, words)) > longest * len(words):
            counts[language] = sum(
                any(len(word) > longest for word in text.split() if unspaced_language(word)) for text in group
            )
    return {language: count for language, count in counts.items() if count}


def _language_of(sign: str) -> str | None:
    code = ord(sign)
    if code < _STARTS[0]:
        return None
    first, last, language = _RANGES[bisect.bisect_right(_STARTS, code) - 1]
    return language if first <= code <= last else None
