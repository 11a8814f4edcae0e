"""Changes of pages as a patch that `git apply` and `patch -p1` take; and such a patch, edited or not, read and applied.

Lines end at line feeds alone, and are bytes: a patch of pages in several encodings has all of them.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from captune.core.errors import CaptuneError

LINES_AROUND = 3
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NO_NEWLINE = b"\\ No newline at end of file\n"
_ESCAPED = {b"\n": b"\\n", b"\t": b"\\t", b"\r": b"\\r", b'"': b'\\"', b"\\": b"\\\\"}
_UNESCAPED = {sign: byte for byte, sign in _ESCAPED.items()}


@dataclass(frozen=True)
class Edit:
    """Bytes `start` to `end` of a page become `new`."""

    start: int
    end: int
    new: bytes


def edited(content: bytes, edits: Iterable[Edit]) -> bytes:
    """A page with its edits; all other bytes are as they were."""
    parts, position = [], 0
    for edit in sorted(edits, key=lambda each: each.start):
        parts += [content[position : edit.start], edit.new]
        position = edit.end
    return b"".join([*parts, content[position:]])


def _lines(content: bytes) -> list[bytes]:
    """Lines with their line feeds; the last may have none."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


@dataclass
class _Change:
    """Lines `first` to `behind` (not included) of a page with the edits in them."""

    first: int
    behind: int
    edits: list[Edit]


def page_patch(name: str, content: bytes, edits: Sequence[Edit]) -> bytes:
    """The part of a patch for one page; `name` is its file's below the folder that the patch is applied in."""
    lines = _lines(content)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    parts = [b"--- " + _label("a/", name) + b"\n", b"+++ " + _label("b/", name) + b"\n"]
    added = 0
    for changes in _near(_changes(edits, starts)):
        first, behind = max(0, changes[0].first - LINES_AROUND), min(len(lines), changes[-1].behind + LINES_AROUND)
        old, new, body = behind - first, 0, b""
        position = first
        for change in changes:
            body += b"".join(_marked(b" ", line) for line in lines[position : change.first])
            new += change.first - position
            start = starts[change.first]
            here = [Edit(each.start - start, each.end - start, each.new) for each in change.edits]
            changed = _lines(edited(content[start : starts[change.behind]], here))
            body += b"".join(_marked(b"-", line) for line in lines[change.first : change.behind])
            body += b"".join(_marked(b"+", line) for line in changed)
            new += len(changed)
            position = change.behind
        body += b"".join(_marked(b" ", line) for line in lines[position:behind])
        new += behind - position
        parts.append(b"@@ -%d,%d +%d,%d @@\n" % (first + 1, old, first + 1 + added, new) + body)
        added += new - old
    return b"".join(parts)


def _changes(edits: Sequence[Edit], starts: list[int]) -> list[_Change]:
    """Edits by the lines that they change; `starts` are those of the lines, and the end."""
    changes: list[_Change] = []
    for edit in sorted(edits, key=lambda each: each.start):
        first = bisect_right(starts, edit.start, 0, len(starts) - 1) - 1
        behind = bisect_right(starts, max(edit.start, edit.end - 1), 0, len(starts) - 1)
        if changes and first < changes[-1].behind:
            changes[-1].behind = max(changes[-1].behind, behind)
            changes[-1].edits.append(edit)
        else:
            changes.append(_Change(first, behind, [edit]))
    return changes


def _near(changes: Iterable[_Change]) -> Iterator[list[_Change]]:
    """Changes whose surrounding lines would overlap, together."""
    group: list[_Change] = []
    for change in changes:
        if group and change.first - group[-1].behind > 2 * LINES_AROUND:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _marked(mark: bytes, line: bytes) -> bytes:
    return mark + line if line.endswith(b"\n") else mark + line + b"\n" + _NO_NEWLINE


def _label(prefix: str, name: str) -> bytes:
    """A file's name as git and patch read it: in quotes where it has signs of its own, a tab behind spaces."""
    raw = prefix.encode() + name.encode("utf-8", "surrogateescape")
    if re.search(rb'[\x00-\x1f"\\\x7f]', raw):
        return b'"' + re.sub(rb'[\x00-\x1f"\\\x7f]', lambda found: _escape(found[0]), raw) + b'"'
    return raw + b"\t" if b" " in raw else raw


