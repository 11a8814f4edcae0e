"""EXIF tags by their usual names, as ExifTool and Pillow call them, with their values in plain words."""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from functools import cache
from typing import Any

from PIL import ExifTags, Image

from captune.images.metadata.exif import decode_text
from captune.images.open import DECODER_ERRORS

_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# ExifTool's names where Pillow has the standard's.
_EXIFTOOL = {
    "ISO": "ISOSpeedRatings",
    "CreateDate": "DateTimeDigitized",
    "ModifyDate": "DateTime",
    "ExposureCompensation": "ExposureBiasValue",
    "FocalLengthIn35mmFormat": "FocalLengthIn35mmFilm",
    "SerialNumber": "BodySerialNumber",
    "LensInfo": "LensSpecification",
    "OwnerName": "CameraOwnerName",
    "MaxApertureValue": "MaxApertureValue",
}
# What the standard calls the values of a tag.
_WORDS = {
    "Orientation": "upright|mirrored|rotated 180°|mirrored upside down|mirrored and rotated 270°|rotated 90°|"
    "mirrored and rotated 90°|rotated 270°",
    "ExposureProgram": "manual|automatic|aperture priority|shutter priority|creative|action|portrait|landscape",
    "MeteringMode": "average|center-weighted|spot|multi-spot|pattern|partial",
    "SensingMethod": "unknown|one-chip color area|two-chip color area|three-chip color area|color sequential area|"
    "unknown|trilinear|color sequential linear",
    "ResolutionUnit": "none|inches|cm",
}
_WORDS_FROM_0 = {
    "ExposureMode": "automatic|manual|automatic bracket",
    "WhiteBalance": "automatic|manual",
    "SceneCaptureType": "standard|landscape|portrait|night",
    "Contrast": "normal|low|high",
    "Saturation": "normal|low|high",
    "Sharpness": "normal|soft|hard",
    "GainControl": "none|low gain up|high gain up|low gain down|high gain down",
    "SubjectDistanceRange": "unknown|macro|close|distant",
    "CustomRendered": "normal|custom",
}
_UNITS = {"FocalLength": "mm", "FocalLengthIn35mmFilm": "mm", "ExposureTime": "s", "SubjectDistance": "m"}
_CHARSETS = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp"}
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)\b")
# Nothing that a sentence could hold.
_BINARY = ("MakerNote", "PrintImageMatching", "JPEGTables", "ICCProfile", "InterColorProfile", "TileOffsets")


@cache
def exif_names() -> dict[str, str]:
    """Pillow's name of every tag by its names in lower case, of all directories."""
    names = [name for name in (*ExifTags.TAGS.values(), *ExifTags.GPSTAGS.values()) if name not in _BINARY]
    return {name.lower(): name for name in names} | {also.lower(): name for also, name in _EXIFTOOL.items()}


def exif_value(tags: Image.Exif, name: str) -> str:
    """A tag in plain words, by any of its names; "" where it is not there or says nothing."""
    name = exif_names()[name.lower()]
    with suppress(*DECODER_ERRORS):
        for each, value, siblings in _entries(tags):
            if each == name:
                return _plain(name, value, siblings)
    return ""


def _entries(tags: Image.Exif) -> Iterable[tuple[str, Any, dict[str, Any]]]:
    directories = [(dict(tags), ExifTags.TAGS)]
    directories += [(tags.get_ifd(ifd), ExifTags.GPSTAGS if ifd == _IFDS[1] else ExifTags.TAGS) for ifd in _IFDS]
    for directory, names in directories:
        named = {names.get(tag, ""): value for tag, value in directory.items()}
        yield from ((name, value, named) for name, value in named.items())


def _plain(name: str, value: Any, siblings: dict[str, Any]) -> str:
    if name in _SPECIAL:
        return _SPECIAL[name](value, siblings)
    if name in _WORDS or name in _WORDS_FROM_0:
        first, words = (1, _WORDS[name]) if name in _WORDS else (0, _WORDS_FROM_0[name])
        return dict(enumerate(words.split("|"), first)).get(int(value), "")
    text = _text(value)
    return f"{text} {_UNITS[name]}" if text and name in _UNITS else text


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        text = decode_text(value.rstrip(b"\0"))
        return text if text.isprintable() else ""
    if isinstance(value, str):
        return _DATE.sub(r"\1-\2-\3", value.strip("\0 ")) if not value.startswith("0000:00:00") else ""
    if isinstance(value, (tuple, list)):
        return ", ".join(filter(None, map(_text, value)))
    return number(float(value)) if _is_finite(value) else ""


def number(value: float) -> str:
    """A number with at most six digits behind its point, and no more than it needs."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _is_finite(value: Any) -> bool:
    with suppress(ZeroDivisionError, OverflowError, TypeError, ValueError):
        return abs(float(value)) < float("inf")
    return False


def _exposure(value: Any, siblings: dict[str, Any]) -> str:
    seconds = float(value)
    if not 0 < seconds < 1e6:
        return ""
    return f"{number(seconds)} s" if seconds >= 0.3 else f"1/{round(Fraction(1) / Fraction(seconds))} s"


def _degrees(value: Any, siblings: dict[str, Any], sides: str) -> str:
    degrees, minutes, seconds = (float(one) for one in (*value, 0, 0)[:3])
    whole = degrees + minutes / 60 + seconds / 3600
    side = str(siblings.get("GPSLatitudeRef" if sides == "NS" else "GPSLongitudeRef", "")).strip("\0 ").upper()[:1]
    return f"{number(round(whole, 6))}° {side}".strip() if 0 <= whole <= 180 else ""


def _altitude(value: Any, siblings: dict[str, Any]) -> str:
    below = siblings.get("GPSAltitudeRef") in (1, b"\1")
    return f"{'-' if below else ''}{number(round(float(value), 1))} m" if _is_finite(value) else ""


def _clock(value: Any, siblings: dict[str, Any]) -> str:
    return ":".join(f"{int(float(one)):02d}" for one in value)


def _comment(value: Any, siblings: dict[str, Any]) -> str:
    if not isinstance(value, bytes):
        return _text(value)
    charset, rest = _CHARSETS.get(value[:8]), value[8:] if value[:8] in (*_CHARSETS, bytes(8)) else value
    if charset == "utf-16" and rest[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        charset = "utf-16-be" if rest[:1] == b"\0" else "utf-16-le"
    text = rest.decode(charset, "ignore") if charset else decode_text(rest)
    return text.strip("\0 ")


def windows_text(value: Any) -> str:
    """What Windows writes into its XP tags: UTF-16."""
    data = bytes(value) if isinstance(value, (bytes, tuple, list)) else b""
    return data.decode("utf-16-le", "ignore").strip("\0 ")


_SPECIAL: dict[str, Callable[[Any, dict[str, Any]], str]] = {
    "ExposureTime": _exposure,
    "GPSLatitude": lambda value, siblings: _degrees(value, siblings, "NS"),
    "GPSLongitude": lambda value, siblings: _degrees(value, siblings, "EW"),
    "GPSAltitude": _altitude,
    "GPSTimeStamp": _clock,
    "UserComment": _comment,
    "Flash": lambda value, siblings: "fired" if int(value) & 1 else "did not fire",
    **{
        f"XP{name}": lambda value, siblings: windows_text(value)
        for name in ("Title", "Comment", "Author", "Keywords", "Subject")
    },
}
