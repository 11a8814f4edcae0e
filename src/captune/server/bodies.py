"""Bodies of requests: JSON and forms (multipart/form-data) of untrusted clients, parsed within limits of memory."""

import asyncio
import ctypes
import functools
import io
import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Generic, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from captune.server.problems import OLLAMA_PATHS, Problem

_LARGE_BODY = 2_000_000  # bytes; below, giving back costs more than it brings


def trim_memory(size: int) -> None:
    """Return free memory to the system after a large body has grown or is gone: glibc would keep it."""
    if size >= _LARGE_BODY:
        _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], object]:
    """glibc's malloc_trim; other systems need none."""
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return lambda pad: None
    return trim


# A value costs up to 230 bytes, however few characters it has in the body; a chat of 1000 messages has about 10,000.
MAX_VALUES = 20_000
# Python keeps a string with one emoji at four bytes a character: bytes of all strings that are not plain ASCII.
MAX_WIDE_BYTES = 1_000_000
# Backslashes are counted first, as each costs the scan a step; escaped base64 has one in 32 characters.
_ESCAPES, _ESCAPES_PER_BYTE = 200_000, 1 / 24
# A string of plain ASCII (group 1 where it has escapes), any other string (group 2; to the end where it is cut off),
# the beginning of a value, or all between, at once: a search that fails at each byte would keep other threads waiting.
_TOKEN = re.compile(
    rb'"[ !#-\[\]-\x7f]*+"|("(?:[ !#-\[\]-\x7f]++|\\[^u])*+")|("(?:[^"\\]++|\\.)*+(?:"|\Z))|[\[{,]|[^"\[{,]++',
    re.DOTALL,
)
_QUOTE, _BEGINNINGS = ord('"'), b"[{,"
# Escapes that base64 has: ends of lines, which mean nothing in it, and slashes.
_OF_BASE64 = re.compile(rb"\\[nrt/]")
_PIECE = 1 << 18


def parse_json(body: bytearray) -> Any:
    """The JSON value of a body; raises `Problem`: 400 where it is not JSON, 413 where it needs many times its size.

    Escaped line ends are removed from long strings, which can only be images, in the body itself.
    """
    for start, end in reversed(_check_cost(body)):
        _unescape_base64(body, start, end)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}.", "Send multipart/form-data or application/json.") from None


def _check_cost(body: bytearray) -> list[tuple[int, int]]:
    """The places of long strings with escapes, which the parser would build twice; raises `Problem` (413)."""
    if body.count(b"\\") > _ESCAPES + len(body) * _ESCAPES_PER_BYTE:
        raise Problem(413, "The body has too many escaped characters.", "Send text as UTF-8, images as base64.")
    values = strings = wide = 0
    escaped = []
    for token in _TOKEN.finditer(body):
        start, end = token.span()
        if token.start(2) >= 0:
            wide += end - start
        elif body[start] in _BEGINNINGS:
            values += 1
        elif token.start(1) >= 0 and end - start > MAX_WIDE_BYTES:
            escaped.append((start, end))
        strings += body[start] == _QUOTE
        if values > MAX_VALUES or strings > 2 * MAX_VALUES:  # a value may have a name
            raise Problem(413, f"The body has more than {MAX_VALUES:,} values.", "Send less at once.")
        if wide > MAX_WIDE_BYTES:
            raise Problem(
                413, f"The body has more than {MAX_WIDE_BYTES / 1e6:g} MB of text.", "Send less text at once."
            )
    return escaped


def _unescape_base64(body: bytearray, start: int, end: int) -> None:
    """Remove the escapes of base64 from a string, in place; raises `Problem` (413) where it has others."""
    read = write = start
    while read < end:
        until = min(read + _PIECE, end)
        until += body[until - 1] == ord("\\")  # an escape is not divided
        piece = _OF_BASE64.sub(lambda escape: b"/" if escape[0] == b"\\/" else b"", bytes(body[read:until]))
        if b"\\" in piece:
            raise Problem(413, "The body has a long text with escaped characters.", "Send images as base64.")
        body[write : write + len(piece)] = piece
        read, write = until, write + len(piece)
    del body[write:end]


MAX_PARTS = 1000
MAX_HEADER_BYTES = 8_000  # bytes of the headers of a part
MAX_FIELD_BYTES = 1_000_000  # bytes of a field that is not a file, names included
MAX_TEXT_BYTES = 2_000_000  # of all of them, where there are none of plain ASCII alone


def parse_form(body: bytes | bytearray, content_type: str, lists: Collection[str]) -> dict[str, Any]:
    """Fields by name: the bytes of files, the text of others, a list where the name is one of `lists`.

    Raises `Problem`: 400 where it is not a form, 413 where a part is too large, 422 where a name is given twice.
    """
    parts = _FormParts()
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
    return _by_name(parts.values, lists)


