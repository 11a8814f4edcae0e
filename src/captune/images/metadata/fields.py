"""What a file says about its image, as the fields of a prompt: people, place, date, keywords, camera."""

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from captune.core.errors import CaptuneError, did_you_mean, question
from captune.core.files import open_regular
from captune.core.files.existing import LEDGER, Ledger, split_keywords
from captune.core.sidecars import SUFFIXES, captions_in
from captune.core.stores.files import is_remote
from captune.core.text import decoded
from captune.images.metadata.blocks import Blocks, read_blocks
from captune.images.metadata.exif_values import exif_names, exif_value
from captune.images.metadata.files import existing_texts

_DC = "http://purl.org/dc/elements/1.1/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_MICROSOFT = "http://ns.microsoft.com/photo/1.2/"
_EXIF, _XMP = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/xap/1.0/"

# Fields of IPTC: number of the dataset in record 2, and the same in XMP.
IPTC: dict[str, tuple[int, tuple[str, str] | None]] = {
    "ObjectName": (5, (_DC, "title")),
    "Category": (15, (_PHOTOSHOP, "Category")),
    "Keywords": (25, (_DC, "subject")),
    "Instructions": (40, (_PHOTOSHOP, "Instructions")),
    "DateCreated": (55, (_PHOTOSHOP, "DateCreated")),
    "Byline": (80, (_DC, "creator")),
    "BylineTitle": (85, (_PHOTOSHOP, "AuthorsPosition")),
    "City": (90, (_PHOTOSHOP, "City")),
    "Sublocation": (92, (_CORE, "Location")),
    "State": (95, (_PHOTOSHOP, "State")),
    "CountryCode": (100, (_CORE, "CountryCode")),
    "Country": (101, (_PHOTOSHOP, "Country")),
    "Headline": (105, (_PHOTOSHOP, "Headline")),
    "Credit": (110, (_PHOTOSHOP, "Credit")),
    "Source": (115, (_PHOTOSHOP, "Source")),
    "CopyrightNotice": (116, (_DC, "rights")),
    "Caption": (120, (_DC, "description")),
    "Writer": (122, (_PHOTOSHOP, "CaptionWriter")),
}
# What the standard, ExifTool and other programs call them.
_ALSO = {
    "Title": "ObjectName", "By-line": "Byline", "By-lineTitle": "BylineTitle", "Author": "Byline", "Creator": "Byline",
    "Sub-location": "Sublocation", "Location": "Sublocation", "Province-State": "State", "Province": "State",
    "Country-PrimaryLocationName": "Country", "Country-PrimaryLocationCode": "CountryCode",
    "Caption-Abstract": "Caption", "Description": "Caption", "Writer-Editor": "Writer", "Copyright": "CopyrightNotice",
    "SpecialInstructions": "Instructions",
}  # fmt: skip
NAMES = ("stem", "folder")  # of the name alone: no file is read for them
READ = ("tags", "existing", "names", "place", "date")
_ELSEWHERE = {
    "name": "stem", "filename": "stem", "file": "stem", "directory": "folder", "dir": "folder", "keywords": "tags",
    "caption": "existing", "people": "names", "persons": "names", "faces": "names", "location": "place",
    "city": "place", "camera": "exif.Model", "title": "iptc.ObjectName", "datetime": "date",
}  # fmt: skip
_PLACE = ("Sublocation", "City", "State", "Country")
_DATE = re.compile(r"(\d{4})(?:[-:]?(\d\d))?(?:[-:]?(\d\d))?(?!\d)")
_IN_ARCHIVE = re.compile(r"(?i)#\d+$|\.(tar|tar\.gz|tgz|tar\.bz2|tar\.xz|zip|parquet|pq)$")


def check_field(name: str) -> str:
    """The field of a name, `exif.fnumber` as `exif.FNumber`; raises `CaptuneError` where there is none."""
    group, dot, rest = name.partition(".")
    if name in (*NAMES, *READ):
        return name
    known = {"exif": exif_names(), "iptc": iptc_names()}.get(group.lower()) if dot else None
    if known is not None and rest.lower() in known:
        return f"{group.lower()}.{known[rest.lower()]}"
    if known is not None:
        hint = f"{did_you_mean(rest, sorted(set(known.values())))} {listed()}" if group.lower() == "iptc" else listed()
        raise CaptuneError(f"There is no field {{{name}}} for a prompt: {group} has no {rest}.", hint)
    meant = _ELSEWHERE.get(name.lower())
    hint = f"{question([f'{{{meant}}}'])} " if meant else ""
    raise CaptuneError(f"There is no field {{{name}}} for a prompt.", hint + listed())


def listed() -> str:
    """The fields there are, for a message."""
    plain = " ".join(f"{{{name}}}" for name in (*NAMES, *READ))
    return (
        f"There are {plain}, {{exif.NAME}} such as {{exif.Model}}, {{iptc.NAME}} ({', '.join(IPTC)}) and "
        "{question}. Braces around another word are doubled: {{so}}."
    )


@cache
def iptc_names() -> dict[str, str]:
    """captune's name of each field of IPTC by its names in lower case."""
    return {name.lower(): name for name in IPTC} | {also.lower(): name for also, name in _ALSO.items()}


