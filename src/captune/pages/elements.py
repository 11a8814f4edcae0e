"""A tolerant tokenizer of HTML over bytes: tags with the places of their attributes, and the text between them.

It builds no tree and needs no valid page. Comments, scripts, styles, `<pre>` and code of templates (PHP, ERB, Jinja,
Liquid, Go) are stepped over; inside of a tag template code is part of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

# What templates leave in a page; more than this of them is no template.
MOST_TEMPLATE = 4000
MOST_BRACES = 32
_ENDS = {b"{{": b"}}", b"{%": b"%}", b"{#": b"#}", b"<?": b"?>", b"<%": b"%>"}
_NEXT = re.compile(rb"<(?:!--|[?%!]|/?[a-zA-Z])|\{[{%#]")
_IN_TAG = re.compile(rb"[^\s\"'<>/=]+")
_SPACE = re.compile(rb"[\s/]*")
_EQUALS = re.compile(rb"\s*=\s*")
_BARE = re.compile(rb"[^\s>]")
_NAME = re.compile(rb"[a-zA-Z][^\s/>]*")
_IN_QUOTES = {quote: re.compile(quote + rb"|\{[{%#]|<[?%]") for quote in (b'"', b"'")}
# Of these everything up to their end is no HTML, or shown as it stands.
RAW = frozenset((b"script", b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes", b"pre"))
VOID = frozenset(b"area base br col embed hr img input link meta param source track wbr command keygen frame".split())


@dataclass(frozen=True)
class Attribute:
    """An attribute: bytes `start` to `end`, its value in between without quotes; no value: None."""

    name: bytes
    value: bytes | None
    start: int
    end: int
    quote: bytes = b""


@dataclass(frozen=True)
class Tag:
    """A start tag, or an end tag (`closing`). `templated`: a template may add attributes to it.

    Of elements that are stepped over, such as `<title>`, `inside` has the bytes (start, end).
    """

    name: bytes
    start: int
    end: int
    attributes: tuple[Attribute, ...] = ()
    closing: bool = False
    closed: bool = False
    templated: bool = False
    inside: tuple[int, int] | None = None

    def get(self, name: bytes) -> Attribute | None:
        """The first attribute of a name, in small letters."""
        return next((each for each in self.attributes if each.name == name), None)

    def value(self, name: bytes, encoding: str = "utf-8") -> str | None:
        """The text of an attribute; "" for one without a value, None where there is none."""
        found = self.get(name)
        return None if found is None else unescape((found.value or b"").decode(encoding, "replace"))


@dataclass(frozen=True)
class Text:
    """Text between tags; `template`: code that may print something."""

    start: int
    end: int
    template: bool = False


def tokens(content: bytes, comments: bool = True) -> Iterator[Tag | Text]:
    """The tags and texts of a page in order; without `comments`, `{# … #}` is none (Markdown has headings like it)."""
    position = unended = 0
    while found := _NEXT.search(content, position):
        start = found.start()
        if start > position:
            yield Text(position, start)
        opening = found[0]
        position = found.end()
        if opening == b"<!--":
            position = _after(content, b"-->", position)
        elif opening == b"<!":
            position = _after(content, b">", position)
        elif opening in (b"<?", b"<%"):
            position = _after(content, _ENDS[opening], position)
            yield Text(start, position, template=True)
        elif opening[:1] == b"{":
            end = template_end(content, start) if comments or opening != b"{#" else None
            if end is None:
                yield Text(start, position)
            elif opening == b"{{":
                yield Text(start, end, template=True)
            position = end or position
        else:
            tag = _tag(content, start)
            if tag is None or tag is _UNENDED:
                unended += tag is _UNENDED
                if unended > MOST_UNENDED:
                    return
                continue
            yield tag
            position = tag.inside[1] if tag.inside else tag.end
    if position < len(content):
        yield Text(position, len(content))


def template_end(content: bytes, position: int) -> int | None:
    """Where template code that begins here ends; None where none begins, or it has no end."""
    closing = _ENDS.get(content[position : position + 2])
    if closing is None:
        return None
    end = content.find(closing, position + 2, position + MOST_TEMPLATE)
    return None if end < 0 else end + 2


def _after(content: bytes, closing: bytes, position: int) -> int:
    end = content.find(closing, position)
    return len(content) if end < 0 else end + len(closing)


_UNENDED = Tag(b"", 0, 0)
# So many tags that go on to the end of a page, as quotes without an end make them, are looked into for others.
MOST_UNENDED = 8


def _tag(content: bytes, start: int) -> Tag | None:
    """The tag that begins here; None where the next one breaks it off, `_UNENDED` where it has no end."""
    closing = content[start + 1 : start + 2] == b"/"
    name = _NAME.match(content, start + 1 + closing)
    assert name, "a letter begins it"
    attributes: list[Attribute] = []
    templated = False
    position = name.end()
    while True:
        blank = _SPACE.match(content, position)
        position = blank.end() if blank else position
        sign = content[position : position + 1]
        if sign == b">":
            break
        if (end := template_end(content, position)) is not None:
            templated, position = True, end
        elif sign == b"<":
            return None
        elif sign == b"":
            return _UNENDED
        elif sign in (b'"', b"'", b"="):  # a stray one
            position += 1
        else:
            attribute = _attribute(content, position)
            if attribute is None:
                return _UNENDED
            attributes.append(attribute)
            templated = templated or attribute.name.startswith(b"{")
            position = attribute.end
    whole = Tag(
        name[0].lower(), start, position + 1, tuple(attributes), closing,
        closed=content[position - 1 : position] == b"/", templated=templated,
    )  # fmt: skip
    if closing or whole.name not in RAW or (whole.closed and whole.name != b"script"):
        return whole
    ending = re.compile(rb"</" + re.escape(whole.name) + rb"[\s/>]", re.IGNORECASE).search(content, whole.end)
    inside = whole.end, ending.start() if ending else len(content)
    return Tag(whole.name, start, whole.end, whole.attributes, templated=templated, inside=inside)


def _attribute(content: bytes, start: int) -> Attribute | None:
    """The attribute that begins here; None where its quotes have no end."""
    name = _IN_TAG.match(content, start)
    assert name, "a sign of a name begins it"
    label = name[0].lower()
    equals = _EQUALS.match(content, name.end())
    if not equals:
        return Attribute(label, None, start, name.end())
    position = equals.end()
    quote = content[position : position + 1]
    if quote in _IN_QUOTES:
        end = _quoted(content, position + 1, quote)
        return None if end is None else Attribute(label, content[position + 1 : end], start, end + 1, quote)
    end = _braced(content, position) if quote == b"{" and content[position + 1 : position + 2] not in b"{%#" else None
    end = _bare(content, position) if end is None else end
    return Attribute(label, content[position:end], start, end)


def _quoted(content: bytes, position: int, quote: bytes) -> int | None:
    while found := _IN_QUOTES[quote].search(content, position):
        if found[0] == quote:
            return found.start()
        position = template_end(content, found.start()) or found.end()
    return None


def _braced(content: bytes, position: int) -> int | None:
    """The end of JSX's `{…}`."""
    depth = 0
    for found in re.compile(rb"[{}]").finditer(content, position, position + MOST_TEMPLATE):
        depth += 1 if found[0] == b"{" else -1
        if not depth:
            return found.end()
        if depth > MOST_BRACES:
            return None
    return None


def _bare(content: bytes, position: int) -> int:
    while _BARE.match(content, position):
        position = template_end(content, position) or position + 1
    return position
