"""The text of a file that holds the captions of one image: one caption as it is, or several, a line each.

An empty line between texts makes them the paragraphs of one caption; without one, each line is a caption.
"""

import re
from collections.abc import Sequence

from captune.core.text import without_controls

SUFFIXES = (".txt", ".caption")
_CONTROLS = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def file_text(captions: Sequence[str]) -> str:
    """What a file holds of captions: `captions_in` gives them back, each one line or one with paragraphs.

    The only caption keeps its lines; where it has no empty line between them, each becomes a paragraph.
    """
    if len(captions) == 1 and len(captions[0].strip().splitlines()) > 1:
        return as_paragraphs(captions[0]) + "\n"
    return "".join(f"{without_controls(caption)}\n" for caption in captions)


def as_paragraphs(caption: str) -> str:
    """A caption with an empty line between its paragraphs; control characters are replaced."""
    lines = [_CONTROLS.sub("\ufffd", line.rstrip()) for line in caption.strip().splitlines()]
    return ("\n" if has_paragraphs(caption) else "\n\n").join(lines)


def captions_in(text: str) -> list[str]:
    """The captions in the text of a file; empty ones are left out."""
    found = [text.strip()] if has_paragraphs(text) else text.splitlines()
    return [caption for caption in found if caption.strip()]


def has_paragraphs(text: str) -> bool:
    """Whether an empty line lies between texts."""
    return any(not line.strip() for line in text.strip().splitlines())
