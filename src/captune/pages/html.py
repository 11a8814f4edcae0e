"""The images of HTML: `<img>`, `<input type=image>`, `<area>`, `<svg role=img>`, backgrounds of the style."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import unescape

from captune.pages.alternative import is_no_text
from captune.pages.elements import VOID, Tag, Text, tokens
from captune.pages.page import Context, Page, PageImage, Slot

_LINKS = (b"a", b"button")
_HEADINGS = tuple(f"h{level}".encode() for level in range(1, 7))
_BLOCKS = frozenset(
    (*_HEADINGS, *b"p div li ul ol dl dt dd td th tr table section article aside main nav header footer".split(),
     *b"body blockquote figure figcaption form fieldset details summary title".split())
)  # fmt: skip
_LAZY = (b"data-src", b"data-original", b"data-lazy-src", b"data-lazy", b"data-srcset", b"data-lazy-srcset")
_ALT = (b"alt", b":alt", b"v-bind:alt", b"[alt]", b"[attr.alt]", b"x-bind:alt", b"bind:alt")
_NAMES = (b"aria-label", b"aria-labelledby", b":aria-label", b"title")
_BACKGROUND = re.compile(r"background(?:-image)?\s*:[^;]*?url\(\s*(['\"]?)(.*?)\1\s*\)", re.IGNORECASE)
_SOURCE = re.compile(r"[\s,]*([^\s,]\S*)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)[wx]")
# Letters of the text beside an image that are of use to whoever writes a text for it.
MOST_NEARBY = 400


@dataclass
class _Block:
    """A run of text between the borders of blocks."""

    name: bytes
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@dataclass
class Link:
    """A link or a button: bytes `start` to `end` are inside of it.

    `labelled`: it has a name of its own, such as `aria-label`; `named`: that, or text.
    """

    start: int
    target: str
    labelled: bool = False
    named: bool = False
    end: int = -1


@dataclass
class _Figure:
    captions: list[_Block] = field(default_factory=list)


@dataclass
class _Open:
    name: bytes
    hidden: bool = False
    link: Link | None = None
    figure: _Figure | None = None
    sources: list[str] | None = None  # of a <picture>


@dataclass
class _Placed:
    """An image with what is known of its surroundings once the whole page was read."""

    image: PageImage
    link: Link | None
    figure: _Figure | None
    block: int


class HtmlImages:
    """The images of HTML in `content`, which is the page's own bytes with or without parts that are no HTML.

    `images` have contexts, `links` are those that have an end.
    """

    def __init__(self, page: Page, content: bytes, *, markdown: bool = False) -> None:
        self._page, self._content = page, content
        self._open: list[_Open] = []
        self._names: Counter[bytes] = Counter()  # of open elements; lists of those that count for images follow
        self._open_links: list[Link] = []
        self._figures: list[_Figure] = []
        self._pictures: list[list[str]] = []
        self._hidden = 0
        self._blocks = [_Block(b"")]
        self._placed: list[_Placed] = []
        self.links: list[Link] = []
        self.title = self.language = self.base = ""
        for token in tokens(content, comments=not markdown):
            if isinstance(token, Text):
                self._add_text(token)
            elif token.closing:
                self._close(token.name, token.start)
            else:
                self._start(token)
        self._close(b"", len(content))
        self.images = self._with_contexts()

    def _value(self, tag: Tag, name: bytes) -> str | None:
        return tag.value(name, self._page.encoding)

    def _add_text(self, token: Text) -> None:
        text = (
            "…"
            if token.template
            else unescape(self._content[token.start : token.end].decode(self._page.encoding, "replace"))
        )
        if text.strip():
            self._name_links()
            if not token.template:
                self._blocks[-1].texts.append(text)

    def _name_links(self) -> None:
        for link in self._open_links:
            link.named = True

    def _start(self, tag: Tag) -> None:
        name = tag.name
        if name in _LINKS:
            self._close_nested(name, tag.start)
        if name in _BLOCKS:
            self._blocks.append(_Block(name))
        if name == b"html":
            self.language = self._value(tag, b"lang") or ""
        elif name == b"base":
            self.base = self._value(tag, b"href") or self.base
        elif name == b"title" and tag.inside:
            self._title(tag)
        self._find(tag)
        if name in VOID or tag.closed or tag.inside:
            if tag.inside and name == b"pre":
                self._name_links()
            return
        hidden = self._value(tag, b"aria-hidden") == "true"
        element = _Open(name, hidden)
        if name == b"button" or (name == b"a" and tag.get(b"href") is not None):
            target = self._value(tag, b"href") or ""
            named = any((self._value(tag, each) or "").strip() for each in _NAMES)
            element.link = Link(tag.end, target, named, named)
        elif name == b"figure":
            element.figure = _Figure()
        elif name == b"figcaption" and self._figures:
            self._figures[-1].captions.append(self._blocks[-1])
        elif name == b"picture":
            element.sources = []
        self._push(element)

    def _push(self, element: _Open) -> None:
        self._open.append(element)
        self._names[element.name] += 1
        self._hidden += element.hidden
        if element.link is not None:
            self._open_links.append(element.link)
        if element.figure is not None:
            self._figures.append(element.figure)
        if element.sources is not None:
            self._pictures.append(element.sources)

    def _pop(self, position: int) -> _Open:
        element = self._open.pop()
        self._names[element.name] -= 1
        self._hidden -= element.hidden
        if element.link is not None:
            element.link.end = position
            self.links.append(self._open_links.pop())
        if element.figure is not None:
            self._figures.pop()
        if element.sources is not None:
            self._pictures.pop()
        return element

    def _title(self, tag: Tag) -> None:
        assert tag.inside
        text = unescape(self._page.text(*tag.inside))
        if not self._names[b"svg"]:
            self.title = self.title or " ".join(text.split())

    def _close_nested(self, name: bytes, position: int) -> None:
        """A link in a link ends the one before."""
        if self._names[name]:
            self._close(name, position)

    def _close(self, name: bytes, position: int) -> None:
        """End the innermost open element of a name and what is open in it; of no name: all."""
        if name in _BLOCKS:
            self._blocks.append(_Block(b""))
        if name and not self._names[name]:
            return
        while self._open and self._pop(position).name != name:
            pass

    def _find(self, tag: Tag) -> None:
        image = next((found for found in self._images_of(tag)), None)
        if image is None:
            return
        if image.alt and image.state == "described":
            self._name_links()
        link = self._open_links[-1] if self._open_links else None
        figure = self._figures[-1] if self._figures else None
        self._placed.append(_Placed(image, link, figure, len(self._blocks) - 1))

    def _images_of(self, tag: Tag) -> Iterator[PageImage]:
        name = tag.name
        if name == b"source":
            for label in (b"srcset", b"data-srcset"):
                if self._pictures:
                    self._pictures[-1] += _candidates(self._value(tag, label) or "")
        elif name == b"img":
            yield self._image(tag, "img", self._addresses(tag))
        elif name == b"input" and (self._value(tag, b"type") or "").strip().lower() == "image":
            yield self._image(tag, "input", self._addresses(tag))
        elif name == b"area" and tag.get(b"href") is not None:
            yield self._image(tag, "area", ())
        elif name == b"svg" and (self._value(tag, b"role") or "").strip() == "img":
            titled = re.match(rb"\s*<title[\s>]", self._content[tag.end : tag.end + 200], re.IGNORECASE)
            yield self._image(tag, "svg", (), named=bool(titled))
        else:
            background = _BACKGROUND.search(self._value(tag, b"style") or "")
            if background:
                yield self._background(tag, background[2])

    def _addresses(self, tag: Tag) -> tuple[str, ...]:
        """Those of lazy loading first: its `src` is a placeholder; then the source, then sizes and other formats."""
        found: list[str] = []
        for name in (*_LAZY, b"src", b"srcset"):
            value = (self._value(tag, name) or "").strip()
            found += _candidates(value) if name.endswith(b"set") else [value] if value else []
        found += self._pictures[-1] if self._pictures else []
        return tuple(dict.fromkeys(found))

    def _image(self, tag: Tag, kind: str, addresses: tuple[str, ...], *, named: bool = False) -> PageImage:
        alt = next((found for name in _ALT if (found := tag.get(name)) is not None), None)
        role = (self._value(tag, b"role") or "").strip().lower()
        hidden = self._value(tag, b"aria-hidden") == "true" or self._hidden > 0
        text = None if alt is None else unescape((alt.value or b"").decode(self._page.encoding, "replace"))
        named = named or any((self._value(tag, each) or "").strip() for each in _NAMES)
        if role in ("presentation", "none") or hidden or (text == "" and not named):
            return PageImage(kind, tag.start, addresses, "decorative", text)
        if named or (alt is not None and alt.name != b"alt") or (text and ("{" in text or "<" in text)):
            return PageImage(kind, tag.start, addresses, "described", text or "…")
        if text is not None and not is_no_text(text, addresses):
            return PageImage(kind, tag.start, addresses, "described", text)
        state = "missing" if text is None else "suspicious"
        if kind in ("area", "svg"):
            return PageImage(kind, tag.start, addresses, state, text, reason=kind)
        if tag.templated and alt is None:
            return PageImage(kind, tag.start, addresses, state, text, reason="template")
        source = next((each for each in tag.attributes if each.name in (b"src", b"data-src") and each.quote), None)
        place = source.end if source else tag.start + 1 + len(tag.name)
        slot = Slot(alt.start, alt.end, "attribute") if alt is not None else Slot(place, place, "attribute")
        return PageImage(kind, tag.start, addresses, state, text, functional=kind == "input", slot=slot)

    def _background(self, tag: Tag, address: str) -> PageImage:
        named = any((self._value(tag, name) or "").strip() for name in _NAMES)
        as_image = (self._value(tag, b"role") or "").strip() == "img"
        state = "described" if named else "missing" if as_image else "listed"
        return PageImage("background", tag.start, (address,), state, reason="background")

    def _with_contexts(self) -> list[PageImage]:
        texts = [block.text for block in self._blocks]
        first = next(
            (text for block, text in zip(self._blocks, texts, strict=True) if block.name == b"h1" and text), ""
        )
        heading, headings = "", []
        for block, text in zip(self._blocks, texts, strict=True):
            heading = text if text and block.name in _HEADINGS else heading
            headings.append(heading)
        found = []
        for placed in self._placed:
            captions = [block.text for block in placed.figure.captions] if placed.figure else []
            context = Context(
                self.title or first, headings[placed.block], " ".join(captions),
                self._nearby(placed.block, texts, captions), placed.link.target if placed.link else "",
                self.language or None,
            )  # fmt: skip
            alone = placed.link is not None and not placed.link.named
            functional = placed.image.functional or alone
            found.append(replace(placed.image, context=context, functional=functional))
        return found

    def _nearby(self, number: int, texts: list[str], captions: list[str]) -> str:
        """The text of an image's own block, else of the next or the last one that is no heading."""
        after, before = range(number + 1, len(texts)), range(number - 1, -1, -1)
        for places in ((number,), after, before):
            nearest = next((place for place in places if texts[place] and texts[place] not in captions), None)
            if nearest is not None and self._blocks[nearest].name not in _HEADINGS:
                return texts[nearest][:MOST_NEARBY]
        return ""


def _candidates(srcset: str) -> list[str]:
    """The addresses of a `srcset`, the largest first."""
    found = []
    position = 0
    while each := _SOURCE.match(srcset, position):
        address, size, position = each[1], "", each.end()
        if address.endswith(","):
            address = address.rstrip(",")
        else:
            size, _, _ = srcset[position:].partition(",")
            position += len(size)
        number = _SIZE.fullmatch(size.strip())
        found.append((float(number[1]) if number else 1.0, address))
    return [address for _, address in sorted(found, key=lambda each: -each[0])]
