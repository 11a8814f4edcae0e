"""JSON of strangers: what a body would cost in memory is known before it is built."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json

from captune.web.problems import Problem

# A value costs up to 230 bytes, however few characters it has in the body; a chat of 1000 messages has about 10,000.
MOST_VALUES = 20_000
# Python keeps a string with one emoji at four bytes a character: bytes of all strings that are not plain ASCII.
MOST_WIDE = 1_000_000
# Backslashes are counted first, as each costs the scan a step; escaped base64 has one in 32 characters.
_ESCAPES, _ESCAPES_PER_BYTE = 200_000, 1 / 24
# A string of plain ASCII, any other string (group 1; to the end where it is cut off), or the beginning of a value.
_TOKEN = re.compile(rb'"(?:[ !#-\[\]-\x7f]++|\\[^u])*+"|("(?:[^"\\]++|\\.)*+(?:"|\Z))|[\[{,]', re.DOTALL)


def read_json(body: bytes | bytearray) -> Any:
    """What a body says; raises `Problem`: 400 where it is no JSON, 413 where it would cost many times its size."""
    _weigh(body)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}.", "Send multipart/form-data or application/json.") from None


def _weigh(body: bytes | bytearray) -> None:
    if body.count(b"\\") > _ESCAPES + len(body) * _ESCAPES_PER_BYTE:
        raise Problem(413, "The body has too many escaped characters.", "Send text as UTF-8, pictures as base64.")
    values = wide = 0
    for token in _TOKEN.finditer(body):
        if token.start(1) >= 0:
            wide += token.end() - token.start()
        elif body[token.start()] != ord('"'):
            values += 1
        if values > MOST_VALUES:
            raise Problem(413, f"The body has more than {MOST_VALUES:,} values.", "Send less at once.")
        if wide > MOST_WIDE:
            raise Problem(413, f"The body has more than {MOST_WIDE / 1e6:g} MB of text.", "Send less text at once.")
