"""Forms of strangers (multipart/form-data), read in memory: what is not a file is small, and there are few of them."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from captune.web.problems import Problem

MOST_PARTS = 1000
MOST_HEADS = 8_000  # bytes of the headers of a part
MOST_TEXT = 1_000_000  # bytes of a field that is not a file, names included
MOST_TEXTS = 2_000_000  # of all of them, where there are none of plain ASCII alone


def read_form(body: bytes | bytearray, content_type: str, lists: Collection[str]) -> dict[str, Any]:
    """Fields by name: the bytes of files, the text of others, a list where the name is one of `lists`.

    Raises `Problem`: 400 where it is no form, 413 where a part is too large, 422 where a name is given twice.
    """
    parts = _Parts()
    try:
        boundary = parse_options_header(content_type)[1][b"boundary"]
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        parser.write(body)  # type: ignore[arg-type]
        parser.finalize()
    except KeyError:
        raise Problem(400, "The form cannot be read: no boundary in its Content-Type.") from None
    except (FormParserError, UnicodeError):
        raise Problem(400, "The form cannot be read.", "Is it cut off, or in another encoding than UTF-8?") from None
    if not parts.ended:
        raise Problem(400, "The form cannot be read: it is cut off.", "Send it again.")
    return _by_name(parts.found, lists)


def _by_name(found: list[tuple[str, str | bytes]], lists: Collection[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in found:
        if name in lists:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            message = {"field": name[:200], "message": "given twice"}
            raise Problem(422, f"{name[:200]}: given twice.", errors=[message])
        else:
            fields[name] = value
    return fields


class _Parts:
    """What the parser finds, in the order of the form."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str | bytes]] = []
        self.ended = False
        self._wide = 0

    def callbacks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        if len(self.found) == MOST_PARTS:
            raise Problem(413, f"The form has more than {MOST_PARTS:,} parts.", "Send less at once.")
        self._header, self._value, self._heads = bytearray(), bytearray(), 0
        self._disposition = b""
        # BytesIO gives its bytes away without a copy.
        self._data, self._size = io.BytesIO(), 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise Problem(400, "The form cannot be read: a part of it has no name.")
        self._name, self._file = options[b"name"].decode("utf-8"), b"filename" in options

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > MOST_TEXT and not self._file:
            raise Problem(
                413, f"{self._name[:200]}: more than {MOST_TEXT / 1e6:g} MB of text.", "Send pictures as files."
            )
        self._data.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        value = self._data.getvalue()
        self._data = io.BytesIO()
        if self._file:
            self.found.append((self._name, value))
            return
        if not value.isascii():
            self._wide += len(value)
            if self._wide > MOST_TEXTS:
                raise Problem(413, f"The form has more than {MOST_TEXTS / 1e6:g} MB of text.", "Send less text.")
        self.found.append((self._name, value.decode("utf-8")))

    def on_end(self) -> None:
        self.ended = True

    def _count_head(self, size: int) -> None:
        self._heads += size
        if self._heads > MOST_HEADS:
            raise Problem(413, "The headers of a part of the form are too large.", "Give files shorter names.")
