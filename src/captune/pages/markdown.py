"""The images of Markdown: `![](…)`, `![][id]`, HTML in it, Hugo's `{{< figure >}}`, images of the front matter."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import unescape

from captune.pages.alternative import is_no_text
from captune.pages.elements import template_end
from captune.pages.html import MOST_NEARBY, HtmlImages, Link
from captune.pages.masking import front_matter, masked, paragraphs
from captune.pages.page import Context, Page, PageImage, Slot

_FRONT_IMAGE = re.compile(
    rb"^[ \t]*(?:-[ \t]+)?(?:[\w-]+[ \t]*[:=][ \t]*)?\[?[ \t]*([\"']?)"
    rb"([^\s\"'\[\]{},]+\.(?:jpe?g|png|gif|webp|avif))\1",
    re.MULTILINE | re.IGNORECASE,
)
_FIELD = r"^{}[ \t]*[:=][ \t]*(['\"]?)(.+?)\1[ \t]*\r?$"
_INLINE = re.compile(rb"\\.|!?\[|\]|\n[ \t>]*\r?\n", re.DOTALL)
_DEFINITION = re.compile(rb"^[ \t>]{0,12}\[([^\]\n^][^\]\n]*)\]:[ \t]*(?:<([^>\n]*)>|(\S+))", re.MULTILINE)
# `](<a b.jpg>)`, `]: <a b.jpg>`: addresses, however much one looks like a tag (`<img/a b.jpg>`).
_POINTED = re.compile(rb"(?<=\])(?:\(\s*|:[ \t]*)<[^<>\n]*>")
_TITLE = re.compile(rb"(?:\s+(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\((?:\\.|[^)\\])*\)))?\s*\)", re.DOTALL)
# What some programs take besides: spaces in an address, and sizes.
_LOOSE = re.compile(
    rb"\s*([^()\n\"<>]*?\.(?:png|jpe?g|gif|webp|avif|svg|bmp|tiff?))(?:[ \t]+\"[^\"\n]*\")?"
    rb"(?:[ \t]+=\d*%?x?\d*%?)?[ \t]*\)",
    re.IGNORECASE,
)
# What may end an address, or hold what does not; one has no more brackets in brackets (CommonMark).
_OF_ADDRESS = re.compile(rb"\\.|[()\s]|\{[{%#]|<[?%]", re.DOTALL)
MOST_BRACKETS = 32
_LABEL = re.compile(rb"[ \t]?\[((?:\\.|[^\]\\])*)\]")
_ATTRIBUTES = re.compile(rb"\{:?[^{}\n]*\}")
_HIDDEN = re.compile(rb"role=[\"']?(?:presentation|none)\b|aria-hidden=[\"']?true|\balt=(?:\"\"|'')", re.IGNORECASE)
_FIGURE = re.compile(rb"\{\{[<%][ \t\r\n]*figure\b(.*?)[>%]\}\}", re.DOTALL)
_PARAMETER = re.compile(rb"([A-Za-z-]+)[ \t]*=[ \t]*(?:\"((?:\\.|[^\"\\])*)\"|`([^`]*)`|([^\s\"`>]+))", re.DOTALL)
_HEADING = re.compile(
    rb"^[ \t>]{0,3}#{1,6}[ \t]+([^\n]+?)[ \t#]*(?:\{[^}\n]*\})?[ \t]*\r?$|^([^\n]+)\n(?:=+|-+)[ \t]*\r?$", re.MULTILINE
)
_NEAR = 2000  # bytes of a paragraph before and behind an image
_MARKUP = (
    (re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])|<[^>]*>|\{\{.*?\}\}|\{%.*?%\}|\{:?[^{}]*\}", re.DOTALL), " "),
    (re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"^[ \t>|:*_-]+$", re.MULTILINE), ""),
    (re.compile(r"^[ \t>]*(?:#{1,6} |[-*+] |\d+[.)] |!!! ?\w*|===|\[[^\]]+\]:.*$)|[*_`|\\]+", re.MULTILINE), ""),
)


@dataclass(frozen=True)
class _Bracket:
    image: bool
    start: int
    inside: int


class MarkdownImages:
    """The images of a page of Markdown, in their order, as `images`."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._text = masked(page.content)
        self._links: list[Link] = []
        self._spans: list[tuple[int, int]] = []  # of images between brackets, and of headings
        front = front_matter(page.content)
        title, language = self._field(front, "title"), self._field(front, "(?:lang|language)")
        headings = [found for found in _HEADING.finditer(self._text) if found[0].split(b"\n")[0].strip()]
        self._headings = [(found.start(), found[1] or found[2]) for found in headings]
        self._spans += [found.span() for found in headings]
        self._paragraphs = list(paragraphs(self._text))
        first = self._plain(self._headings[0][1]) if self._headings else ""
        self._title, self._language = title or first, language or None
        without_addresses = _POINTED.sub(lambda found: b" " * len(found[0]), self._text)
        html = HtmlImages(page, without_addresses, markdown=True)
        found = [*html.images, *self._in_brackets(), *self._figures()]
        self._links += html.links
        body = [self._finished(image) for image in found]
        self.images = [*self._in_front(front), *sorted(body, key=lambda image: image.offset)]

    def _decode(self, raw: bytes) -> str:
        return raw.decode(self._page.encoding, "replace")

    def _field(self, front: bytes, name: str) -> str:
        found = re.search(_FIELD.format(name), self._decode(front), re.MULTILINE | re.IGNORECASE)
        return found[2].strip() if found else ""

    def _plain(self, raw: bytes) -> str:
        text = self._decode(raw[: 2 * _NEAR])
        for pattern, new in _MARKUP:
            text = pattern.sub(new, text)
        return " ".join(unescape(text).split())

    def _in_front(self, front: bytes) -> Iterator[PageImage]:
        for found in _FRONT_IMAGE.finditer(front):
            address = self._decode(found[2])
            yield PageImage("front matter", found.start(2), (address,), "listed", reason="front matter")

    def _in_brackets(self) -> Iterator[PageImage]:
        """Images between brackets; the links around them become links of the page."""
        text = self._text
        definitions = {
            _label(found[1]): found[2] if found[2] is not None else found[3] for found in _DEFINITION.finditer(text)
        }
        stack: list[_Bracket] = []
        position = 0
        while found := _INLINE.search(text, position):
            sign, position = found[0], found.end()
            if sign.startswith(b"\n"):
                stack.clear()
                position -= 1  # the next blank line may begin with this one's end
            elif sign.endswith(b"["):
                stack.append(_Bracket(len(sign) == 2, found.start(), found.end()))
            elif sign == b"]" and stack:
                opening = stack.pop()
                target = _target(text, position, text[opening.inside : found.start()], definitions)
                if target is None:
                    continue
                address, position = target
                if opening.image:
                    self._spans.append((opening.start, position))
                    yield self._image(opening, found.start(), position, address)
                else:
                    self._links.append(Link(opening.inside, self._decode(address), end=found.start()))

    def _image(self, opening: _Bracket, end: int, behind: int, raw: bytes) -> PageImage:
        addresses = (unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", self._decode(raw))),)
        alt = self._decode(self._page.content[opening.inside : end])
        beside = _ATTRIBUTES.match(self._text, behind)
        if beside and _HIDDEN.search(beside[0]):
            return PageImage("markdown", opening.start, addresses, "decorative", alt)
        if (beside and re.search(rb"\balt=", beside[0])) or template_end(self._text, opening.inside):
            return PageImage("markdown", opening.start, addresses, "described", alt)
        if alt.strip() and not is_no_text(re.sub(r"\\(.)", r"\1", alt), addresses):
            return PageImage("markdown", opening.start, addresses, "described", alt)
        slot = Slot(opening.inside, end, "markdown")
        if not alt.strip():
            return PageImage("markdown", opening.start, addresses, "missing", slot=slot)
        # `![id]` and `![id][]` are found by their text: it is the name of the address.
        reference = self._page.content[end + 1 : behind].strip()
        slot_or_none = None if reference in (b"", b"[]") else slot
        return PageImage("markdown", opening.start, addresses, "suspicious", alt, slot=slot_or_none)

    def _figures(self) -> Iterator[PageImage]:
        """Hugo's figures: without an `alt` their caption is it."""
        for found in _FIGURE.finditer(self._text):
            values: dict[str, str] = {}
            ends: dict[str, int] = {}
            for parameter in _PARAMETER.finditer(self._text, found.start(1), found.end(1)):
                name = parameter[1].decode().lower()
                raw = next((each for each in parameter.groups()[1:] if each is not None), b"")
                values.setdefault(name, self._decode(raw))
                ends.setdefault(name, parameter.end())
            if "src" not in values:
                continue
            addresses, alt = (values["src"],), values.get("alt")
            if alt == "":
                state = "decorative"
            elif alt or values.get("caption"):
                state = "suspicious" if alt and is_no_text(alt, addresses) else "described"
            else:
                state = "missing"
            slot = Slot(ends["src"], ends["src"], "shortcode") if state == "missing" else None
            functional = "link" in values and not values.get("title")
            yield PageImage(
                "figure", found.start(), addresses, state, alt, functional=functional, slot=slot,
                context=Context(figure_caption=values.get("title", ""), link=values.get("link", "")),
            )  # fmt: skip

    def _finished(self, image: PageImage) -> PageImage:
        """An image with the context that Markdown gives, and whether it is alone in a link."""
        around = [link for link in self._links if link.start <= image.offset < link.end]
        link = max(around, key=lambda each: each.start, default=None)
        alone = link is not None and not link.labelled and self._is_bare(link)
        at = bisect_right(self._headings, image.offset, key=lambda each: each[0])
        context = replace(
            image.context, title=self._title, heading=self._plain(self._headings[at - 1][1]) if at else "",
            nearby=self._nearby(image.offset), link=link.target if link else image.context.link,
            language=self._language,
        )  # fmt: skip
        return replace(image, context=context, functional=image.functional or alone)

    def _is_bare(self, link: Link) -> bool:
        """Whether there is nothing in a link but images."""
        inside = self._prose(link.start, link.end)
        return not re.sub(rb"<[^>]*>|\{:?[^{}]*\}", b"", inside).strip()

    def _nearby(self, offset: int) -> str:
        """The text of the paragraph that an image stands in, else of the next, else of the last."""
        at = bisect_right(self._paragraphs, offset, key=lambda each: each[0]) - 1
        for number in (at, at + 1, at - 1):
            if 0 <= number < len(self._paragraphs):
                start, end = self._paragraphs[number]
                if number == at and self._text[start:end].lstrip(b" \t>").startswith(b"|"):  # of a table the row
                    start = self._text.rfind(b"\n", start, offset) + 1 or start
                    behind = self._text.find(b"\n", offset, end)
                    end = end if behind < 0 else behind
                # Of a line without end, such as an image in the text itself, a part is enough.
                start, end = max(start, min(offset, end) - _NEAR), min(end, max(offset, start) + _NEAR)
                if text := self._plain(self._prose(start, end)):
                    return text[:MOST_NEARBY]
        return ""

    def _prose(self, start: int, end: int) -> bytes:
        """Bytes of the page with blanks where images between brackets and headings stand."""
        text = bytearray(self._page.content[start:end])
        for first, last in self._spans:
            if start <= first and last <= end:
                text[first - start : last - start] = b" " * (last - first)
        return bytes(text)


def _label(raw: bytes) -> bytes:
    return b" ".join(raw.split()).lower()


def _target(text: bytes, position: int, inside: bytes, definitions: dict[bytes, bytes]) -> tuple[bytes, int] | None:
    """The address that brackets which end here mean, and where it ends; None where they mean none."""
    if text[position : position + 1] == b"(":
        found = _destination(text, position + 1)
        if found is not None:
            return found
    reference = _LABEL.match(text, position)
    if reference:
        address = definitions.get(_label(reference[1] or inside))
        return None if address is None else (address, reference.end())
    address = definitions.get(_label(inside))
    return None if address is None else (address, position)


def _destination(text: bytes, position: int) -> tuple[bytes, int] | None:
    """An address and a title in round brackets, from behind the first."""
    blank = re.compile(rb"\s*").match(text, position)
    start = position = blank.end() if blank else position
    if text[position : position + 1] == b"<":
        end = text.find(b">", position, position + 2000)
        address, position = text[position + 1 : end], end + 1
        if end < 0 or b"\n" in address:
            return None
    else:
        depth = 0
        while sign := _OF_ADDRESS.search(text, position):
            position = sign.start()
            if (template := template_end(text, position)) is not None:
                position = template
                continue
            depth += (sign[0] == b"(") - (sign[0] == b")")
            if depth < 0 or sign[0].isspace():
                break
            if depth > MOST_BRACKETS:
                return None
            position = sign.end()
        else:
            return None
        address = text[start:position]
    title = _TITLE.match(text, position)
    if title:
        return address, title.end()
    loose = _LOOSE.match(text, start)
    return (loose[1], loose.end()) if loose else None
