"""Captions as XML."""

import re
from xml.sax.saxutils import escape

from captune.captions.row import CaptionRow
from captune.captions.writers.writer import TextFormatWriter

# What XML 1.0 cannot hold, not even escaped.
_IMPOSSIBLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class XmlWriter(TextFormatWriter):
    """`<captions>` of `<picture>`s with `<image>`, `<status>`, `<caption confidence="…">`s and `<error>`.

    Control characters, which XML does not allow, become U+FFFD.
    """

    suffix = "xml"

    def head(self) -> str:
        return '<?xml version="1.0" encoding="UTF-8"?>\n<captions>\n'

    def row(self, row: CaptionRow) -> str:
        lines = [f"    <image>{escaped(row.image)}</image>", f"    <status>{row.status}</status>"]
        for caption in row.captions:
            lines.append(f'    <caption confidence="{caption.confidence!r}">{escaped(caption.text)}</caption>')
        if row.error is not None:
            lines.append(f"    <error>{escaped(row.error)}</error>")
        return "  <picture>\n" + "\n".join(lines) + "\n  </picture>\n"

    def tail(self) -> str:
        return "</captions>\n"

    def encodable(self, text: str) -> str:
        if self.encoding.lower().replace("-", "") == "utf8":
            return text
        return text.encode("ascii", "xmlcharrefreplace").decode()


def escaped(value: str) -> str:
    """Text as XML holds it."""
    # A bare carriage return would be read back as a line feed.
    return escape(_IMPOSSIBLE.sub("\ufffd", value), {"\r": "&#13;"})
