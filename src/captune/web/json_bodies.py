"""JSON of strangers: what a body would cost in memory is known before it is built."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json

from captune.web.problems import Problem

# A value costs up to 230 bytes, however few characters it has in the body; a chat of 1000 messages has about 10,000.
MAX_VALUES = 20_000
# Python keeps a string with one emoji at four bytes a character: bytes of all strings that are not plain ASCII.
MOST_WIDE = 1_000_000
# Backslashes are counted first, as each costs the scan a step; escaped base64 has one in 32 characters.
_ESCAPES, _ESCAPES_PER_BYTE = 200_000, 1 / 24
# A string of plain ASCII (group 1 where it has escapes), any other string (group 2; to the end where it is cut off),
# the beginning of a value, or all between, at once: a search that fails at each byte would keep other threads waiting.
_TOKEN = re.compile(
    rb'"[ !#-\[\]-\x7f]*+"|("(?:[ !#-\[\]-\x7f]++|\\[^u])*+")|("(?:[^"\\]++|\\.)*+(?:"|\Z))|[\[{,]|[^"\[{,]++',
    re.DOTALL,
)
_QUOTE, _BEGINNINGS = ord('"'), b"[{,"
# Escapes that base64 has: ends of lines, which mean nothing in it, and slashes.
_OF_BASE64 = re.compile(rb"\\[nrt/]")
_PIECE = 1 << 18


def read_json(body: bytearray) -> Any:
    """What a body says; raises `Problem`: 400 where it is no JSON, 413 where it would cost many times its size.

    Of long strings, which can be images alone, escaped ends of lines are taken out, in the body itself.
    """
    for start, end in reversed(_weigh(body)):
        _make_plain(body, start, end)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}.", "Send multipart/form-data or application/json.") from None


def _weigh(body: bytearray) -> list[tuple[int, int]]:
    """Where long strings with escapes are, which the parser would build twice."""
    if body.count(b"\\") > _ESCAPES + len(body) * _ESCAPES_PER_BYTE:
        raise Problem(413, "The body has too many escaped characters.", "Send text as UTF-8, pictures as base64.")
    values = strings = wide = 0
    escaped = []
    for token in _TOKEN.finditer(body):
        start, end = token.span()
        if token.start(2) >= 0:
            wide += end - start
        elif body[start] in _BEGINNINGS:
            values += 1
        elif token.start(1) >= 0 and end - start > MOST_WIDE:
            escaped.append((start, end))
        strings += body[start] == _QUOTE
        if values > MAX_VALUES or strings > 2 * MAX_VALUES:  # a value may have a name
            raise Problem(413, f"The body has more than {MAX_VALUES:,} values.", "Send less at once.")
        if wide > MOST_WIDE:
            raise Problem(413, f"The body has more than {MOST_WIDE / 1e6:g} MB of text.", "Send less text at once.")
    return escaped


def _make_plain(body: bytearray, start: int, end: int) -> None:
    """Take the escapes of base64 out of a string, in its place; raises `Problem` (413) where it has others."""
    read = write = start
    while read < end:
        until = min(read + _PIECE, end)
        until += body[until - 1] == ord("\\")  # an escape is not divided
        piece = _OF_BASE64.sub(lambda escape: b"/" if escape[0] == b"\\/" else b"", bytes(body[read:until]))
        if b"\\" in piece:
            raise Problem(413, "The body has a long text with escaped characters.", "Send pictures as base64.")
        body[write : write + len(piece)] = piece
        read, write = until, write + len(piece)
    del body[write:end]
