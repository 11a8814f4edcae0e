"""Markdown without what is no Markdown: the same bytes, with blanks where code, comments and front matter stand."""

import re
from collections.abc import Iterator

_FRONT = re.compile(rb"(?:\xef\xbb\xbf)?(---|\+\+\+)[ \t]*\r?\n.*?^\1[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(rb"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*(`{3,}|~{3,})([^\r\n]*)")
# What indented text may belong to without being code.
_CONTAINER = re.compile(rb"[ \t>]*(?:[-*+][ \t]|\d{1,9}[.)][ \t]|!!!|\?\?\?|===|:::|:[ \t]|\[\^|<)")
_COMMENTED = re.compile(
    rb"\{%-?[ \t]*(comment|raw|highlight)\b[^%]*%\}.*?\{%-?[ \t]*end\1[ \t]*-?%\}"
    rb"|\{\{[<%][ \t]*highlight\b.*?\{\{[<%][ \t]*/[ \t]*highlight\b|\{/\*.*?\*/\}",
    re.DOTALL,
)
_RAW = re.compile(
    rb"<(script|style|pre|textarea)\b[^>]*>.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL | re.IGNORECASE
)
_TICKS = re.compile(rb"`+")


def front_matter(content: bytes) -> bytes:
    """The front matter of a page in YAML or TOML, with its marks; empty where there is none."""
    found = _FRONT.match(content)
    return found[0] if found else b""


def paragraphs(text: bytes) -> Iterator[tuple[int, int]]:
    """Where runs of lines that are not blank begin and end."""
    start = position = 0
    for line in text.splitlines(keepends=True):
        if not line.strip(b" \t\r\n>"):
            if start < position:
                yield start, position
            start = position + len(line)
        position += len(line)
    if start < position:
        yield start, position


def masked(content: bytes) -> bytes:
    """A page of Markdown with blanks in place of front matter, code, comments, scripts and `<pre>`.

    Code in a line becomes letters: a link with code in it is not empty.
    """
    front = len(front_matter(content))
    text = _blank(content[:front]) + _without_blocks(content[front:])
    position, parts = 0, []
    for start, end in paragraphs(text):
        parts += [text[position:start], _without_code(text[start:end])]
        position = end
    text = b"".join([*parts, text[position:]])
    for pattern in (_COMMENTED, _RAW):
        text = pattern.sub(lambda found: _blank(found[0]), text)
    return text


def _blank(part: bytes, sign: bytes = b" ") -> bytes:
    return re.sub(rb"[^\r\n]", sign, part)


def _without_blocks(text: bytes) -> bytes:
    """Blanks in place of fenced and of indented code."""
    lines = text.split(b"\n")
    fence = b""
    contained = code = False
    after_blank = True
    for number, line in enumerate(lines):
        if fence:
            closing = line.strip(b" \t\r>")
            lines[number] = _blank(line)
            if closing.startswith(fence) and not closing.strip(fence[:1]):
                fence = b""
            continue
        opening = _FENCE.match(line)
        if opening and not (opening[1][:1] == b"`" and b"`" in opening[2]):
            fence = opening[1]
            lines[number] = _blank(line)
            after_blank = code = False
            continue
        blank = not line.strip(b" \t\r>")
        indented = line.startswith((b"    ", b"\t"))
        if blank:
            after_blank = True
            continue
        code = indented and not contained and (after_blank or code)
        if code:
            lines[number] = _blank(line)
        elif _CONTAINER.match(line):
            contained = True
        elif after_blank and not line.startswith((b" ", b"\t")):
            contained = False
        after_blank = False
    return b"\n".join(lines)


def _without_code(paragraph: bytes) -> bytes:
    """Letters in place of `code`; runs of backticks without an end of the same length stay."""
    runs = list(_TICKS.finditer(paragraph))
    parts, position, number = [], 0, 0
    while number < len(runs):
        start, length = runs[number].start(), len(runs[number][0])
        escaped = start > 0 and paragraph[start - 1 : start] == b"\\" and paragraph[start - 2 : start - 1] != b"\\"
        closing = next((other for other in range(number + 1, len(runs)) if len(runs[other][0]) == length), None)
        if escaped or closing is None:
            number += 1
            continue
        end = runs[closing].end()
        parts += [paragraph[position:start], _blank(paragraph[start:end], b"x")]
        position, number = end, closing + 1
    return b"".join([*parts, paragraph[position:]])
