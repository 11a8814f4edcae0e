"""The index of a JPEG file with several images (CIPA's Multi-Picture Format), when bytes moved."""

from __future__ import annotations

import struct

_ENTRIES = 0xB002
_SIZE = 16  # bytes of an entry


def with_moved_offsets(tiff: bytes, growth: int, distance: int) -> bytes:
    """The index of a file whose first image has `growth` more bytes, the others `distance` more from the index.

    A damaged index stays as it is.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return tiff
    (at,) = struct.unpack_from(f"{order}I", tiff, 4)
    if at + 2 > len(tiff):
        return tiff
    (count,) = struct.unpack_from(f"{order}H", tiff, at)
    block = bytearray(tiff)
    for field in range(at + 2, min(at + 2 + 12 * count, len(tiff) - 11), 12):
        tag, _, length, start = struct.unpack_from(f"{order}HHII", tiff, field)
        if tag != _ENTRIES or start + length > len(tiff):
            continue
        for entry in range(start, start + length - _SIZE + 1, _SIZE):
            size, offset = struct.unpack_from(f"{order}II", tiff, entry + 4)
            # The first image is the file itself: it has no offset.
            size, offset = (size, offset + distance) if offset else (size + growth, 0)
            struct.pack_into(f"{order}II", block, entry + 4, size, offset)
    return bytes(block)