def read_fields(source: Any, name: str, fields: Collection[str]) -> dict[str, str]:
    """What is known of an image for each of `fields`, "" where the file says nothing.

    `source` is the path or the bytes of its file, or an image that Pillow opened; `name` is the one that it goes by.
    What is damaged, or cannot be read, is empty.
    """
    values = {"stem": stem_of(name), "folder": folder_of(name)}
    if set(fields) <= set(NAMES):
        return {field: values[field] for field in fields}
    path = Path(source) if isinstance(source, (str, Path)) else None
    data = _read(path) if path is not None else source
    beside = _packets(path) if path is not None else []
    blocks = read_blocks(data if isinstance(data, (bytes, Image.Image)) else b"", *beside)
    for field in set(fields) - set(NAMES):
        values[field] = _existing(path, data, beside) if field == "existing" else _value(field, blocks)
    return {field: values[field] for field in fields}


def stem_of(name: str) -> str:
    """The name of an image's file without its folder and its ending."""
    return _path(name).stem


def folder_of(name: str) -> str:
    """The name of the folder that an image lies in; "" at the top of an archive."""
    if "://" not in name and not _IN_ARCHIVE.search(str(_path(name).parent)) and not is_remote(name):
        return Path(name).absolute().parent.name if name else ""
    folder = _path(name).parent.name
    return "" if _IN_ARCHIVE.search(folder) else folder


def _path(name: str) -> PurePosixPath:
    return PurePosixPath(urlsplit(name).path if "://" in name else name)


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except (OSError, ValueError):
        return b""


def _packets(path: Path) -> list[bytes]:
    """The XMP packets beside an image: `photo.jpg.xmp`, `photo.xmp`."""
    return [data for name in (f"{path.name}.xmp", f"{path.stem}.xmp") if (data := _read(path.with_name(name)))]


def _value(field: str, blocks: Blocks) -> str:
    group, dot, name = field.partition(".")
    if dot:
        return exif_value(blocks.exif_tags, name) if group == "exif" else _iptc(blocks, name)
    return {"tags": _tags, "names": _people, "place": _place, "date": _date}[field](blocks)


def _iptc(blocks: Blocks, name: str) -> str:
    """A field of IPTC from XMP, else from IPTC's own block."""
    dataset, xmp = IPTC[name]
    texts = [text for one in blocks.documents if xmp for text in _texts(one, xmp)]
    return _joined(texts or blocks.iptc_values.get((2, dataset), []))


def _texts(document: Any, xmp: tuple[str, str]) -> Sequence[str]:
    several = xmp in ((_DC, "subject"), (_DC, "creator"))
    return document.values(*xmp) if several else list(filter(None, [document.text(*xmp)]))


def _tags(blocks: Blocks) -> str:
    windows = exif_value(blocks.exif_tags, "XPKeywords").split(";")
    subjects = [text for one in blocks.documents for text in one.values(_DC, "subject")]
    return _joined([*subjects, *blocks.iptc_values.get((2, 25), []), *windows])


def _people(blocks: Blocks) -> str:
    names = []
    for one in blocks.documents:
        regions = one.structures(_REGIONS, "Regions", (_REGIONS, "Name"), (_REGIONS, "Type"))
        names += [name for name, kind in regions if kind == "Face"]
        names += one.values(_EXTENSION, "PersonInImage")
        people = f"{_MICROSOFT}t/Region#"
        names += [name for (name,) in one.structures(_MICROSOFT, "RegionInfo", (people, "PersonDisplayName"))]
    return _joined(names)


def _place(blocks: Blocks) -> str:
    return _joined(_iptc(blocks, name) for name in _PLACE)


def _date(blocks: Blocks) -> str:
    """The day, or as much of it as is known."""
    in_xmp = ((_EXIF, "DateTimeOriginal"), (_PHOTOSHOP, "DateCreated"), (_XMP, "CreateDate"))
    texts = [exif_value(blocks.exif_tags, "DateTimeOriginal")]
    texts += [one.text(*name) for name in in_xmp for one in blocks.documents]
    texts += blocks.iptc_values.get((2, 55), [])
    for text in texts:
        found = _DATE.match(text.strip())
        parts = [] if found is None else [part for part in found.groups() if part]
        known = [part for number, part in enumerate(parts) if all(int(one) for one in parts[: number + 1])]
        if known:
            return "-".join(known)
    return ""


def _existing(path: Path | None, data: Any, beside: Sequence[bytes]) -> str:
    """What somebody wrote of an image: the text beside it, else its description; not what captune wrote."""
    if path is not None:
        for name in (f"{path.stem}{end}" for end in SUFFIXES):
            text = _text_beside(path.with_name(name))
            if text:
                return text
    texts = existing_texts(data if isinstance(data, bytes) else b"", beside[0] if beside else None)
    return " ".join(texts[0].split()) if texts else ""


def _text_beside(path: Path) -> str:
    """The captions in a file beside an image that captune did not write."""
    text = decoded(_read(path))
    captions = captions_in(text)
    if captions:
        with suppress(CaptuneError):
            ledger = Ledger(path.parent / LEDGER)
            text = "".join(split_keywords(text, ledger, path.name)[0])
            known = ledger.has(path.name, text)
            captions = [] if known else [one for one in captions_in(text) if not ledger.has(path.name, one)]
    return " ".join(" ".join(captions).split())


def _joined(texts: Iterable[str]) -> str:
    """Texts with commas between, each once."""
    each = (" ".join(text.split()) for text in texts)
    return ", ".join(dict.fromkeys(text for text in each if text))
