"""JPEG files that decoders take too well: cut off and closed again, or with scans without end."""

import io
import re
from collections.abc import Iterator
from typing import IO

from PIL import Image, ImageChops

# Programs that make progressive files write up to twenty scans; a decoder goes over the whole image for each.
MOST_SCANS = 100
_HEAD_BYTES = 65_536
START_OF_SCAN, _END = 0xDA, 0xD9
_SEQUENTIAL = (0xC0, 0xC1)
ALONE = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))  # markers that no length follows
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FILLER = bytes(range(1, 251)) * 16


def has_missing_rows(image: Image.Image, file: IO[bytes]) -> bool:
    """Whether a loaded JPEG's data ends before its last rows (sequential JPEG only).

    The sign is a last corner of exact middle grey. An image that really ends in grey is told
    apart by a second decoding with more data put before the end mark: a complete scan does not
    look at it, a short one reads on.
    """
    if image.mode not in ("L", "RGB"):
        return False
    width, height = image.size
    corner = image.crop((max(0, width - 4), height - 1, width, height))
    if set(corner.tobytes()) != {128}:
        return False
    file.seek(0)
    data = file.read()
    scan = next((at + _length(data, at) for marker, at in markers(data) if marker == START_OF_SCAN), 0)
    end = _NEXT_MARKER.search(data, scan) if scan else None
    if end is None or data[end.start() + 1] != 0xD9:
        return False  # several scans, or no end mark at all: Pillow's own check sees to that
    longer = data[: end.start()] + _FILLER + data[end.start() :]
    with Image.open(io.BytesIO(longer), formats=("JPEG",)) as again:
        return ImageChops.difference(image, again).getbbox() is not None


def has_too_many_scans(file: IO[bytes]) -> bool:
    """Whether a JPEG has more than `MOST_SCANS` scans, told from its markers; leaves the file anywhere."""
    file.seek(0)
    data = file.read(_HEAD_BYTES)
    if _has_one_scan(data):
        return False
    data += file.read()
    # Nearly every file is told by a search for two bytes, which also finds what only looks like a scan.
    if data.count(b"\xff\xda") <= MOST_SCANS:
        return False
    return sum(marker == START_OF_SCAN for marker, _ in markers(data)) > MOST_SCANS


def _has_one_scan(data: bytes) -> bool:
    """Whether a file's first bytes promise one scan for all colours: decoders refuse to read another."""
    components = 0
    for marker, at in markers(data):
        if marker in _SEQUENTIAL:
            components = int.from_bytes(data[at + 7 : at + 8])
        elif marker == START_OF_SCAN:
            return 0 < components == int.from_bytes(data[at + 2 : at + 3])
    return False


def markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Each marker of the first image, as libjpeg finds them, and where its length stands."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _END:
            return
        yield marker, at
        if marker not in ALONE:
            at += max(2, _length(data, at))


def _length(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2])
