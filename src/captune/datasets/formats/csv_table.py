"""CSV and TSV: an image column, one or more caption columns, perhaps a split column; without a header two columns."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.text import OF_CAPTUNE, unguarded
from captune.datasets.merge import Problems
from captune.datasets.tables.columns import SPLIT_WORDS, Columns, choose, expected, find_columns, split_from_name
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, note
from captune.datasets.tables.text import first_line, head, lines, split_fields, table_rows
from captune.images.signatures import is_image_name

DESCRIPTION = (
    "CSV or TSV with a header: an image column, `caption` or `caption_1` … `caption_n`, perhaps `split`; "
    "or `question` and `answer`; without a header `image,caption`"
)
RANK = 20
_NAMES = ("*.csv", "*.tsv", "*.tab", "*.txt")
_DELIMITERS = (",", "\t", ";", "|")
_SHOWN = {"\t": "<TAB>"}
# Without a header a line is an image's name and its caption, between them perhaps a comment's number or the split.
_TWO, _NUMBERED, _SPLIT = ["image", "caption"], ["image", "number", "caption"], ["image", "split", "caption"]
_MAX_LINES = 50  # lines


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _tables(source)
    if not paths:
        return None
    headed = header_of(paths[0]) is not None
    what = "a header with an image and a caption column" if headed else "lines of an image's name and a caption"
    return f"{paths[0].name} has {what}"


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    return rows_of(choose(source, _tables(source), "CSV or TSV files"), problems, side)


def rows_of(paths: list[Path], problems: Problems, side: Side = "references") -> Iterator[Row]:
    """Rows of the files; a file's name gives the split where no column does."""
    for path in paths:
        header = header_of(path, side)
        delimiter = header[0] if header else _headless(path) or _by_suffix(path)
        yield from read_table(path, delimiter, problems, side, split_from_name(path.stem) if len(paths) > 1 else None)


def header_of(path: Path, side: Side = "references") -> tuple[str, Columns] | None:
    """The separator and the columns of a file with a header that is understood."""
    line = first_line(path) or ""
    return next(((d, columns) for d in _DELIMITERS if (columns := _columns(line, d, side))), None)


def _ids_in_front(path: Path, delimiter: str) -> bool:
    """Whether every line is an id (a word with a digit), the separator and more: a table without a header."""
    if delimiter != "\t" and path.suffix.lower() not in (".csv", ".psv"):
        return False  # "2,000 people" is a caption
    rows = [split_fields(line, delimiter)[0] for line in _head_lines(path)]
    return bool(rows) and all(len(fields) > 1 and _is_id(fields[0].strip()) for fields in rows)


def _is_id(word: str) -> bool:
    return any(map(str.isdigit, word)) and not any(map(str.isspace, word))


def _head_lines(path: Path) -> list[str]:
    return [line for line in (head(path) or "").splitlines()[:_MAX_LINES] if line.strip()]


def without_header(line: str) -> str | None:
    """The separator of a line that begins with an image's file name, or None."""
    for delimiter in _DELIMITERS:
        fields, _ = split_fields(line, delimiter)
        if len(fields) > 1 and is_image_name(fields[0].strip()):
            return delimiter
    return None


