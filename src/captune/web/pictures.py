"""Pictures out of requests: uploaded bytes, base64, data URLs and, where allowed, addresses."""

from __future__ import annotations

import base64
import binascii
import re

from captune.web.problems import Problem

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.IGNORECASE)
_SPACE = str.maketrans("", "", " \t\r\n")


def is_address(picture: str) -> bool:
    """Whether a picture is named by an http(s) address."""
    return picture[:8].lower().startswith(("http://", "https://"))


def picture_bytes(picture: str | bytes) -> bytes:
    """The file in base64 or in a data URL; raises `Problem` (422) where it is neither."""
    if isinstance(picture, bytes):
        return picture
    if picture[:5].lower() == "data:":
        head = _DATA_URL.match(picture[:1000])
        if head is None or head[3] is None:
            raise Problem(422, "The data URL of the picture is not base64.", "data:image/jpeg;base64,…")
        picture = picture[head.end() :]
    try:
        return base64.b64decode(picture.translate(_SPACE), validate=True)
    except (binascii.Error, ValueError):
        raise Problem(
            422, "The picture is not base64.", "Send base64, a data URL, or the file itself as multipart/form-data."
        ) from None
