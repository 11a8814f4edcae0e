"""EXIF's ImageDescription, where a file has one: another text beside XMP's would contradict it."""

from __future__ import annotations

import struct

_TAG, _ASCII = 0x010E, 2


def with_caption(tiff: bytes, text: str, longest: int | None = None) -> bytes:
    """A block of EXIF (from its byte order mark on) with `text` in the place of the ImageDescription it has.

    A longer text goes to the block's end, so that nothing else moves; where the block would have more
    than `longest` bytes the text is cut. A block without one, or a damaged one, stays as it is.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    entry = _entry(tiff, order) if order else None
    if order is None or entry is None:
        return tiff
    count, place = struct.unpack_from(f"{order}II", tiff, entry + 4)
    start = entry + 8 if count <= 4 else place
    if start + count > len(tiff):
        return tiff
    encoded = text.encode("utf-8", "replace").replace(b"\0", b"") + b"\0"
    block = bytearray(tiff)
    if len(encoded) > count and longest is not None and len(block) + 1 + len(encoded) > longest:
        encoded = encoded[: max(0, count - 1)].decode("utf-8", "ignore").encode() + b"\0"
    if len(encoded) <= max(count, 4):
        block[start : start + max(count, len(encoded))] = encoded.ljust(max(count, len(encoded)), b"\0")
    else:
        start = len(block) + len(block) % 2
        block = block.ljust(start, b"\0") + encoded
    struct.pack_into(f"{order}I", block, entry + 4, len(encoded))
    if len(encoded) > 4:
        struct.pack_into(f"{order}I", block, entry + 8, start)
    elif start != entry + 8:
        block[entry + 8 : entry + 12] = encoded.ljust(4, b"\0")
    return bytes(block)


def description(tiff: bytes) -> str | None:
    """The ImageDescription of a block of EXIF, None where it has none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    entry = _entry(tiff, order) if order else None
    if order is None or entry is None:
        return None
    count, place = struct.unpack_from(f"{order}II", tiff, entry + 4)
    start = entry + 8 if count <= 4 else place
    return decode_text(tiff[start : start + count].partition(b"\0")[0])


def decode_text(data: bytes) -> str:
    """Text of a program that did not say how it is encoded."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _entry(tiff: bytes, order: str) -> int | None:
    """Where the entry of the description stands in the first directory."""
    if len(tiff) < 8:
        return None
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    if at + 2 > len(tiff):
        return None
    (entries,) = struct.unpack_from(f"{order}H", tiff, at)
    for number in range(entries):
        entry = at + 2 + 12 * number
        if entry + 12 > len(tiff):
            return None
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _TAG:
            return entry if kind == _ASCII else None
    return None
