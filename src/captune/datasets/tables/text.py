"""Text files and delimited tables as people have them: compressed, UTF-16, with open quotes."""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from captune.core.errors import CaptuneError
from captune.core.files import open_regular
from captune.core.files.limits import LimitedGzip, max_unpacked, parse_json
from captune.images.signatures import is_image_name

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_HEAD = 65536
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BROKEN = (OSError, EOFError, zlib.error)


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file; gzip is undone."""
    with open_regular(path) as file:
        packed = file.read(2) == _GZIP
    return io.BufferedReader(LimitedGzip(path, max_unpacked(path))) if packed else open_regular(path)


def check_file(path: Path) -> None:
    """Raise `CaptuneError` for a file that cannot hold captions: absent, empty, a Git LFS pointer."""
    try:
        with opened(path) as file:
            start, more = file.read(256), file.read(1)
    except FileNotFoundError:
        raise CaptuneError(f"There is no file {path}.", "Check the path.") from None
    except _BROKEN as error:
        raise _unreadable(path, error) from None
    if start.startswith(LFS_POINTER):
        raise CaptuneError(
            f"{path} is a Git LFS pointer, not the file itself.",
            "Fetch the real file: git lfs pull (in its repository).",
        )
    if not start.strip(b"\xef\xbb\xbf \t\r\n") and not more:
        raise CaptuneError(f"{path} is empty.", "Write or download it again, or name another file.")


def head(path: Path) -> str | None:
    """The first 64 KiB as text without a byte order mark, or None where they are not text."""
    try:
        with opened(path) as file:
            start = file.read(_HEAD)
    except _BROKEN:
        return None
    if start.startswith(_UTF16):
        return start.decode("utf-16", errors="replace")
    if b"\0" in start or start.startswith(LFS_POINTER):
        return None
    # Reading names the byte that is not UTF-8; here the block may also end within a character.
    return start.decode("utf-8-sig", errors="replace")


def first_line(path: Path) -> str | None:
    """The first line that is not blank, or None."""
    return next(filter(None, map(str.strip, (head(path) or "").splitlines())), None)


def lines(path: Path) -> Iterator[str]:
    """The file's lines with their ends, streamed. Raises `CaptuneError` as `check_file` and for what is not UTF-8.

    UTF-16 is read where it says so by its byte order mark.
    """
    check_file(path)
    try:
        with opened(path) as file:
            encoding = "utf-16" if file.read(2) in _UTF16 else "utf-8-sig"
            file.seek(0)
            with io.TextIOWrapper(file, encoding=encoding, newline="") as text:
                yield from text
    except UnicodeDecodeError as error:
        if error.encoding != "utf-8":
            raise CaptuneError(
                f"{path}: begins as UTF-16 and is none ({error.reason}).", "Write it again, best as UTF-8."
            ) from None
        raise not_utf8(path) from None
    except _BROKEN as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> CaptuneError:
    why = getattr(error, "strerror", None) or error
    return CaptuneError(f"Cannot read {path}: {why}.", "Check the file, its permissions and the disk.")


def read_text(path: Path) -> str:
    """A whole file as text. Raises as `lines`."""
    return "".join(lines(path))


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, without their ends, and their numbers from 1."""
    for number, line in enumerate(lines(path), start=1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, text


def not_utf8(path: Path) -> CaptuneError:
    """The error that names the first byte which is not UTF-8, and its line."""
    offset = 0
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return CaptuneError(
                    f"{path}, line {number}: byte 0x{byte:02x} at offset {offset + error.start} is not UTF-8.",
                    f"Convert the file: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > new-{path.name}",
                )
            offset += len(line)
    return CaptuneError(f"{path} changed while it was read.", "Run the command again.")


def load_json(path: Path) -> Any:
    """A whole JSON file. Raises `CaptuneError` that names the line of what is not JSON."""
    try:
        return parse_json(read_text(path))
    except json.JSONDecodeError as error:
        raise CaptuneError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}).",
            "Was the download cut off? Fetch or write the file again.",
        ) from None


def json_list(path: Path, content: Any, key: str, hint: str) -> list[Any]:
    """The list that an object of a JSON file has under a key; raises `CaptuneError` that says what is there instead."""
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list):
        actual = ", ".join(list(content)[:8]) if isinstance(content, dict) else type(content).__name__
        raise CaptuneError(f"{path}: expected a list '{key}', found {actual}.", hint)
    return value


