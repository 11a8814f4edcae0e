"""Captions and references made elsewhere, and which image of the references each caption belongs to.

Files are read as `captune prepare` reads them. Plain text, where line i belongs to line i, is read here: only a file
in which nothing names an image. Nothing is dropped silently.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files import scratch_folder
from captune.core.files.paths import is_pattern
from captune.datasets.formats import promised, read_rows, recognised
from captune.datasets.merge import Problem
from captune.datasets.tables.columns import ID, IMAGE, job_format, plain_name
from captune.datasets.tables.rows import Row, Side, plain_id
from captune.datasets.tables.text import caption_text, check_file, first_line, read_text
from captune.images.signatures import is_image_name

STDIN = "-"
_ON_STDIN = "standard input"
_SEPARATORS = re.compile(r"[\t|;,]")
_NUMBER_IN_FRONT = re.compile(r"\s*\d+\s*[|;,]")
_TWO_COLUMNS = "Write image<TAB>caption on every line, or a first line such as image,caption."


@dataclass
class Results:
    """Texts by image id, in the order of the file, and what could not be read.

    `numbered` says that ids are line numbers. `failed` are images without a text and why (an image that could not be
    captioned); `names` are file names of ids, where the file gives them; `problems` are rows that cannot be used;
    `rejected` counts texts that the file marks as unfit, `beside` is what captune wrote beside the first, by image.
    """

    source: str
    format: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    numbered: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    beside: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def read_results(path: str, side: Side) -> Results:
    """Read captions or references from a file, `-` (standard input), or a dataset's folder.

    Of a file that holds both, `side` says which are meant. Raises `CaptuneError` with file and line for what cannot
    be read.
    """
    if path != STDIN:
        return _read(Path(path), path, side)
    with scratch_folder() as folder:
        copy = folder / _ON_STDIN
        copy.write_bytes(sys.stdin.buffer.read())
        try:
            return _read(copy, _ON_STDIN, side)
        except CaptuneError as error:
            message, hint = (text.replace(f"{folder}{os.sep}", "") for text in (error.message, error.hint))
            raise CaptuneError(message, hint) from None


def _read(path: Path, source: str, side: Side) -> Results:
    format = job_format(path)
    if format is None and not str(path).startswith("hf:") and not is_pattern(str(path)) and not path.is_dir():
        check_file(path)
        found = recognised(path)
        if found is None and (first_line(path) or "").startswith(("[", "{")):
            format = "jsonl"
        elif found is None and promised(path) is None:
            return _lines(path, source, side)
        elif found is not None:
            format = found[0]
    problems: list[Problem] = []
    format, rows = read_rows(path, problems, side, format)
    return _by_image(rows, source, format, problems)


def _by_image(rows: Iterable[Row], source: str, format: str, problems: list[Problem]) -> Results:
    found = Results(source, format, problems=problems)
    usable: list[Row] = []
    for row in rows:
        if row.bad or not row.name.strip():
            problems.append(Problem(row.where, row.bad or "no image is named"))
        elif not row.captions and not row.rejected and not row.error:
            problems.append(Problem(row.where, f"{row.name} has an empty list of captions"))
        else:
            usable.append(row)
    by_id = _ids_are_of_images(usable)
    for row in usable:
        name = row.name.strip()
        key = row.id if by_id and row.id is not None else f"{name}: {row.question}" if row.question else name
        if key != name:
            found.names[key] = name
        if row.error:
            found.failed[key] = row.error
        if row.rejected:
            found.rejected[key] = found.rejected.get(key, 0) + row.rejected
        if row.beside is not None:
            found.beside.setdefault(key, row.beside)
        if row.captions:
            found.texts.setdefault(key, []).extend(map(caption_text, row.captions))
    return found


def _ids_are_of_images(rows: Sequence[Row]) -> bool:
    """Whether ids tell images (or questions) apart; an `id` that differs in rows of one image numbers the rows."""
    ids: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.id is None:
            return False
        ids[row.name].add(row.id)
        names[row.id].add(row.name)
    if any(len(same) > 1 for same in names.values()):
        return False
    loose = any(row.loose_id and not row.question for row in rows)
    return not (loose and any(len(same) > 1 for same in ids.values()))


def _lines(path: Path, source: str, side: Side) -> Results:
    """Line i as image i; of references, texts with tabs between them."""
    lines = [line.removesuffix("\r") for line in read_text(path).removesuffix("\n").split("\n")]
    _check_no_names(lines, source, side)
    found = Results(source, "text, a line for each image", numbered=True)
    for number, line in enumerate(lines, start=1):
        texts = line.split("\t") if side == "references" else [line]
        found.texts[str(number)] = list(map(caption_text, texts))
    return found


def _check_no_names(lines: Sequence[str], source: str, side: Side) -> None:
    """Raise `CaptuneError` where lines name images in a way that is not understood: a name is no word of a caption."""
    full = [line for line in lines if line.strip()]
    header = [plain_name(name) for name in _SEPARATORS.split(full[0])]
    if len(header) > 1 and any(name in (*IMAGE, *ID) for name in header) and not any(" " in name for name in header):
        raise CaptuneError(
            f"{source}, line 1: a header without a column of captions that is known: {full[0][:80]!r}.",
            "Call the column 'caption' (or 'prediction', 'reference').",
        )
    named = [line for line in full if is_image_name(re.split(r"[\t|;, ]", line.strip(), maxsplit=1)[0].rstrip(":"))]
    if 2 * len(named) > len(full):
        raise CaptuneError(
            f"{source}: lines begin with an image's name, for example {named[0][:60]!r}, but are no table.",
            _TWO_COLUMNS,
        )
    if len(full) > 1 and all(map(_NUMBER_IN_FRONT.match, full)):
        raise CaptuneError(
            f"{source}: every line begins with a number and a separator, for example {full[0][:60]!r}.",
            "If the number is the image's id, write a first line such as image_id,caption.",
        )
    tabs = next((number for number, line in enumerate(lines, start=1) if "\t" in line), None)
    if side == "captions" and tabs is not None:
        raise CaptuneError(f"{source}, line {tabs}: a tab in a file of one caption a line.", _TWO_COLUMNS)


def image_files_by_id(folder: str | os.PathLike[str], ids: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
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


_Label = Callable[[Results, str], Iterable[str]]


def pair_images(captions: Results, references: Results) -> tuple[dict[str, str], str]:
    """The references' id of each image of the captions, and how they were matched ("" by equal names or ids).

    Of the ways to match, the one that finds most images is taken, of equal ones the strictest; a way by which two
    images of a file become one is none. Images that have no partner are left as they are. Raises `CaptuneError`
    where ids match but the file names beside them contradict.
    """
    wanted = [*captions.texts, *(key for key in captions.failed if key not in captions.texts)]
    there = list(dict.fromkeys((*references.texts, *references.rejected)))
    best: dict[str, str] = {}
    how = ""
    for name, label in _WAYS:
        found = _matches(captions, wanted, references, there, label)
        if len(found) > len(best):
            best, how = found, name
    if not how and any(key != partner for key, partner in best.items()):
        how = "file name"
    _check_names(captions, references, best)
    return best, how


def _matches(
    captions: Results, wanted: list[str], references: Results, there: list[str], label: _Label
) -> dict[str, str]:
    """Pairs by equal labels; none at all where a label is that of two images of one file."""
    owners: dict[str, str] = {}
    for key in there:
        for word in set(label(references, key)):
            if owners.setdefault(word, key) != key:
                return {}
    found: dict[str, str] = {}
    for key in wanted:
        partners = {owners[word] for word in label(captions, key) if word in owners}
        if len(partners) == 1:
            found[key] = partners.pop()
    return found if len(set(found.values())) == len(found) else {}


def _check_names(captions: Results, references: Results, found: dict[str, str]) -> None:
    for key, partner in found.items():
        one, other = captions.names.get(key), references.names.get(partner)
        if one is None or other is None or not (is_image_name(one) and is_image_name(other)):
            continue
        if stem(one) != stem(other):
            raise CaptuneError(
                f"{captions.source} and {references.source} give image {partner} different files: {one} and {other}.",
                "Are the ids row numbers? Leave that column out, so that images are matched by their file names.",
            )


def stem(name: str) -> str:
    """The file name alone, without the ending of an image, in lower case."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return (base.rpartition(".")[0] if is_image_name(base) else base).lower()


def _name(found: Results, key: str) -> str:
    return found.names.get(key, key)


def _numbers(*words: str) -> list[str]:
    return [number for number in map(plain_id, words) if number is not None]


_WAYS: tuple[tuple[str, _Label], ...] = (
    ("", lambda found, key: [_name(found, key)]),
    ("", lambda found, key: [key]),
    ("id, as a number", lambda found, key: _numbers(key)),
    ("file name", lambda found, key: [_name(found, key).replace("\\", "/").rpartition("/")[2]]),
    ("file name without its ending", lambda found, key: [stem(_name(found, key))]),
    ("the number in the file name", lambda found, key: _numbers(stem(key), stem(_name(found, key)))),
)
