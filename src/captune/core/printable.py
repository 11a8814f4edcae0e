"""Text of strangers (file names, captions, reasons) for a terminal, which obeys some characters and shows the rest."""

from __future__ import annotations

import re

# Control characters but tab and line feed (ESC begins a command), C1 (a command in one character), and what turns
# the direction of writing, so that a name reads as another.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    r"""Text without what a terminal obeys: such characters become escapes that can be read, `\x1b`."""
    return _COMMANDS.sub(lambda found: escape(found[0]), text)


def plain_json(text: str) -> str:
    r"""JSON with such characters as `\u001b`: the same value, and nothing that a terminal obeys."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_controls(text: str) -> str:
    """A caption on one line, control characters replaced by U+FFFD."""
    return _CONTROLS.sub("\ufffd", " ".join(text.split()))


def escape(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
