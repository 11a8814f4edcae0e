"""EXIF's ImageDescription and XPKeywords, where a file has them: others beside XMP's would contradict them."""

import struct
from collections.abc import Iterator, Sequence

_DESCRIPTION, _XP_KEYWORDS = 0x010E, 0x9E9E
_BYTE, _ASCII = 1, 2
_BETWEEN = ";"  # keywords of Windows
_Value = tuple[str, int, int, int]  # byte order, position of the entry, position and bytes of its value


def with_caption(tiff: bytes, text: str, longest: int | None = None) -> bytes:
    """A block of EXIF (from its byte order mark on) with `text` in the place of the ImageDescription it has.

    A longer text goes to the block's end, so that nothing else moves; where the block would have more
    than `longest` bytes the text is cut. A block without one, or a damaged one, stays as it is.
    """
    found = _value(tiff, _DESCRIPTION, _ASCII)
    if found is None:
        return tiff
    encoded = text.encode("utf-8", "replace").replace(b"\0", b"") + b"\0"
    if not _fits(tiff, found, encoded, longest):
        encoded = encoded[: max(0, found[3] - 1)].decode("utf-8", "ignore").encode() + b"\0"
    return _with_value(tiff, found, encoded)


def with_keywords(tiff: bytes, keywords: Sequence[str], longest: int | None = None) -> bytes:
    """The same with the XPKeywords of Windows, where a block has them; the last are left out where there is no room."""
    found = _value(tiff, _XP_KEYWORDS, _BYTE)
    if found is None or list(keywords) == xp_keywords(tiff):
        return tiff
    some = [*keywords]
    while some and not _fits(tiff, found, _xp_encoded(some), longest):
        some.pop()
    return _with_value(tiff, found, _xp_encoded(some))


def xp_keywords(tiff: bytes) -> list[str] | None:
    """The XPKeywords of a block of EXIF, None where it has none."""
    found = _value(tiff, _XP_KEYWORDS, _BYTE)
    if found is None:
        return None
    _, _, start, count = found
    text = tiff[start : start + count].decode("utf-16-le", "replace").partition("\0")[0]
    return [keyword.strip() for keyword in text.split(_BETWEEN) if keyword.strip()]


def _xp_encoded(keywords: Sequence[str]) -> bytes:
    text = _BETWEEN.join(keyword.replace(_BETWEEN, ",") for keyword in keywords)
    return (text + "\0").encode("utf-16-le", "replace")


def _fits(tiff: bytes, found: _Value, encoded: bytes, longest: int | None) -> bool:
    return len(encoded) <= found[3] or longest is None or len(tiff) + 1 + len(encoded) <= longest


def _with_value(tiff: bytes, found: _Value, encoded: bytes) -> bytes:
    order, entry, start, count = found
    block = bytearray(tiff)
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
    found = _value(tiff, _DESCRIPTION, _ASCII)
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


def _value(tiff: bytes, tag: int, kind: int) -> _Value | None:
    """Where the value of a tag stands; None where a block has none of this kind, or is damaged."""
    for order, entry in entries(tiff):
        found, its_kind, count, offset = struct.unpack_from(f"{order}HHII", tiff, entry)
        if found == tag:
            start = entry + 8 if count <= 4 else offset
            return (order, entry, start, count) if its_kind == kind and start + count <= len(tiff) else None
    return None