def caption_text(text: str) -> str:
    """A caption as one line: outer white space and line breaks go, nothing that a reader sees changes.

    Letters and their accents are composed (NFC), so that equal text is equal. Halves of a character, which JSON can
    spell but no file can hold, become "?".
    """
    text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    return " ".join(text.split()) if "\n" in text or "\r" in text else text


def caption_texts(texts: Iterable[str]) -> tuple[str, ...]:
    """The captions of some texts, without the empty ones."""
    return tuple(filter(None, map(caption_text, texts)))


_LONGEST_FIELD = 200  # lines: a quote that is never closed must not swallow the rest of the file
# In these a program quotes only what has to be quoted, so that "Stop" is what the sign says.
_LITERAL_QUOTES = ("\t", "|")
_LONGEST_NAME = 300


def table_rows(
    lines: Iterable[tuple[int, str]], delimiter: str, *, width: int, image: int
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table behind its header, each with the number of its first line.

    `lines` have their ends. `width` is the number of columns, `image` the place of the image's name. A quoted field
    may go over several lines; where a line in it starts a row itself, the quote was a sign of the text and the field
    ends with its own line. Other quotes that RFC 4180 does not know stay in the text.
    """
    source = iter(lines)
    waiting: deque[tuple[int, str]] = deque()
    names = _Names()
    while waiting or (following := next(source, None)) is not None:
        number, line = waiting.popleft() if waiting else following  # type: ignore[misc]
        if not line.strip():
            continue
        fields, opened = split_fields(line.rstrip("\r\n"), delimiter)
        if opened is not None:
            whole = len(fields) >= width and names.fit(fields[image])
            taken: list[tuple[int, str]] = []
            text = line
            while len(taken) < _LONGEST_FIELD:
                after = waiting.popleft() if waiting else next(source, None)
                if after is None:
                    break
                taken.append(after)
                if (whole or image < opened) and _starts_row(after[1], delimiter, width, image, names):
                    break
                text += after[1]
                if '"' in after[1]:
                    joined, still = split_fields(text.rstrip("\r\n"), delimiter)
                    if still is None:
                        fields, taken = joined, []
                        break
            waiting.extendleft(reversed(taken))
        if len(fields) > image:
            names.add(fields[image])
        yield number, fields


def split_fields(line: str, delimiter: str) -> tuple[list[str], int | None]:
    """The fields of a line, and the first whose quote is not closed in it (None: all are)."""
    if '"' not in line:
        return line.split(delimiter), None
    quoted = _quoted(delimiter)
    fields: list[tuple[str, str | None]] = []  # as it stands, and what is in its quotes
    opened, position = None, 0
    while True:
        match = quoted.match(line, position)
        if match is not None:
            end, inner = match.end(), match[1]
        else:
            end, inner = line.find(delimiter, position), None
            end = len(line) if end < 0 else end
            rest = line[position:]
            if opened is None and rest.lstrip(" ").startswith('"') and rest.count('"') % 2:
                opened = len(fields)
        fields.append((line[position:end], inner))
        if end >= len(line):
            break
        position = end + 1
    literal = delimiter in _LITERAL_QUOTES and not all(inner is not None for _, inner in fields)
    return [_unquoted(raw, inner, literal, delimiter) for raw, inner in fields], opened


def _unquoted(raw: str, inner: str | None, literal: bool, delimiter: str) -> str:
    if inner is None or (literal and not any(sign in inner for sign in (delimiter, '"', "\n", "\r"))):
        return raw
    return inner.replace('""', '"')


@lru_cache
def _quoted(delimiter: str) -> re.Pattern[str]:
    """A field in quotes up to the separator or the end; two quotes inside are one."""
    return re.compile(rf' *"([^"]*(?:""[^"]*)*)"[ \r\n]*(?={re.escape(delimiter)}|\Z)')


def _starts_row(line: str, delimiter: str, width: int, image: int, names: _Names) -> bool:
    fields, _ = split_fields(line.rstrip("\r\n"), delimiter)
    return len(fields) >= width and names.fit(fields[image])


class _Names:
    """What the names of images look like in a file: file names of images, or ids without white space."""

    def __init__(self) -> None:
        self._files: bool | None = None

    def add(self, name: str) -> None:
        if self._files is None and name.strip():
            self._files = is_image_name(name.strip())

    def fit(self, name: str) -> bool:
        name = name.strip().strip('"')
        if is_image_name(name):
            return len(name) < _LONGEST_NAME
        return not self._files and any(map(str.isdigit, name)) and not any(map(str.isspace, name))
