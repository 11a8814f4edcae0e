"""Captions in a text that a person may have written in: what is to stand, and what captune notes of its own."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from captune.captions.writers.writer import one_line
from captune.core.files.existing import ExistingCaptions, Ledger, digest
from captune.core.sidecars import as_paragraphs, captions_in, file_text, has_paragraphs


def joined_text(
    before: str, captions: Sequence[str], existing: ExistingCaptions, ledger: Ledger, name: str
) -> str | None:
    """What is to stand instead of a text `before`; None: a person's words are to stay as they are.

    Under `name` the ledger has what captune wrote. What is alone in it is as `file_text` makes it.
    """
    lines = before.splitlines(keepends=True)
    standing = "".join(_persons_lines(lines, ledger, name))
    words = list(map(one_line, captions_in(standing)))
    joined = existing.joined(words, list(map(one_line, captions)))
    if not words or existing.mode == "replace":
        return file_text(captions)
    if joined == words:
        return None
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    new = [caption for caption in captions if one_line(caption) not in words]
    if has_paragraphs(standing):  # then the caption becomes one more of them
        between, added = end * 2, [as_paragraphs(caption).replace("\n", end) for caption in new]
    else:
        between, added = end, [one_line(caption) for caption in new]
    person = standing.removesuffix("\n").removesuffix("\r")
    order = [person, *added] if existing.mode == "append" else [*added, person]
    return between.join(order) + end


def digests_of(name: str, captions: Sequence[str], *, alone: bool) -> Iterator[str]:
    """What the ledger is to have of captions that are about to be written, `alone` or beside a person's words."""
    for caption in captions:
        yield digest(name, file_text([caption]))
        if not alone:
            for part in re.split(r"\n\s*\n", as_paragraphs(caption)):
                yield digest(_part_of(name), part)


def _persons_lines(lines: list[str], ledger: Ledger, name: str) -> list[str]:
    """A person's lines, as they are, with the empty ones between them: without captune's captions."""
    whole = "".join(lines)
    if ledger.has(name, whole):
        return []
    several = has_paragraphs(whole)
    standing: list[str] = []
    for filled, group in groupby(lines, key=lambda line: bool(line.strip())):
        paragraph = list(group)
        if not filled:
            standing += paragraph
        elif several and len(paragraph) == 1:  # perhaps captune's own sentence that a person continued
            standing += [] if ledger.has(_part_of(name), paragraph[0]) else paragraph
        elif not (several and ledger.has(_part_of(name), "".join(paragraph))):
            standing += [line for line in paragraph if not ledger.has(name, line)]
    filled_lines = [number for number, line in enumerate(standing) if line.strip()]
    return standing[filled_lines[0] : filled_lines[-1] + 1] if filled_lines else []


def _part_of(name: str) -> str:
    """The name under which the ledger has a paragraph that was put beside a person's."""
    return f"{name}/paragraph"
