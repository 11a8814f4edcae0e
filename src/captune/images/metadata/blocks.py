"""The blocks of metadata in an image file as they stand: EXIF, XMP packets, IPTC, plain descriptions."""

import io
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL import Image

from captune.core.errors import CaptuneError
from captune.images.metadata import UnsupportedImage, iptc, jpeg, png, webp, xmp
from captune.images.metadata.exif import decode_text
from captune.images.metadata.places import scan_packets
from captune.images.open import DECODER_ERRORS, open_undecoded
from captune.images.signatures import HEAD_BYTES, image_type

_READERS = {"JPEG": jpeg.rewrite, "PNG": png.rewrite, "WebP": webp.rewrite}
_EXIF_HEAD = b"Exif\0\0"
_IN_TIFF = {"packet": 700, "iim": 33723, "iptc": 34377}
LARGEST = 16 * 1024 * 1024  # bytes of a block; a larger one is passed over


@dataclass
class Blocks:
    """What a reader of a format is given instead of something to write: it collects, and returns what it gets."""

    exif_blocks: list[bytes] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    resources: list[bytes] = field(default_factory=list)
    iim_blocks: list[bytes] = field(default_factory=list)

    def packet(self, old: bytes | None) -> bytes:
        if old is not None:
            self.extended(old)
        return old or b""

    def extended(self, old: bytes) -> None:
        if len(old) <= LARGEST and old not in self.packets:
            self.packets.append(old)

    def exif(self, tiff: bytes, longest: int | None = None) -> bytes:
        self.exif_blocks.append(tiff)
        return tiff

    def iptc(self, block: bytes) -> bytes:
        if block:
            self.resources.append(block)
        return block

    def plain(self, old: str) -> str:
        return old

    @cached_property
    def iptc_values(self) -> dict[tuple[int, int], list[str]]:
        """Texts of each dataset of IPTC by record and number; a damaged block has none."""
        found: dict[tuple[int, int], list[str]] = {}
        for number, block in enumerate([*self.resources, *self.iim_blocks]):
            with suppress(UnsupportedImage):
                iim = block if number >= len(self.resources) else iptc.iim_of(block)
                for key, data in iptc.values(iim):
                    found.setdefault(key, []).append(decode_text(data))
        return found

    @cached_property
    def documents(self) -> list[xmp.Properties]:
        """The XMP packets that can be read."""
        found = []
        for packet in self.packets:
            with suppress(UnsupportedImage):
                found.append(xmp.Properties.of(packet))
        return found

    @cached_property
    def exif_tags(self) -> Image.Exif:
        """The tags of the first block of EXIF that can be read."""
        for block in self.exif_blocks:
            tags = Image.Exif()
            with suppress(*DECODER_ERRORS):
                tags.load(block if block.startswith(_EXIF_HEAD) else _EXIF_HEAD + block)
                if len(tags):
                    return tags
        return Image.Exif()


def read_blocks(source: bytes | Image.Image, *beside: bytes) -> Blocks:
    """The blocks of an image, the bytes of a file or one that Pillow opened, and of packets `beside` it."""
    blocks = Blocks()
    if isinstance(source, Image.Image):
        _from_pillow(source, blocks)
    else:
        name, _ = image_type(source) or ("", "")
        try:
            if name not in _READERS:
                raise UnsupportedImage("its blocks are read by Pillow")
            _READERS[name](source, blocks)
        except UnsupportedImage:
            file, head = io.BytesIO(source), source[:HEAD_BYTES]
            with suppress(CaptuneError, *DECODER_ERRORS), open_undecoded(file, head) as image:
                _from_pillow(image, blocks)
        if not blocks.packets:
            scan_packets(source, blocks.extended)
    for packet in beside:
        blocks.extended(packet)
    return blocks


def _from_pillow(image: Image.Image, blocks: Blocks) -> None:
    """What Pillow found in the head of an image."""
    with suppress(*DECODER_ERRORS):
        tags = image.getexif()
        if len(tags):
            blocks.exif_blocks.append(tags.tobytes())
            for kind, tag in _IN_TIFF.items():
                _add(blocks, kind, tags.get(tag))
    _add(blocks, "packet", image.info.get("xmp"))
    photoshop = image.info.get("photoshop")
    _add(blocks, "iim", photoshop.get(0x0404) if isinstance(photoshop, dict) else None)


def _add(blocks: Blocks, kind: str, value: Any) -> None:
    data = value.encode() if isinstance(value, str) else value
    if isinstance(data, bytes) and data:
        {"packet": blocks.extended, "iptc": blocks.resources.append, "iim": blocks.iim_blocks.append}[kind](data)
