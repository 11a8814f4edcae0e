"""Alt text in PNG and APNG files: one chunk for XMP, behind the head."""

from __future__ import annotations

import struct
import zlib

from captune.data.alt_text import exif, packet
from captune.data.alt_text.errors import CannotHold

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"XML:com.adobe.xmp\0"
_LARGEST = 64 * 1024 * 1024  # bytes of a packet that was compressed


def described(data: bytes, text: str) -> bytes:
    """The file with `text` as XMP and, where it has one, EXIF description."""
    chunks, rest = _chunks(data)
    number = next(
        (n for n, (kind, body, _) in enumerate(chunks) if kind == b"iTXt" and body.startswith(_KEYWORD)), None
    )
    old = None if number is None else _packet(chunks[number][1])
    body = _KEYWORD + b"\0\0\0\0" + packet.described(old, text)
    if number is None:
        chunks.insert(1, (b"iTXt", body, _made(b"iTXt", body)))
    else:
        chunks[number] = (b"iTXt", body, _made(b"iTXt", body))
    out = [SIGNATURE]
    for kind, body, raw in chunks:
        block = exif.described(body, text) if kind == b"eXIf" else body
        out.append(raw if block == body else _made(kind, block))
    return b"".join(out) + rest


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
    raise CannotHold("its PNG chunks are damaged")


def _made(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _packet(body: bytes) -> bytes:
    compressed, _, rest = body[len(_KEYWORD)], body[len(_KEYWORD) + 1], body[len(_KEYWORD) + 2 :]
    parts = rest.split(b"\0", 2)
    if len(parts) != 3:
        raise CannotHold("its XMP chunk is damaged")
    if not compressed:
        return parts[2]
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(parts[2], _LARGEST)
    except zlib.error:
        raise CannotHold("its XMP chunk is damaged") from None
    if unpacker.unconsumed_tail:
        raise CannotHold("its XMP packet is a giant")
    return found