def _by_name(values: list[tuple[str, str | bytes]], lists: Collection[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in values:
        if name in lists:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            message = {"field": name[:200], "message": "given twice"}
            raise Problem(422, f"{name[:200]}: given twice.", errors=[message])
        else:
            fields[name] = value
    return fields


class _FormParts:
    """The names and values that the parser finds, in order."""

    def __init__(self) -> None:
        self.values: list[tuple[str, str | bytes]] = []
        self.ended = False
        self._wide = 0

    def callbacks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        if len(self.values) == MAX_PARTS:
            raise Problem(413, f"The form has more than {MAX_PARTS:,} parts.", "Send less at once.")
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
        if self._size > MAX_FIELD_BYTES and not self._file:
            raise Problem(
                413, f"{self._name[:200]}: more than {MAX_FIELD_BYTES / 1e6:g} MB of text.", "Send images as files."
            )
        self._data.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        value = self._data.getvalue()
        self._data = io.BytesIO()
        if self._file:
            self.values.append((self._name, value))
            return
        if not value.isascii():
            self._wide += len(value)
            if self._wide > MAX_TEXT_BYTES:
                raise Problem(413, f"The form has more than {MAX_TEXT_BYTES / 1e6:g} MB of text.", "Send less text.")
        self.values.append((self._name, value.decode("utf-8")))

    def on_end(self) -> None:
        self.ended = True

    def _count_head(self, size: int) -> None:
        self._heads += size
        if self._heads > MAX_HEADER_BYTES:
            raise Problem(413, "The headers of a part of the form are too large.", "Give files shorter names.")


Schema = TypeVar("Schema", bound=BaseModel)
MULTIPART = "multipart/form-data"
# Smaller bodies are read at once: a change of threads costs more.
_SMALL_BODY = 4_000
MAX_ITEMS = 1_000
_MAX_NAME_LENGTH = 200


def check_type(headers: Headers, path: str = "") -> None:
    """Raises `Problem` (415) for the headers of a body that is neither JSON nor a form, or is compressed.

    What is sent to Ollama's routes is JSON, whatever its type says: `curl -d` sends that of a form.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(415, f"A body compressed by {encoding[:100]} is not read.", "Send it as it is.")
    content = "" if path.startswith(OLLAMA_PATHS) else _media_type(headers.get("content-type", ""))
    if content and content not in (MULTIPART, "application/json") and not content.endswith("+json"):
        raise Problem(
            415, f"A body of the type {content[:100]} is not known.", f"Send {MULTIPART} or application/json."
        )


class RequestBody(Generic[Schema]):
    """A FastAPI dependency: the body of a request as `schema`, of JSON or, with `forms`, a form.

    FastAPI's own parsing has no limits of memory. `example` is for the documentation.
    """

    def __init__(self, schema: type[Schema], example: dict[str, Any], *, forms: bool = True) -> None:
        self.schema, self.example, self.forms = schema, example, forms

    async def __call__(self, request: Request) -> Schema:
        """Raises `Problem` (400, 413, 415, 422). The bytes are dropped then; what was parsed is a copy."""
        check_type(request.headers, request.url.path)
        body = request.scope["captune.request"].body
        content_type = "" if request.url.path.startswith(OLLAMA_PATHS) else request.headers.get("content-type", "")
        read = partial(_read, body, content_type, self.schema)
        if len(body) <= _SMALL_BODY:
            return read()
        return await asyncio.get_running_loop().run_in_executor(request.app.state.service.readers, read)


def is_list(annotation: Any) -> bool:
    """Whether a field has several values, which a form gives one by one."""
    return get_origin(annotation) in (list, tuple)


def _read(body: bytearray, content_type: str, schema: type[Schema]) -> Schema:
    size = len(body)
    trim_memory(size)
    try:
        if _media_type(content_type) == MULTIPART:
            lists = [name for name, field in schema.model_fields.items() if is_list(field.annotation)]
            fields = parse_form(body, content_type, lists)
        else:
            fields = parse_json(body)
            if not isinstance(fields, dict):
                raise Problem(422, "The body is not a JSON object.", 'For example: {"image": "<base64>"}')
            _check_sizes(fields)
        return schema.model_validate(fields)
    except ValidationError as error:  # here and not in the event loop: there may be thousands of errors
        raise Problem.of(error) from None
    finally:
        body.clear()
        trim_memory(size)


def _check_sizes(fields: dict[str, Any]) -> None:
    """Raises `Problem` (422) for long lists, objects and names, whose items could each have an error."""
    unchecked: list[Any] = [fields]
    while unchecked:
        one = unchecked.pop()
        if len(one) > MAX_ITEMS:
            what = "An object" if isinstance(one, dict) else "A list"
            raise Problem(422, f"{what} has {len(one):,} items; {MAX_ITEMS:,} are allowed.", "Send fewer at once.")
        if isinstance(one, dict):
            for name in one:
                if len(name) > _MAX_NAME_LENGTH:
                    raise Problem(422, f"{name[:_MAX_NAME_LENGTH]}…: no field has a name as long.")
        items = one.values() if isinstance(one, dict) else one
        unchecked += [item for item in items if isinstance(item, (dict, list))]


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
