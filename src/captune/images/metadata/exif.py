"""EXIF's ImageDescription, where a file has one: another text beside XMP's would contradict it."""

import struct
from collections.abc import Iterator

_TAG, _ASCII = 0x010E, 2


def with_caption(tiff: bytes, text: str, longest: int | None = None) -> bytes:
    """A block of EXIF (from its byte order mark on) with `text` in the place of the ImageDescription it has.

    A longer text goes to the block's end, so that nothing else moves; where the block would have more
    than `longest` bytes the text is cut. A block without one, or a damaged one, stays as it is.
    """
    found = _description(tiff)
    if found is None or found[2] + found[3] > len(tiff):
        return tiff
    order, entry, start, count = found
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
    found = _description(tiff)
    if found is None:
        return None
    _, _, start, count = found
    return decode_text(tiff[start : start + count].partition(b"\0")[0])


def decode_text(data: bytes) -> str:
    """Text of a program that did not say how it is encoded."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def entries(tiff: bytes) -> Iterator[tuple[str, int]]:
    """Byte order and position of each entry of the first directory of a TIFF block; none of a damaged block."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    if at + 2 <= len(tiff):
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
            yield order, entry


def _description(tiff: bytes) -> tuple[str, int, int, int] | None:
    """Byte order, position of the entry, and position and length of the text of the ImageDescription."""
    for order, entry in entries(tiff):
        tag, kind, count, offset = struct.unpack_from(f"{order}HHII", tiff, entry)
        if tag == _TAG:
            return (order, entry, entry + 8 if count <= 4 else offset, count) if kind == _ASCII else None
    return None
