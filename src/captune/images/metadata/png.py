"""Metadata in PNG and APNG files: XMP and text chunks."""

import re
import struct
import zlib
from contextlib import suppress

from captune.images.metadata import UnsupportedImage
from captune.images.metadata.places import Fields

KINDS = (b"iTXt", b"tEXt", b"zTXt")
KEYWORD = b"XML:com.adobe.xmp\0"
_PROFILE = b"Raw profile type "
_XMP, _EXIF = (
    b"http://ns.adobe.com/xap/1.0/\0",
    b"Exif\0\0",
)  # heads of a JPEG's segments, which some writers take along
_LARGEST = 64 * 1024 * 1024  # bytes of a text that was compressed
_DAMAGED = "its XMP chunk is damaged"


def changed(kind: bytes, body: bytes, fields: Fields) -> tuple[bytes, bytes]:
    """Kind and contents of a text chunk with what `places` makes of it; one about something else stays as it is."""
    keyword, _, rest = body.partition(b"\0")
    if body.startswith(KEYWORD):
        packet = fields.packet(_unpacked(kind, rest))
        return b"iTXt", KEYWORD + b"\0\0\0\0" + packet
    if keyword == b"Description":
        old = _unpacked(kind, rest).decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
        new = fields.plain(old)
        return (kind, body) if new == old else (b"iTXt", keyword + b"\0\0\0\0\0" + new.encode("utf-8", "replace"))
    if keyword.startswith(_PROFILE):
        with suppress(ValueError):  # no profile as it should be: readers pass it over
            return _profile(kind, keyword, rest, fields)
    return kind, body


def _profile(kind: bytes, keyword: bytes, rest: bytes, fields: Fields) -> tuple[bytes, bytes]:
    """A profile: its name, its length, and its bytes as hexadecimal digits."""
    text = _unpacked(kind, rest).decode("latin-1")
    match = re.fullmatch(r"\s*(\w+)\s+(\d+)\s+([0-9A-Fa-f\s]*)", text)
    if match is None:
        raise ValueError
    old = bytes.fromhex("".join(match[3].split()))
    new = _rewrite(keyword.removeprefix(_PROFILE), old, fields)
    if new == old:
        return kind, keyword + b"\0" + rest
    digits = "\n".join(new.hex()[at : at + 72] for at in range(0, 2 * len(new), 72))
    return b"zTXt", keyword + b"\0\0" + zlib.compress(f"\n{match[1]}\n{len(new):8}\n{digits}\n".encode())


def _rewrite(name: bytes, data: bytes, fields: Fields) -> bytes:
    if data.startswith(_EXIF):
        return _EXIF + fields.exif(data[len(_EXIF) :])
    if name == b"xmp" or data.startswith(_XMP):
        head = _XMP if data.startswith(_XMP) else b""
        return head + fields.packet(data[len(head) :])
    return fields.iptc(data) if name in (b"iptc", b"8bim") else data


def _unpacked(kind: bytes, rest: bytes) -> bytes:
    """The text behind a keyword."""
    if kind == b"tEXt":
        return rest
    if kind == b"iTXt":
        parts = rest[2:].split(b"\0", 2)
        if len(parts) != 3:
            raise UnsupportedImage(_DAMAGED)
        if not rest[0]:
            return parts[2]
        rest = b"\0" + parts[2]
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(rest[1:], _LARGEST)
    except zlib.error:
        raise UnsupportedImage(_DAMAGED) from None
    if unpacker.unconsumed_tail:
        raise UnsupportedImage("its XMP packet is a giant")
    return found


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
    at = len(SIGNATURE) if data.startswith(SIGNATURE) else len(data)
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
