"""Metadata in JPEG files: segments before the image data change, the image data never."""

import struct
from dataclasses import dataclass

from captune.images.jpeg import ALONE, START_OF_SCAN, markers
from captune.images.metadata import UnsupportedImage
from captune.images.metadata.exif import entries
from captune.images.metadata.places import Fields

_ENTRIES = 0xB002
_SIZE = 16  # bytes of an entry


def with_moved_offsets(tiff: bytes, growth: int, distance: int) -> bytes:
    """The index of a file whose first image has `growth` more bytes, the others `distance` more from the index.

    A damaged index stays as it is.
    """
    block = bytearray(tiff)
    for order, field in entries(tiff):
        tag, _, length, start = struct.unpack_from(f"{order}HHII", tiff, field)
        if tag != _ENTRIES or start + length > len(tiff):
            continue
        for entry in range(start, start + length - _SIZE + 1, _SIZE):
            size, offset = struct.unpack_from(f"{order}II", tiff, entry + 4)
            # The first image is the file itself: it has no offset.
            size, offset = (size, offset + distance) if offset else (size + growth, 0)
            struct.pack_into(f"{order}II", block, entry + 4, size, offset)
    return bytes(block)


_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_RESOURCES = b"Photoshop 3.0\0"
_MPF = b"MPF\0"
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_LONGEST = 65_533  # bytes of a segment, besides marker and length


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    raw: bytes  # from the first FF on
    body: bytes

    def has(self, marker: int, head: bytes) -> bool:
        return self.marker == marker and self.body.startswith(head)


def rewrite(data: bytes, fields: Fields) -> bytes:
    """The file with what `places` makes of its XMP packets (a first one, where it has none), IPTC and EXIF."""
    before, scan = _segments(data)
    after = [*before]
    for number, one in enumerate(after):
        if one.has(_APP1, _EXIF):
            block = fields.exif(one.body[len(_EXIF) :], _LONGEST - len(_EXIF))
            after[number] = _made(_APP1, _EXIF + block) if _EXIF + block != one.body else one
    place = 0  # behind JFIF and EXIF, which are to come first
    while place < len(after) and (after[place].marker == _APP0 or after[place].has(_APP1, _EXIF)):
        place += 1
    for extended in _extended(before):
        fields.extended(extended)
    packets = [number for number, one in enumerate(after) if one.has(_APP1, _XMP)]
    for number in packets:  # readers differ in which of several they take
        after[number] = _packet(fields.packet(after[number].body[len(_XMP) :]))
    if not packets:
        after.insert(place, _packet(fields.packet(None)))
        place += 1
    after = _with_caption(after, fields, place)
    return data[:2] + b"".join(one.raw for one in _in_step(before, after)) + scan


def _packet(packet: bytes) -> _Segment:
    if len(_XMP + packet) > _LONGEST:
        raise UnsupportedImage("its XMP packet has no room for more")
    return _made(_APP1, _XMP + packet)


def _extended(segments: list[_Segment]) -> list[bytes]:
    """Packets too long for one segment: each part has a digest of the whole, its length, and where it belongs."""
    found: dict[bytes, list[tuple[int, bytes]]] = {}
    for one in segments:
        if one.has(_APP1, _EXTENSION):
            digest, rest = one.body[len(_EXTENSION) :][:32], one.body[len(_EXTENSION) + 36 :]
            found.setdefault(digest, []).append((int.from_bytes(rest[:4], "big"), rest[4:]))
    return [b"".join(part for _, part in sorted(parts)) for parts in found.values()]


def _segments(data: bytes) -> tuple[list[_Segment], bytes]:
    """The segments behind the start mark, and everything from the scan on."""
    found: list[_Segment] = []
    start = 2
    for marker, at in markers(data):
        length = 0 if marker in ALONE else int.from_bytes(data[at : at + 2])
        end = at + length
        if data[start : at - 1].strip(b"\xff") or end > len(data) or (length < 2 and marker not in ALONE):
            break
        if marker == START_OF_SCAN:
            return found, data[start:]
        found.append(_Segment(marker, data[start:end], data[at + 2 : end]))
        start = end
    raise UnsupportedImage("its JPEG segments are damaged")


def _made(marker: int, body: bytes) -> _Segment:
    return _Segment(marker, struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body, body)


def _with_caption(segments: list[_Segment], fields: Fields, place: int) -> list[_Segment]:
    """The segments with the IPTC caption; resources that cannot be read stay as they are, XMP has the text."""
    old = [one for one in segments if one.has(_APP13, _RESOURCES)]
    try:
        block = fields.iptc(b"".join(one.body[len(_RESOURCES) :] for one in old))
    except UnsupportedImage:
        return segments
    if old:
        place = segments.index(old[0])
    step = _LONGEST - len(_RESOURCES)
    parts = [_made(_APP13, _RESOURCES + block[at : at + step]) for at in range(0, len(block), step)]
    others = [one for one in segments if one not in old]
    return [*others[:place], *parts, *others[place:]]


def _in_step(before: list[_Segment], after: list[_Segment]) -> list[_Segment]:
    """The segments with the index of further images in the file (MPF) updated for what moved."""
    old = next((one for one in before if one.has(_APP2, _MPF)), None)
    if old is None:
        return after
    number = after.index(old)
    growth = _length(after) - _length(before)
    shift = _length(after[:number]) - _length(before[: before.index(old)])
    body = _MPF + with_moved_offsets(old.body[len(_MPF) :], growth, growth - shift)
    return [*after[:number], _made(_APP2, body), *after[number + 1 :]]


def _length(segments: list[_Segment]) -> int:
    return sum(len(one.raw) for one in segments)
