"""CSV and TSV with a header: an image column, one or more caption columns, perhaps a split column."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.data.formats.columns import Columns, expected, find_columns
from captune.data.formats.grouping import Row, group, note
from captune.data.formats.places import caption_files
from captune.data.formats.split_words import split_in
from captune.data.formats.table_files import choose
from captune.data.formats.text import first_line, lines
from captune.data.source import Problem, SourceRecord

DESCRIPTION = (
    "CSV or TSV with a header: an image column, `caption` or `caption_1` … `caption_n`, perhaps `split`; "
    "or `question` and `answer`"
)
RANK = 20
_NAMES = ("*.csv", "*.tsv", "*.tab", "*.txt")
_DELIMITERS = (",", "\t", ";", "|")
_LONGEST_FIELD = 200  # lines: a quote that is never closed would swallow the rest of the file


def sniff(source: Path, images: Path | None = None) -> str | None:
    found = _tables(source)
    if not found:
        return None
    return f"{found[0].name} has a header with an image and a caption column"


def read(source: Path, *, images: Path | None = None, problems: list[Problem] | None = None) -> Iterator[SourceRecord]:
    return group(rows(choose(source, _tables(source), "CSV or TSV files"), problems), source, images, problems)


def rows(paths: list[Path], problems: list[Problem] | None) -> Iterator[Row]:
    """Rows of the files; a file's name gives the split where no column does."""
    for path in paths:
        header = first_line(path) or ""
        delimiter = _delimiter(header)
        yield from _rows(path, delimiter or ",", split_in(path.stem) if len(paths) > 1 else None, problems)


def _tables(source: Path) -> list[Path]:
    return caption_files(source, _NAMES, lambda path: _delimiter(first_line(path) or "") is not None)


def _delimiter(header: str) -> str | None:
    return next((d for d in _DELIMITERS if _columns(next(csv.reader([header], delimiter=d), []))), None)


def _columns(header: list[str]) -> Columns | None:
    # A sentence is not a header, even if one of its words is "image".
    return find_columns(header) if len(header) > 1 and len(set(header)) == len(header) else None


def _rows(path: Path, delimiter: str, split: str | None, problems: list[Problem] | None) -> Iterator[Row]:
    # Text columns of a TSV file are rarely quoted, so that a quote there is a quote.
    reader = csv.reader(lines(path), delimiter=delimiter, strict=False)
    end = 0
    header: list[str] = []
    columns: Columns | None = None
    try:
        for fields in reader:
            start, end = end + 1, reader.line_num
            if not any(field.strip() for field in fields):
                continue
            if columns is None:
                header = [field.strip() for field in fields]
                columns = _columns(header)
                if columns is None:
                    raise CaptuneError(
                        f"{path}, line {start}: expected a header with {expected()}; "
                        f"found {delimiter.join(fields)[:80]!r}.",
                        "Add a first line such as: image,caption",
                    )
                continue
            if end - start > _LONGEST_FIELD:
                raise CaptuneError(
                    f"{path}, line {start}: a quote opens a field that ends only in line {end}.",
                    'Close the quote, or write a quote inside a quoted caption twice: "".',
                )
            if len(fields) > len(header) and columns.captions[-1] == header[-1]:
                # Commas of a caption that was not quoted.
                fields = [*fields[: len(header) - 1], delimiter.join(fields[len(header) - 1 :])]
            if len(fields) != len(header):
                reason = f"expected {len(header)} fields ({', '.join(header[:6])}), found {len(fields)}"
                note(problems, f"{path.name}, line {start}", f"{reason}; a caption with a '{delimiter}' needs quotes")
                continue
            row = dict(zip(header, fields, strict=True))
            said, asked = columns.split_of(row) or split, columns.question_of(row)
            yield Row(path, start, row[columns.image], columns.texts(row), said, question=asked)
    except csv.Error as error:
        raise CaptuneError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}).", "Is a quote left open?"
        ) from None
