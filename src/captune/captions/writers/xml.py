"""Captions as XML."""

import re
from xml.sax.saxutils import escape

from captune.captions.provenance import Provenance
from captune.captions.row import CaptionRow, known
from captune.captions.writers.writer import TextFormatWriter

# What XML 1.0 cannot hold, not even escaped.
_IMPOSSIBLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class XmlWriter(TextFormatWriter):
    """`<captions>` of `<picture>`s with `<image>`, `<status>`, `<caption confidence="…">`s, `<error>`.

    Control characters, which XML does not allow, become U+FFFD.
    """

    suffix = "xml"

    def head(self) -> str:
        return '<?xml version="1.0" encoding="UTF-8"?>\n<captions>\n'

    def row(self, row: CaptionRow) -> str:
        lines = [f"    <image>{escaped(row.image)}</image>", f"    <status>{row.status}</status>"]
        for caption in row.captions:
            confidence = "" if known(caption.confidence) is None else f' confidence="{caption.confidence!r}"'
            lines.append(f"    <caption{confidence}>{escaped(caption.text)}</caption>")
        if row.error is not None:
            lines.append(f"    <error>{escaped(row.error)}</error>")
        if row.provenance is not None:
            lines.append(_provenance(row.provenance))
        return "  <picture>\n" + "\n".join(lines) + "\n  </picture>\n"

    def tail(self) -> str:
        return "</captions>\n"

    def encodable(self, text: str) -> str:
        if self.encoding.lower().replace("-", "") == "utf8":
            return text
        return text.encode("ascii", "xmlcharrefreplace").decode()


def _provenance(provenance: Provenance) -> str:
    values = provenance.to_json()
    words = "".join(f"<own_words>{escaped(text)}</own_words>" for text in values.pop("own_words", []))
    texts = {name: value if isinstance(value, str) else " ".join(value) for name, value in values.items()}
    attributes = "".join(f' {name}="{escaped(text).replace(chr(34), "&quot;")}"' for name, text in texts.items())
    return f"    <provenance{attributes}>{words}</provenance>"


def escaped(value: str) -> str:
    """Text as XML holds it."""
    # A bare carriage return would be read back as a line feed.
    return escape(_IMPOSSIBLE.sub("\ufffd", value), {"\r": "&#13;"})
