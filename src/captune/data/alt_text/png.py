"""Alt text in PNG and APNG files: one chunk for XMP, behind the head."""

from __future__ import annotations

import struct
import zlib

from captune.data.alt_text.errors import UnsupportedImage
from captune.data.alt_text.places import Fields
from captune.data.alt_text.png_texts import KEYWORD, KINDS, changed

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def rewrite(data: bytes, fields: Fields) -> bytes:
    """The file with what `places` makes of its XMP packets (a first one, where it has none), EXIF and descriptions."""
    chunks, rest = _chunks(data)
    out = []
    has_packet = False
    for kind, body, raw in chunks:
        made = (kind, body)
        if kind == b"eXIf":
            made = (kind, fields.exif(body))
        elif kind in KINDS:
            made = changed(kind, body, fields)
            has_packet |= body.startswith(KEYWORD)
        out.append(raw if made == (kind, body) else _made(*made))
    if not has_packet:
        out.insert(1, _made(b"iTXt", KEYWORD + b"\0\0\0\0" + fields.packet(None)))
    return SIGNATURE + b"".join(out) + rest


def _chunks(data: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], bytes]:
    """Kind, contents and all bytes of every chunk to the last, and what follows it."""
    found = []
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        found.append((kind, data[at + 8 : end - 4], data[at:end]))
        at = end
        if kind == b"IEND" and found[0][0] == b"IHDR":
            return found, data[at:]
    raise UnsupportedImage("its PNG chunks are damaged")


def _made(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
