"""Pictures out of requests: uploaded bytes, base64, data URLs and, where allowed, addresses."""

from __future__ import annotations

import binascii
import io
import re

from captune.web.problems import Problem

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
_SPACE = str.maketrans("", "", " \t\r\n")
# Characters that are decoded at once: whole copies of a large picture would cost several times its size.
_PIECE = 1 << 18


def is_address(picture: str) -> bool:
    """Whether a picture is named by an http(s) address."""
    return picture[:8].lower().startswith(("http://", "https://"))


def picture_bytes(picture: str | bytes) -> bytes:
    """The file in base64 or in a data URL; raises `Problem` (422) where it is neither."""
    if isinstance(picture, bytes):
        return picture
    start = 0
    if picture[:5].lower() == "data:":
        head = _DATA_URL.match(picture[:1000])
        if head is None or head[3] is None:
            raise Problem(422, "The data URL of the picture is not base64.", "data:image/jpeg;base64,…")
        start = head.end()
    try:
        return _decoded(picture, start)
    except ValueError:  # binascii's is one
        raise Problem(
            422, "The picture is not base64.", "Send base64, a data URL, or the file itself as multipart/form-data."
        ) from None


def _decoded(text: str, start: int) -> bytes:
    """Base64 from a place in a text on, white space aside; raises `ValueError`."""
    file, rest = io.BytesIO(), ""
    for at in range(start, len(text), _PIECE):
        piece = rest + text[at : at + _PIECE].translate(_SPACE)
        whole = len(piece) - len(piece) % 4
        if at + _PIECE < len(text) and "=" in piece[:whole]:
            # Only white space may follow the end.
            piece += text[at + _PIECE :].translate(_SPACE)
            file.write(binascii.a2b_base64(piece, strict_mode=True))
            return file.getvalue()
        file.write(binascii.a2b_base64(piece[:whole], strict_mode=True))
        rest = piece[whole:]
    file.write(binascii.a2b_base64(rest, strict_mode=True))
    return file.getvalue()
