"""Captions and references that were made elsewhere, in the files people have them in.

COCO results and annotations, mappings from id to text, rows of JSON, JSONL, CSV or TSV
(captune's own included), Flickr token files, any dataset that `captune prepare` reads, and
plain text, where line i belongs to line i. The format is found by looking. Nothing is
dropped silently: rows without a usable caption are listed.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.data.formats.columns import CAPTION, CAPTIONS, IMAGE
from captune.data.formats.text import parse_json

STDIN = "-"
ID_KEYS = ("image_id", "id", "img_id", "cocoid", "key", *IMAGE)
TEXT_KEYS = (*CAPTION, "hypothesis", "prediction", "generated", "output", *CAPTIONS, "caption_1", "reference_1")
_TOKEN = re.compile(r"(\S.*?)#(\d+)\t(.*)")
_DELIMITERS = (",", "\t", ";", "|")


@dataclass
class Results:
    """Texts by image id, in the order of the file, and what could not be read.

    `numbered` says that ids are line numbers. `failed` are images with a row that has no
    text (a picture that could not be captioned); `names` are file names of ids, where the
    file gives them.
    """

    source: str
    format: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    numbered: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, key: Any, texts: Any, where: str) -> None:
        """Texts of one image; raises `CaptuneError` for what is no id or no text."""
        if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
            raise CaptuneError(f"{where}: the image id is {key!r}.", "Expected a number or a name.")
        found = texts if isinstance(texts, list) else [texts]
        for text in found:
            if isinstance(text, dict):
                text = text.get("caption", text.get("text", text.get("raw")))
            if not isinstance(text, str):
                raise CaptuneError(
                    f"{where}: the caption of image {key} is {json.dumps(text)[:60]}, not text.",
                    "An image without a caption needs an empty string, which counts as 0.",
                )
            self.texts.setdefault(str(key), []).append(text)


def read_results(path: str, *, references: bool = False) -> Results:
    """Read captions (or references) from a file, `-` (standard input), or a dataset's folder.

    Raises `CaptuneError` with file and line for anything that cannot be read.
    """
    if path != STDIN and (Path(path).is_dir() or path.startswith("hf:") or path.endswith((".parquet", ".tar"))):
        return _dataset(path)
    text = read_text(path)
    name = "standard input" if path == STDIN else path
    if not text.strip():
        raise CaptuneError(f"{name} is empty.", "Expected captions; write the file again.")
    start = text.lstrip()[:1]
    if start in ("[", "{"):
        return _json(text, name, references)
    lines = text.removesuffix("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    delimiter = _delimiter(lines[0])
    if delimiter:
        return _table(text, delimiter, name)
    if all(_TOKEN.fullmatch(line) for line in lines if line.strip()):
        found = Results(name, "flickr token")
        for number, line in enumerate(lines, start=1):
            match = _TOKEN.fullmatch(line)
            if match:
                found.add(match[1], match[3], f"{name}, line {number}")
        return found
    found = Results(name, "text, a line for each image", numbered=True)
    for number, line in enumerate(lines, start=1):
        found.add(str(number), line.split("\t") if references else line, f"{name}, line {number}")
    return found


def read_text(path: str) -> str:
    """A file or standard input as text; gzip and a byte order mark are undone."""
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise CaptuneError(f"There is no file {path}.", "Check the path.") from None
    except (OSError, EOFError) as error:
        raise CaptuneError(f"Cannot read {path}: {error}.", "Check the file and its permissions.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "Save it as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8), or give the file with the captions."
        raise CaptuneError(f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8.", hint) from None


def _json(text: str, name: str, references: bool) -> Results:
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        if _is_json(text.strip().partition("\n")[0]):
            return _jsonl(text, name, references)
        raise _not_json(name, error.lineno, error) from None
    if isinstance(value, list):
        return _rows(
            ((row, f"{name}, item {n}") for n, row in enumerate(value, start=1)), name, "JSON rows", references
        )
    if isinstance(value.get("annotations"), list):
        rows = ((row, f"{name}, annotation {n}") for n, row in enumerate(value["annotations"], start=1))
        found = _rows(rows, name, "COCO annotations", references)
        for image in value.get("images", []):
            if isinstance(image, dict) and "id" in image and "file_name" in image:
                found.names[str(image["id"])] = str(image["file_name"])
        return found
    if isinstance(value.get("images"), list):
        rows = ((row, f"{name}, image {n}") for n, row in enumerate(value["images"], start=1))
        return _rows(rows, name, "Karpathy's JSON", references)
    if _pair(value, references):
        return _rows([(value, f"{name}, line 1")], name, "JSONL", references)
    found = Results(name, "JSON by id")
    for key, texts in value.items():
        found.add(key, texts, name)
    if not found.texts:
        raise CaptuneError(f"{name} holds no captions.", 'Expected [{"image_id": 1, "caption": "…"}] or {"id": "…"}.')
    return found


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except json.JSONDecodeError:
        return False
    return True


def _jsonl(text: str, name: str, references: bool) -> Results:
    def rows() -> Iterator[tuple[Any, str]]:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    yield parse_json(line), f"{name}, line {number}"
                except json.JSONDecodeError as error:
                    raise _not_json(name, number, error) from None

    return _rows(rows(), name, "JSONL", references)


def _table(text: str, delimiter: str, name: str) -> Results:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = ((row, f"{name}, line {reader.line_num}") for row in reader)
    return _rows(rows, name, "CSV" if delimiter != "\t" else "TSV", False)


def _rows(rows: Iterable[tuple[Any, str]], name: str, format: str, references: bool) -> Results:
    found = Results(name, format)
    for row, where in rows:
        if not isinstance(row, dict):
            raise CaptuneError(
                f"{where}: {json.dumps(row)[:60]} is no row.", 'Expected {"image_id": 1, "caption": "…"}.'
            )
        pair = _pair(row, references)
        if pair is None:
            raise CaptuneError(
                f"{where}: no image id and caption among {', '.join(map(str, row)) or 'nothing'}.",
                f"Known ids: {', '.join(ID_KEYS[:6])}, …; known captions: {', '.join(TEXT_KEYS[:4])}, …",
            )
        key, texts = pair
        if row.get("status") == "error":
            found.failed[str(key)] = str(row.get("error") or "failed")
        else:
            found.add(key, texts, where)
    return found


def _pair(row: Mapping[str, Any], references: bool) -> tuple[Any, Any] | None:
    """The id and the text (or texts) of a row, or None where it lacks one."""
    key = next((row[name] for name in ID_KEYS if row.get(name) not in (None, "")), None)
    if key is None:
        return None
    if isinstance(row.get("models"), dict) and row["models"]:  # a picture of captune's evaluation
        said = next(iter(row["models"].values()))
        return key, row["references"] if references else said["caption"]
    order = (*CAPTIONS, *TEXT_KEYS) if references else TEXT_KEYS
    name = next((name for name in order if name in row), None)
    if name is None:
        return None
    numbered = [row[n] for k in range(1, 50) if (n := f"{name.removesuffix('_1')}_{k}") in row]
    return key, numbered if name.endswith("_1") else row[name]


def _dataset(path: str) -> Results:
    from captune.data.formats import read_source

    format, records = read_source(path)
    found = Results(path, format)
    for record in records:
        for text in record.references:
            found.add(record.id, text, record.where or path)
    return found


def _delimiter(header: str) -> str | None:
    for delimiter in _DELIMITERS:
        names = {name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])}
        if names.intersection(ID_KEYS) and names.intersection(TEXT_KEYS):
            return delimiter
    return None


def _not_json(name: str, line: int, error: json.JSONDecodeError) -> CaptuneError:
    return CaptuneError(
        f"{name}, line {line}, column {error.colno}: not valid JSON ({error.msg}).",
        "Was the file cut off? Write it again.",
    )


def find_pictures(folder: str | os.PathLike[str], ids: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """The file of each image in a folder: named as its id or its file name, with or without an ending.

    Raises `CaptuneError` where an image has no file, or several.
    """
    if not Path(folder).is_dir():
        raise CaptuneError(f"There is no folder {folder}.", "Give the folder that holds the images.")
    by_name: dict[str, list[Path]] = {}
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        for name in {path.name, path.stem, path.relative_to(folder).as_posix()}:
            by_name.setdefault(name, []).append(path)
    found = {key: by_name.get(names.get(key, key), by_name.get(key, [])) for key in ids}
    lost = [key for key, paths in found.items() if len(paths) != 1]
    if lost:
        many = found[lost[0]]
        why = f"{len(many)} files of that name" if many else "no such file"
        raise CaptuneError(
            f"{len(lost)} of {len(ids)} images are not in {folder} as one file: {lost[0]!r} first ({why}).",
            "Files must be named as the image ids or the file names in the references.",
        )
    return {key: str(paths[0]) for key, paths in found.items()}
