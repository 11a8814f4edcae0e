"""A page as its bytes, and what is found in it: images, with the place where an alternative text goes."""

import codecs
import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import open_regular

MOST_BYTES = 16 * 1024 * 1024
_BOM_UTF8 = codecs.BOM_UTF8
# Encodings in which a byte of a letter may look like a sign of HTML.
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_NOT_READ = frozenset(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "iso2022_jp", "hz"))
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_HEAD = 4096


class PageError(CaptuneError):
    """A page that is not read: `reason` in a few words."""

    def __init__(self, page: str, reason: str) -> None:
        super().__init__(f"{page}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Page:
    """A page: its file, its name as the user sees it, and its bytes in an encoding that has ASCII's signs.

    Where nothing says that this is its encoding, it is not `sure`: what is written into it has ASCII's letters alone.
    """

    path: Path
    name: str
    content: bytes = field(repr=False)
    encoding: str
    sure: bool = True

    def text(self, start: int, end: int) -> str:
        """The text of some bytes."""
        return self.content[start:end].decode(self.encoding, "replace")

    def line(self, offset: int) -> int:
        """The number, from 1, of the line that a byte stands in."""
        return bisect_right(self._line_starts, offset)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(found.end() for found in re.finditer(rb"\n", self.content))]


def read_page(path: Path, name: str, *, markdown: bool = False) -> Page:
    """Read a page; raises `PageError` for one that is no text in an encoding that is read.

    A byte order mark counts first, then what a page of HTML says of itself; else it is UTF-8, or Windows-1252.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PageError(name, error.strerror or "it cannot be read") from None
    if len(content) > MOST_BYTES:
        raise PageError(name, f"it has more than {MOST_BYTES // 2**20} MB")
    if content.startswith(_WIDE) or b"\0" in content:
        raise PageError(name, "it is UTF-16, UTF-32 or no text")
    declared = "utf-8" if markdown or content.startswith(_BOM_UTF8) else _declared(content, name)
    if content.isascii():
        return Page(path, name, content, declared or "utf-8", sure=bool(declared))
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        other = "" if declared == "utf-8" else declared
        return Page(path, name, content, other or "cp1252", sure=bool(other))
    # What is UTF-8 by its bytes and another by its own words may be served as either.
    return Page(path, name, content, "utf-8", sure=declared in ("", "utf-8"))


def _declared(content: bytes, name: str) -> str:
    """The encoding that HTML names in its head; "" for none."""
    found = _DECLARED.search(content[:_HEAD])
    try:
        encoding = codecs.lookup(found[1].decode("ascii", "replace")).name if found else ""
    except LookupError:
        return ""
    if encoding in _NOT_READ:
        raise PageError(name, f"its encoding, {encoding}, is not read")
    return "cp1252" if encoding == "iso8859-1" else encoding  # as browsers take it


@dataclass(frozen=True)
class Context:
    """What stands around an image: titles, the figure's own caption, the text beside it, where its link leads."""

    title: str = ""
    heading: str = ""
    figure_caption: str = ""
    nearby: str = ""
    link: str = ""
    language: str | None = None


@dataclass(frozen=True)
class Slot:
    """Where an alternative text goes: bytes `start` to `end` of a page are replaced by it, in `syntax`.

    The syntaxes: `attribute` (a whole attribute of HTML), `markdown` (between brackets), `shortcode` (a whole
    parameter of Hugo's).
    """

    start: int
    end: int
    syntax: str


@dataclass(frozen=True)
class PageImage:
    """An image that a page shows.

    `kind` is how: `img`, `input`, `area`, `svg`, `background`, `markdown`, `figure` (Hugo's), `front matter`.
    `addresses` are those that may be its file, the best first. `alt` is its alternative text, None for none; `state`
    is one of `STATES`. `reason` says why nothing is to be written, whatever the file is. `slot` is None where nothing
    can be written.
    """

    kind: str
    offset: int
    addresses: tuple[str, ...]
    state: str
    alt: str | None = None
    reason: str = ""
    functional: bool = False
    slot: Slot | None = None
    context: Context = Context()

    def with_context(self, context: Context) -> "PageImage":
        return replace(self, context=context)


STATES = {
    "described": "It has a text, which is left alone.",
    "decorative": 'It is marked as decorative: `alt=""`, `role="presentation"`, `aria-hidden="true"`.',
    "suspicious": "Its text is none: a file name, “image”, “untitled”.",
    "missing": "It has no text.",
    "listed": "It is an image of the style or of the front matter, which is listed and no more.",
}