def read_table(
    path: Path, delimiter: str, problems: Problems, side: Side = "references", split: str | None = None
) -> Iterator[Row]:
    """Rows of one file with this separator, with or without a header."""
    number, first, rest = _after_first_line(path)
    names, columns = _fields(first, delimiter), _columns(first, delimiter, side)
    headless = columns is None
    if columns is None:
        if not is_image_name(names[0]) and not _ids_in_front(path, delimiter):
            raise CaptuneError(
                f"{path}, line {number}: expected a header with {expected()}; found {first.strip()[:80]!r}.",
                "Call the columns so, or add a first line such as: image,caption",
            )
        names = _headless_names(path, delimiter)
        columns, rest = find_columns(names), itertools.chain([(number, first)], rest)
    assert columns is not None
    own = _of_captune(path, names)
    for line, fields in table_rows(rest, delimiter, width=len(names), image=names.index(columns.image)):
        if own:
            fields = list(map(unguarded, fields))
        if headless and delimiter == "\t" and len(fields) > 2 and not fields[1].strip():
            yield Row(path, line, fields[0], (), error=" ".join(fields[2:]))  # as captune writes what failed
            continue
        entry = _entry(fields, names, columns, delimiter)
        if isinstance(entry, str):
            note(problems, f"{path.name}, line {line}", entry)
        else:
            yield columns.row(path, line, entry, split)


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file with a header, with all their columns; raises `CaptuneError` for a row of another width."""
    delimiter, columns = header_of(path) or (",", None)
    _, first, rest = _after_first_line(path)
    names = _fields(first, delimiter)
    place = names.index(columns.image) if columns else 0
    own = _of_captune(path, names)
    for number, fields in table_rows(rest, delimiter, width=len(names), image=place):
        entry = _entry(list(map(unguarded, fields)) if own else fields, names, columns, delimiter)
        if isinstance(entry, str):
            raise CaptuneError(f"{path}, line {number}: {entry}.", "Mend the line.")
        yield entry


def _after_first_line(path: Path) -> tuple[int, str, Iterator[tuple[int, str]]]:
    """The first line that is not blank with its number, and the numbered lines behind it."""
    rest = enumerate(lines(path), start=1)
    number, first = next(((number, line) for number, line in rest if line.strip()), (1, ""))
    return number, first, rest


def _fields(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in split_fields(line.strip("\r\n"), delimiter)[0]]


def _of_captune(path: Path, names: list[str]) -> bool:
    """Whether captune wrote the file: then cells that a spreadsheet would run have an apostrophe before them."""
    prepared = names[0] == "image_path" and (path.parent / "splits.json").is_file()
    return prepared or tuple(names[: len(OF_CAPTUNE)]) == OF_CAPTUNE


def _tables(source: Path) -> list[Path]:
    return find_caption_files(source, _NAMES, lambda path: _fits(path, path == source))


def _fits(path: Path, named: bool) -> bool:
    """Whether a file is a table of captions; only one that the user named may have ids in place of file names."""
    header = header_of(path)
    if header is not None:
        return named or not header[1].by_id
    if path.suffix.lower() == ".txt" and not named:
        return False
    return without_header(first_line(path) or "") is not None or (named and _headless(path) is not None)


def _headless(path: Path) -> str | None:
    """The separator of a file without a header."""
    delimiter = without_header(first_line(path) or "")
    return delimiter or next((sign for sign in _DELIMITERS if _ids_in_front(path, sign)), None)


def _by_suffix(path: Path) -> str:
    return "\t" if path.suffix.lower() in (".tsv", ".tab") else ","


def _columns(line: str, delimiter: str, side: Side) -> Columns | None:
    header = _fields(line, delimiter)
    # A sentence is not a header, even if one of its words is "image".
    return find_columns(header, side=side) if len(header) > 1 and len(set(header)) == len(header) else None


def _headless_names(path: Path, delimiter: str) -> list[str]:
    rows = [split_fields(line, delimiter)[0] for line in _head_lines(path)]
    seconds = [fields[1].strip() if len(fields) > 2 else "" for fields in rows]
    if all(second.isdigit() for second in seconds):
        return _NUMBERED
    return _SPLIT if all(second.lower() in SPLIT_WORDS for second in seconds) else _TWO


def _entry(fields: list[str], header: list[str], columns: Columns | None, delimiter: str) -> dict[str, Any] | str:
    """The fields by column, or what is wrong with their number."""
    more = len(fields) - len(header)
    if more > 0 and columns is not None and len(columns.captions) == 1:
        place = header.index(columns.captions[0])
        joined = delimiter.join(fields[place : place + more + 1])
        merged = dict(zip(header, [*fields[:place], joined, *fields[place + more + 1 :]], strict=True))
        # Separators of a caption that was not quoted: what stands behind it must be what its column promises.
        if place == len(header) - 1 or _certain(merged, header[place + 1 :], columns):
            return merged
    if more == 0:
        return dict(zip(header, fields, strict=True))
    shown = _SHOWN.get(delimiter, delimiter)
    if len(fields) == 1:
        what = "comma" if delimiter == "," else shown
        return f"expected '{shown.join(header[:6])}', found no {what} in {fields[0][:60]!r}"
    return (
        f"expected {len(header)} fields ({', '.join(header[:6])}), found {len(fields)}; "
        f"a caption with a '{shown}' needs quotes"
    )


def _certain(row: dict[str, str], behind: list[str], columns: Columns) -> bool:
    return all(
        (name == columns.split and row[name].strip().lower() in SPLIT_WORDS)
        or (name == columns.image and is_image_name(row[name].strip()))
        for name in behind
    )
