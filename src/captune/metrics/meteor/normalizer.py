"""METEOR's own tokens (`-norm`), made of the Penn Treebank tokens that captions are scored by.

Written from what the program prints: hyphens between words vanish, clitics and signs stand
alone, a period belongs to an abbreviation or ends a sentence.
"""

import re
from functools import lru_cache

from captune.metrics.meteor.data import abbreviations

# Letters as METEOR knows them; whatever is neither letter, digit nor one of .',- stands alone.
_L = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0400-\u0527\u1d00-\u1d7f\ua640-\ua66e\ua67e-\ua697"
_A = rf"0-9{_L}"
_SPACE = " \u00a0\u2000-\u200a\u202f\u205f\u3000"
_QUOTES = str.maketrans({"‘": "'", "’": "'", "`": "'", "“": '"', "”": '"'})
# A row of periods is held by these until the other periods are dealt with.
_DOT = "\x00"

_STEPS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), put)
    for pattern, put in (
        ("''", '"'),
        (rf"[{_SPACE}]+", " "),
        (rf"([^{_A} .',\-])", r" \1 "),
        ("--", "-"),
        ("–", "-"),
        (rf"([{_A}.])-([{_A}.])", r"\1 \2"),
    )
]
_PERIODS = re.compile(r"\.{2,}")
_COMMAS_AND_CLITICS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"([^0-9]),([^0-9])", r"\1 , \2"),
        (r"([0-9]),([^0-9])", r"\1 , \2"),
        (r"([^0-9]),([0-9])", r"\1 , \2"),
        (rf"([^{_L}])'([^{_L}])", r"\1 ' \2"),
        (rf"([^{_A}])'([{_L}])", r"\1 ' \2"),
        (rf"([{_L}])'([^{_L}])", r"\1 ' \2"),
        (rf"([{_L}])'([{_L}])", r"\1 '\2"),
        (r"([0-9])'s", r"\1 's"),
    )
]
_SIMPLE = re.compile(r"[a-z0-9 ]*")
_LETTER = re.compile(f"[{_L}]")


@lru_cache(maxsize=1 << 18)
def normalize(tokens: str) -> tuple[str, ...]:
    """METEOR's tokens of a caption that is given as lower-case tokens joined by spaces."""
    if _SIMPLE.fullmatch(tokens):
        return tuple(tokens.split())
    text = f" {tokens} ".translate(_QUOTES)
    for pattern, put in _STEPS:
        text = pattern.sub(put, text)
    text = _PERIODS.sub(lambda row: f" {_DOT * len(row[0])} ", text)
    for pattern, put in _COMMAS_AND_CLITICS:
        text = pattern.sub(put, text)
    words = text.split()
    found: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        body = word[:-1]
        if not word.endswith(".") or not body:
            found.append(word.replace(_DOT, "."))
        elif "." in body and _LETTER.search(body):
            found.append(body.replace(".", ""))  # u.s. is us
        elif _keeps_period(body, following):
            found.append(word)
        else:
            found += [body, "."]
    return tuple(found)


def _keeps_period(word: str, following: str) -> bool:
    always, numeric = abbreviations()
    return word in always or "a" <= following[:1] <= "z" or (word in numeric and following[:1].isdigit())
