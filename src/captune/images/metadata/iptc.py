"""IPTC-IIM in Photoshop's image resources: 2:120 (Caption-Abstract) and 2:25 (Keywords), all else kept."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from captune.images.metadata import UnsupportedImage
from captune.images.metadata.exif import decode_text

_IIM, _DIGEST = 0x0404, 0x0425  # numbers of resources
_SIGNATURES = (b"8BIM", b"PHUT", b"AgHg", b"DCSR", b"MeSa")
_CHARSET, _VERSION, _KEYWORD, _CAPTION = (1, 90), (2, 0), (2, 25), (2, 120)
_UTF8 = b"\x1b%G"
LONGEST, LONGEST_KEYWORD = 2000, 64  # bytes of a caption and of a keyword, by the standard


_Dataset = tuple[tuple[int, int], bytes, bytes]  # record and number, as it stands, its value


@dataclass(frozen=True, slots=True)
class _Resource:
    head: bytes  # signature, number and name
    number: int
    data: bytes

    def written(self) -> bytes:
        return self.head + struct.pack(">I", len(self.data)) + self.data + b"\0" * (len(self.data) % 2)


def with_caption(block: bytes, text: str) -> bytes:
    """Image resources (none: b"") with `text` as the caption. Raises `UnsupportedImage` where they are damaged."""
    resources = _resources(block)
    old = next((one.data for one in resources if one.number == _IIM), b"")
    return _with_iim(resources, _iim_with_caption(old, text))


def with_keywords(block: bytes, new: Sequence[str]) -> bytes:
    """Image resources with these keywords where they have IPTC data, else as they are; raises as `with_caption`."""
    resources = _resources(block)
    old = next((one.data for one in resources if one.number == _IIM), None)
    iim = None if old is None else _iim_with_keywords(old, new)
    return block if iim is None or iim == old else _with_iim(resources, iim)


def _with_iim(resources: list[_Resource], iim: bytes) -> bytes:
    digest = hashlib.md5(iim, usedforsecurity=False).digest()
    made: list[_Resource] = []
    for one in resources:
        if one.number == _IIM:
            if any(other.number == _IIM for other in made):
                made.append(one)  # a second one was never read
                continue
            one = _Resource(one.head, one.number, iim)
        elif one.number == _DIGEST:  # says whether XMP was brought in step with this, which it was
            one = _Resource(one.head, one.number, digest)
        made.append(one)
    if not any(one.number == _IIM for one in made):
        made.append(_Resource(b"8BIM" + struct.pack(">H", _IIM) + b"\0\0", _IIM, iim))
    return b"".join(one.written() for one in made)


def caption(block: bytes) -> str | None:
    """The caption in image resources, None where there is none or they are damaged."""
    try:
        found = [dataset for one in _resources(block) if one.number == _IIM for dataset in _datasets(one.data)[0]]
    except UnsupportedImage:
        return None
    return next((decode_text(data) for key, _, data in found if key == _CAPTION), None)


def keywords(block: bytes) -> list[str] | None:
    """The keywords in image resources; None where they have no IPTC data, or are damaged."""
    try:
        iim = next((one.data for one in _resources(block) if one.number == _IIM), None)
        return None if iim is None else [decode_text(data) for key, _, data in _datasets(iim)[0] if key == _KEYWORD]
    except UnsupportedImage:
        return None


def iim_of(block: bytes) -> bytes:
    """The IPTC data in image resources, b"" where there are none; raises `UnsupportedImage` where they are damaged."""
    return next((one.data for one in _resources(block) if one.number == _IIM), b"")


def values(iim: bytes) -> list[tuple[tuple[int, int], bytes]]:
    """Record and number of each dataset, with its bytes; raises `UnsupportedImage` where they are damaged."""
    return [(key, data) for key, _, data in _datasets(iim)[0]]


def _resources(block: bytes) -> list[_Resource]:
    found = []
    at = 0
    while at + 12 <= len(block) and block[at : at + 4] in _SIGNATURES:
        number = int.from_bytes(block[at + 4 : at + 6], "big")
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2
        size = int.from_bytes(block[start : start + 4], "big")
        end = start + 4 + size
        if start + 4 > len(block) or end > len(block):
            raise UnsupportedImage("its Photoshop resources are damaged")
        found.append(_Resource(block[at:start], number, block[start + 4 : end]))
        at = end + size % 2
    if block[at:].strip(b"\0 "):
        raise UnsupportedImage("its Photoshop resources are damaged")
    return found


def _iim_with_caption(iim: bytes, text: str) -> bytes:
    datasets, rest = _datasets(iim)
    others = [one for one in datasets if one[0] != _CAPTION]
    marked = _in_utf8(others, ascii=text.isascii())
    if marked is None:
        # Other texts are in another alphabet, which one mark rules for all: XMP says it rightly.
        return b"".join(raw for _, raw, _ in others) + rest
    others = marked
    if not any(key[0] == 2 for key, _, _ in others):
        others.append(_dataset(_VERSION, b"\0\x04"))
    behind = max(number for number, (key, _, _) in enumerate(others, start=1) if key[0] <= 2)
    caption = _dataset(_CAPTION, _cut(text.encode("utf-8", "replace"), LONGEST))
    return b"".join(raw for _, raw, _ in [*others[:behind], caption, *others[behind:]]) + rest


def _iim_with_keywords(iim: bytes, new: Sequence[str]) -> bytes:
    """Keywords that stand stay byte for byte where they are among the new ones."""
    datasets, rest = _datasets(iim)
    standing = {decode_text(one[2]): one for one in datasets if one[0] == _KEYWORD}
    if list(standing) == list(new):
        return iim
    others = [one for one in datasets if one[0] != _KEYWORD]
    marked = _in_utf8(
        [*others, *standing.values()], ascii=all(keyword.isascii() or keyword in standing for keyword in new)
    )
    if marked is None:  # those that need another alphabet stand in XMP alone
        new = [keyword for keyword in new if keyword.isascii() or keyword in standing]
    else:
        others = [one for one in marked if one[0] != _KEYWORD]
    made = [
        standing.get(each) or _dataset(_KEYWORD, _cut(each.encode("utf-8", "replace"), LONGEST_KEYWORD)) for each in new
    ]
    place = next((number for number, (key, _, _) in enumerate(others) if key > _KEYWORD), len(others))
    return b"".join(raw for _, raw, _ in [*others[:place], *made, *others[place:]]) + rest


def _in_utf8(datasets: list[_Dataset], *, ascii: bool) -> list[_Dataset] | None:
    """Datasets that others in UTF-8 may stand beside, marked so where these are not `ascii`; None: they may not."""
    charset = next((data for key, _, data in datasets if key == _CHARSET), None)
    if ascii or charset == _UTF8:
        return datasets
    if any(not _is_utf8(data) for key, _, data in datasets if key[0] >= 2):
        return None
    return [_dataset(_CHARSET, _UTF8), *(one for one in datasets if one[0] != _CHARSET)]


def _datasets(iim: bytes) -> tuple[list[_Dataset], bytes]:
    """The datasets and what follows them."""
    found: list[_Dataset] = []
    at = 0
    while at + 5 <= len(iim) and iim[at] == 0x1C:
        length = int.from_bytes(iim[at + 3 : at + 5], "big")
        start = at + 5
        if length & 0x8000:  # an extended dataset tells how many bytes tell its length
            start += length & 0x7FFF
            length = int.from_bytes(iim[at + 5 : start], "big")
        if start + length > len(iim):
            raise UnsupportedImage("its IPTC data are damaged")
        found.append(((iim[at + 1], iim[at + 2]), iim[at : start + length], iim[start : start + length]))
        at = start + length
    if iim[at:].strip(b"\0"):
        raise UnsupportedImage("its IPTC data are damaged")
    return found, iim[at:]


def _dataset(key: tuple[int, int], data: bytes) -> _Dataset:
    return key, struct.pack(">BBBH", 0x1C, *key, len(data)) + data, data


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _cut(text: bytes, longest: int) -> bytes:
    return text if len(text) <= longest else text[:longest].decode("utf-8", "ignore").encode()
