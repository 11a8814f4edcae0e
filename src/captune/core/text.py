"""Text from strangers for terminals, file names and CSV cells; scripts without spaces between words.

Excel, LibreOffice and others run what begins with one of these signs. In a spreadsheet an apostrophe in front says
"this is text". A text that has apostrophes before such a sign gets one more, so that reading gives back every text.
"""

import bisect
import codecs
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 255
_DIGEST = 12


_DRIVE = re.compile(r"[A-Za-z]:")


def member_name(name: str) -> str:
    """The name of a file in an archive as one below the folder that it is unpacked into: no `..`, no root, no drive.

    Names without such parts stay as they are, but for `./` in front.
    """
    parts = re.split(r"[\\/]", name)
    if name.startswith(("/", "\\")) or os.pardir in parts or _DRIVE.match(name):
        parts = [part for part in parts if part not in ("", os.curdir, os.pardir) and not _DRIVE.fullmatch(part)]
        return "/".join(_DRIVE.sub("", part) for part in parts) or "unnamed"
    return name.removeprefix("./")


def fit_name(stem: str, ending: str = "", longest: int = LONGEST) -> str:
    """`stem + ending`; where that has more than `longest` bytes, a digest takes the place of the stem's end.

    Different stems stay different, and a letter is kept whole or left out.
    """
    if len(os.fsencode(stem + ending)) <= longest:
        return stem + ending
    mark = "-" + hashlib.blake2b(os.fsencode(stem)).hexdigest()[:_DIGEST]
    room = longest - len(os.fsencode(mark + ending))
    return os.fsencode(stem)[: max(0, room)].decode("utf-8", "ignore") + mark + ending


def shortened(path: str | os.PathLike[str], most: int = 160) -> str:
    """A path as it stands in a message: of a very long one the beginning."""
    text = os.fspath(path)
    return text if len(text) <= most else f"{text[: most // 2]}…"


def encoding_of(data: bytes) -> str:
    """How a text file of any origin is encoded; what is no Unicode is taken byte by byte."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if utf16 else "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return "latin-1"
    return encoding


def decoded(data: bytes) -> str:
    """The contents of a text file of any origin."""
    return data.decode(encoding_of(data))


# Control characters but tab and line feed (ESC begins a command), C1 (a command in one character), and what turns
# the direction of writing, so that a name reads as another.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def first_few(values: Iterable[object], count: int = 5) -> str:
    """The first of several values in quotes, and how many more there are."""
    quoted = [repr(value) for value in values]
    return ", ".join(quoted[:count]) + (f" and {len(quoted) - count} more" if len(quoted) > count else "")


def printable(text: str) -> str:
    r"""Text without what a terminal obeys: such characters become escapes that can be read, `\x1b`."""
    return _COMMANDS.sub(lambda found: escape(found[0]), text)


def plain_json(text: str) -> str:
    r"""JSON with such characters as `\u001b`: the same value, and nothing that a terminal obeys."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_controls(text: str) -> str:
    """A caption on one line, control characters replaced by U+FFFD."""
    return _CONTROLS.sub("\ufffd", " ".join(text.split()))


def escape(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


# First and last code point, and whose writing it is.
_RANGES = (
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Burmese"),
    (0x1780, 0x17FF, "Khmer"),
    (0x3040, 0x30FF, "Japanese"),
    (0x31F0, 0x31FF, "Japanese"),
    (0x3400, 0x4DBF, "Chinese"),
    (0x4E00, 0x9FFF, "Chinese"),
    (0xA9E0, 0xA9FF, "Burmese"),
    (0xAA60, 0xAA7F, "Burmese"),
    (0xF900, 0xFAFF, "Chinese"),
    (0xFF66, 0xFF9F, "Japanese"),
    (0x20000, 0x323AF, "Chinese"),
)
_STARTS = [first for first, _, _ in _RANGES]
# Letters and vowel signs of a word are rarely more, on the average of several words.
_LONGEST_WORD = {"Chinese": 3.5, "Japanese": 4.5}
_LONGEST_ELSEWHERE = 8.0


def unspaced_language(text: str) -> str | None:
    """The language whose script, written without spaces, has most letters of the text; None for other scripts."""
    counts: dict[str, int] = {}
    others = 0
    for sign in text:
        language = _language_of(sign)
        if language is not None:
            counts[language] = counts.get(language, 0) + 1
        elif sign.isalpha():
            others += 1
    if not counts or sum(counts.values()) <= others:
        return None
    # Japanese is written with Chinese characters too, Chinese never with kana.
    return "Japanese" if counts.get("Japanese") else max(counts, key=lambda language: counts[language])


def unsegmented(texts: Iterable[str]) -> dict[str, int]:
    """How many of the texts are in such a script and have no spaces between their words, by language."""
    found: dict[str, list[str]] = {}
    for text in texts:
        language = None if text.isascii() else unspaced_language(text)
        if language is not None:
            found.setdefault(language, []).append(text)
    counts = {}
    for language, group in found.items():
        words = [word for text in group for word in text.split() if unspaced_language(word)]
        longest = _LONGEST_WORD.get(language, _LONGEST_ELSEWHERE)
        if sum(map(len, words)) > longest * len(words):
            counts[language] = sum(
                any(len(word) > longest for word in text.split() if unspaced_language(word)) for text in group
            )
    return {language: count for language, count in counts.items() if count}


def _language_of(sign: str) -> str | None:
    code = ord(sign)
    if code < _STARTS[0]:
        return None
    first, last, language = _RANGES[bisect.bisect_right(_STARTS, code) - 1]
    return language if first <= code <= last else None


# The header of the captions that captune writes.
OF_CAPTUNE = ("image", "caption", "confidence", "status", "error")
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_GUARDED = re.compile("'+[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def guarded(text: str) -> str:
    """A text as a cell."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """The text of a cell that captune wrote."""
    return cell[1:] if _GUARDED.match(cell) else cell


def unguarded_row(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row of `csv.DictReader` with its texts."""
    return {key: unguarded(value) if isinstance(value, str) else value for key, value in row.items()}