def _escape(byte: bytes) -> bytes:
    return _ESCAPED.get(byte) or b"\\%03o" % byte[0]


@dataclass(frozen=True)
class Hunk:
    """Lines `old`, which begin at line `first` (from 0), become `new`. `line` is the hunk's own in the patch."""

    line: int
    first: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]


def read_patch(patch: bytes, name: str) -> dict[str, list[Hunk]]:
    """The hunks for each page of a patch, by the page's name; raises `CaptuneError` with the line that is wrong."""
    found: dict[str, list[Hunk]] = {}
    lines = _lines(patch)
    page = ""
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith(b"--- ") and number + 1 < len(lines) and lines[number + 1].startswith(b"+++ "):
            page = _name(lines[number + 1][4:])
            number += 2
        elif line.startswith(b"@@ "):
            if not page:
                raise _broken(name, number, "a change without the name of its page before it")
            hunk, number = _read_hunk(lines, number, name)
            found.setdefault(page, []).append(hunk)
        else:
            number += 1
    if not found:
        raise CaptuneError(f"{name} has no changes of pages.", "Name a patch that captune alt wrote.")
    return found


def _read_hunk(lines: list[bytes], start: int, name: str) -> tuple[Hunk, int]:
    head = _HUNK.match(lines[start])
    if head is None:
        raise _broken(name, start, "no line numbers of a change")
    left = [int(head[2] or 1), int(head[4] or 1)]
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    number = start + 1
    last: list[int] = []
    while left != [0, 0] or (number < len(lines) and lines[number].startswith(b"\\")):
        line = lines[number] if number < len(lines) else b"@"
        if line.startswith(b"\\"):
            for side in last:
                sides[side][-1] = sides[side][-1].removesuffix(b"\n")
            number += 1
            continue
        # Editors that take spaces away at the ends of lines leave an empty line of one that is as it was.
        last = {b" ": [0, 1], b"\n": [0, 1], b"\r": [0, 1], b"-": [0], b"+": [1]}.get(line[:1], [])
        if not last or any(not left[side] for side in last):
            raise _broken(name, number, "the change has more or fewer lines than its first line says")
        for side in last:
            sides[side].append(line if line[:1] in b"\r\n" else line[1:])
            left[side] -= 1
        number += 1
    return Hunk(start + 1, max(0, int(head[1]) - 1), tuple(sides[0]), tuple(sides[1])), number


def _broken(name: str, number: int, why: str) -> CaptuneError:
    return CaptuneError(
        f"{name}, line {number + 1}: {why}.", "Change the texts in lines with + alone, or take out whole changes."
    )


def _name(label: bytes) -> str:
    label = label.rstrip(b"\r\n")
    if label.startswith(b'"'):
        inside = label[1:].rpartition(b'"')[0]
        raw = re.sub(rb"\\([0-7]{3}|.)", lambda found: _unescape(found[1]), inside)
    else:
        raw = label.partition(b"\t")[0]
    return raw.decode("utf-8", "surrogateescape").partition("/")[2]


def _unescape(code: bytes) -> bytes:
    return bytes((int(code, 8) & 255,)) if code.isdigit() else _UNESCAPED.get(b"\\" + code, code)


def patched(content: bytes, hunks: Sequence[Hunk]) -> bytes | None:
    """A page with the changes; None where one of them fits it nowhere. Changes that are in it already are left out."""
    lines = _lines(content)
    moved = 0
    for hunk in hunks:
        near = hunk.first + moved
        if lines[near : near + len(hunk.new)] == list(hunk.new):
            continue
        place = _place(lines, hunk.old, near)
        if place is None:
            if _place(lines, hunk.new, near) is None:
                return None
            continue
        lines[place : place + len(hunk.old)] = hunk.new
        moved += len(hunk.new) - len(hunk.old)
    return b"".join(lines)


def _place(lines: list[bytes], wanted: Sequence[bytes], near: int) -> int | None:
    """Where lines stand in a page, the nearest to a line; None for nowhere."""
    width = len(wanted)
    places = sorted(range(len(lines) - width + 1), key=lambda place: abs(place - near))
    return next((place for place in places if lines[place : place + width] == list(wanted)), None)
