"""The text of a caption as a person wants it: what stands around it, how long it is."""

import re
from dataclasses import replace

from captune.core.errors import UsageError
from captune.core.options import WordingOptions
from captune.core.records import Caption

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)]*(?=\s|$)|[。！？][」』”’）]*")
_LOOSE = " \t\n,;:-–—(['\"“‘"
# A sentence that leaves out more of the room than this is not worth its end.
_LEAST_SHARE = 0.4


def worded(caption: Caption, options: WordingOptions) -> Caption:
    """A caption with its text as the options want it; one without words stays empty.

    Raises `UsageError` where there is no room for a caption between prefix and suffix.
    """
    text = caption.text
    if options.one_line:
        text = " ".join(text.split())
    if options.lower_case:
        text = text.lower()
    if not text.strip():
        return replace(caption, text=text)
    before, behind = _joint(options.prefix, ends=True), _joint(options.suffix, ends=False)
    if options.max_characters:
        room = options.max_characters - len(before) - len(behind)
        if room < 1:
            raise UsageError(
                f"--max-characters {options.max_characters} leaves no room for a caption beside --prefix and --suffix.",
                "Raise it, or shorten them.",
            )
        text = shortened(text, room)
    return replace(caption, text=f"{before}{text}{behind}")


def _joint(text: str, *, ends: bool) -> str:
    """A prefix, which `ends` where the caption begins, or a suffix, with a space at that side where it needs one."""
    if not text:
        return ""
    if ends:
        return text if text[-1].isspace() else f"{text} "
    return text if text[0].isspace() or text[0] in ",.;:!?)" else f" {text}"


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text: whole sentences where they fill enough of the room, else whole words."""
    if len(text) <= most:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text) if found.end() <= most]
    if ends and ends[-1] >= _LEAST_SHARE * most:
        return text[: ends[-1]]
    space = max((text.rfind(blank, 0, most + 1) for blank in " \t\n"), default=-1)
    words = text[:space].rstrip(_LOOSE) if space > 0 else ""
    return words or text[:most]
