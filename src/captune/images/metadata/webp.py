"""Alt text in WebP files: a chunk for XMP at the end, and the extended header that tells of it."""

import struct

from captune.images.metadata import UnsupportedImage
from captune.images.metadata.places import Fields

_HAS_XMP, _HAS_ALPHA = 0x04, 0x10
_EXIF_HEAD = b"Exif\0\0"  # some writers put it before the block, as in JPEG

_Chunk = tuple[bytes, bytes]


def rewrite(data: bytes, fields: Fields) -> bytes:
    """The file with what `places` makes of its XMP packets (a first one, where it has none) and EXIF."""
    chunks, rest = _chunks(data)
    change = {b"XMP ": fields.packet, b"EXIF": lambda body: _exif(body, fields)}
    chunks = [(kind, change[kind](body) if kind in change else body) for kind, body in chunks]
    if not any(kind == b"XMP " for kind, _ in chunks):
        chunks.append((b"XMP ", fields.packet(None)))
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended(*chunks[0])))
    head = chunks[0][1]
    chunks[0] = (b"VP8X", bytes([head[0] | _HAS_XMP]) + head[1:])
    body = b"".join(kind + struct.pack("<I", len(one)) + one + b"\0" * (len(one) % 2) for kind, one in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body + rest


def _chunks(data: bytes) -> tuple[list[_Chunk], bytes]:
    end = 8 + int.from_bytes(data[4:8], "little")
    found: list[_Chunk] = []
    at = 12
    while at + 8 <= min(end, len(data)):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > len(data):
            raise UnsupportedImage("its WebP chunks are damaged")
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    if not found or found[0][0] not in (b"VP8 ", b"VP8L", b"VP8X") or len(found[0][1]) < 10:
        raise UnsupportedImage("its WebP chunks are damaged")
    return found, data[max(at, end) :]


def _extended(kind: bytes, body: bytes) -> bytes:
    """The extended header of an image that had none: flags, and the size that its own header tells."""
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        width, height, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1  # both less one
        flags = _HAS_ALPHA if alpha else 0
    else:
        width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        width, height, flags = width - 1, height - 1, 0
        if body[3:6] != b"\x9d\x01\x2a":
            raise UnsupportedImage("its WebP head is damaged")
    return struct.pack("<I", flags) + width.to_bytes(3, "little") + height.to_bytes(3, "little")


def _exif(body: bytes, fields: Fields) -> bytes:
    head = _EXIF_HEAD if body.startswith(_EXIF_HEAD) else b""
    return head + fields.exif(body[len(head) :])
