"""Alt text into every real and odd image: pixels, data and all other metadata as before."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, IptcImagePlugin

from captune.core.errors import ImageError
from captune.images.metadata import UnsupportedImage
from captune.images.metadata.files import with_caption
from captune.images.open import open_image

pytestmark = pytest.mark.real
OURS = ("}description", "}AltTextAccessibility")
TEXT = 'Zwei Hunde 🐕 <spielen> & "laufen" in München'


def properties(packet: bytes | None) -> Counter[tuple[str, str]]:
    """All properties of a packet but those that hold the caption."""
    if not packet:
        return Counter()
    found: Counter[tuple[str, str]] = Counter()
    for node in ElementTree.fromstring(packet.decode("utf-8-sig").strip("\0 \r\n")).iter():
        if node.tag.endswith("}Description"):
            found.update(node.attrib.items())
            found.update((one.tag, "".join(one.itertext())) for one in node if not one.tag.endswith(OURS))
    return found


def iptc(image: Image.Image) -> dict[tuple[int, int], bytes]:
    found = IptcImagePlugin.getiptcinfo(image) or {}  # type: ignore[arg-type]
    return {key: value for key, value in found.items() if key not in ((1, 90), (2, 0), (2, 120))}


def test_every_picture_keeps_everything_else(test_data: Path) -> None:
    held: Counter[str] = Counter()
    originals = sorted((test_data / "flickr8k" / "original").rglob("*.jpg"))[:20]
    for path in [*sorted((test_data / "odd").rglob("*")), *originals]:
        if not path.is_file() or path.stat().st_size > 3_000_000:
            continue
        before = path.read_bytes()
        try:
            open_image(before)
            after = with_caption(before, TEXT)
        except (ImageError, UnsupportedImage) as error:
            held["another kind" if "neither" in str(error) else type(error).__name__] += 1
            continue
        assert with_caption(after, TEXT) == after, path
        with Image.open(io.BytesIO(before)) as old, Image.open(io.BytesIO(after)) as new:
            assert (old.format, old.mode, old.size) == (new.format, new.mode, new.size), path
            assert old.tobytes() == new.tobytes(), path
            for name in ("exif", "icc_profile", "dpi"):
                assert old.info.get(name) == new.info.get(name), path
            assert properties(old.info.get("xmp")) <= properties(new.info["xmp"]), path
            assert TEXT.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").encode() in new.info["xmp"]
            if new.format == "JPEG":
                assert iptc(old) == iptc(new), path
                assert after.endswith(before[before.rindex(b"\xff\xda") :]), path
            held[str(new.format)] += 1
    assert min(held[kind] for kind in ("JPEG", "PNG", "WEBP")) >= 8, held
    assert held["UnsupportedImage"] <= held["JPEG"] / 10, held
