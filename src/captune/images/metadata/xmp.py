"""XMP packets: alt text and keywords put in, every other property kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from captune.core.files.limits import MAX_DEPTH
from captune.images.metadata import UnsupportedImage

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XML = "http://www.w3.org/XML/1998/namespace"
XMLNS = "http://www.w3.org/2000/xmlns/"
# Prefix, namespace and name of the properties that hold the text, each with a variant for every language.
PROPERTIES = (
    ("Iptc4xmpCore", "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/", "AltTextAccessibility"),
    ("dc", "http://purl.org/dc/elements/1.1/", "description"),
)
# A text that some programs write as well: brought in step where it is there.
_COPY = ("tiff", "http://ns.adobe.com/tiff/1.0/", "ImageDescription")
_SUBJECT = ("dc", "http://purl.org/dc/elements/1.1/", "subject")
# Properties of captune's mark of a caption.
NOTED = ("model", "digest", "prompt", "date", "version", "translator", "ownWords")
# captune's mark of its keywords, and what stands between them.
_KEYWORDS, _BETWEEN = "keywords", ", "
CAPTUNE = "urn:captune:xmp:1.0/"
_EMPTY = (
    f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
    '<rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'
)
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '\n<?xpacket end="w"?>'
# What XML 1.0 cannot hold, not even escaped.
_IMPOSSIBLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXT = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("\r"): "&#13;"}
_ATTRIBUTE = {**_TEXT, ord('"'): "&quot;", ord("\n"): "&#10;", ord("\t"): "&#9;"}


@dataclass(frozen=True)
class Mark:
    """Which part of a description captune wrote: its `caption`, joined with a person's `words` where there were any.

    `noted` has the values of `NOTED` that are known: which model wrote it, from what, and when.
    """

    caption: str
    words: str = ""
    noted: Mapping[str, str] = field(default_factory=dict)


def read_texts(packet: bytes) -> tuple[list[str], Mark | None]:
    """The descriptions in a packet, as readers show them, and captune's mark; raises as `with_caption`."""
    nodes = [
        node for node in _parsed(packet).getElementsByTagNameNS(RDF, "Description") if isinstance(node, minidom.Element)
    ]
    texts = [_text(nodes, namespace, name) for _, namespace, name in (*PROPERTIES, _COPY)]
    caption = _text(nodes, CAPTUNE, "caption")
    noted = {name: value for name in NOTED if (value := _text(nodes, CAPTUNE, name))}
    mark = None if caption is None else Mark(caption, _text(nodes, CAPTUNE, "words") or "", noted)
    return [text for text in texts if text is not None and text.strip()], mark


def with_caption(packet: bytes | None, text: str, mark: Mark | None = None) -> bytes:
    """A packet (None: a new one) with `text` as the default language of both properties, in UTF-8, and captune's mark.

    Other languages of them and all other properties stay. Raises `UnsupportedImage` for a packet that is not whole.
    """
    document, nodes = _opened(packet)
    copy = (_COPY,) if _text(nodes, *_COPY[1:]) is not None else ()
    for prefix, namespace, name in (*PROPERTIES, *copy):
        _set(nodes, prefix, namespace, name, _IMPOSSIBLE.sub("\ufffd", text))
    noted = {} if mark is None else mark.noted
    marks = {name: getattr(mark, name, "") for name in ("caption", "words")}
    _sign(nodes, marks | {name: noted.get(name, "") for name in NOTED})
    return _packed(document)


def read_keywords(packet: bytes) -> tuple[list[str], list[str]]:
    """The keywords (dc:subject) in a packet, and those that captune's mark names; raises as `with_caption`."""
    document = _parsed(packet)
    nodes = [node for node in document.getElementsByTagNameNS(RDF, "Description") if isinstance(node, minidom.Element)]
    mark = _text(nodes, CAPTUNE, _KEYWORDS) or ""
    return _listed(nodes, *_SUBJECT[1:]), [keyword for keyword in mark.split(_BETWEEN) if keyword]


def with_keywords(packet: bytes | None, keywords: Sequence[str], own: Sequence[str]) -> bytes:
    """A packet (None: a new one) with these keywords, of which a mark names captune's `own`; raises as `with_caption`.

    All other properties stay.
    """
    document, nodes = _opened(packet)
    wanted = [_IMPOSSIBLE.sub("\ufffd", keyword) for keyword in keywords]
    if _listed(nodes, *_SUBJECT[1:]) != wanted:
        _set_list(nodes, wanted)
    _sign(nodes, {_KEYWORDS: _BETWEEN.join(own)})
    return _packed(document)


def _opened(packet: bytes | None) -> tuple[minidom.Document, list[minidom.Element]]:
    """A packet, and its nodes with properties."""
    document = _parsed(packet)
    found = document.getElementsByTagNameNS(RDF, "RDF")
    if not found:
        raise UnsupportedImage("its XMP packet has no RDF in it")
    rdf = found[0]
    nodes = [node for node in _elements(rdf) if _is(node, RDF, "Description")]
    if not nodes:
        nodes = [_child(rdf, f"{rdf.prefix}:Description" if rdf.prefix else "Description", RDF)]
        nodes[0].setAttributeNS(RDF, f"{rdf.prefix}:about" if rdf.prefix else "about", "")
    return document, nodes


def _packed(document: minidom.Document) -> bytes:
    root = document.documentElement
    assert root is not None
    return (_BEGIN + "".join(_written(root)) + _END).encode("utf-8")


@dataclass(frozen=True)
class Properties:
    """The properties of a packet, by namespace and name."""

    nodes: list[minidom.Element]  # rdf:Description and all below

    @classmethod
    def of(cls, packet: bytes) -> Properties:
        """Raises `UnsupportedImage` for a packet that is damaged."""
        found = _parsed(packet).getElementsByTagNameNS(RDF, "Description")
        return cls([node for node in found if isinstance(node, minidom.Element)])

    def text(self, namespace: str, name: str) -> str:
        """A property as readers show it: its default language, else its first value; "" where there is none."""
        return _text(self.nodes, namespace, name) or ""

    def values(self, namespace: str, name: str) -> list[str]:
        """All values of a property: the items of its list, or the one that it has."""
        texts = [node.getAttributeNS(namespace, name) for node in self.nodes if node.hasAttributeNS(namespace, name)]
        for holder in self.holders(namespace, name):
            items = [one for one in holder.getElementsByTagNameNS(RDF, "li") if isinstance(one, minidom.Element)]
            texts += [_content(one) for one in items or [holder]]
        return texts

    def holders(self, namespace: str, name: str) -> list[minidom.Element]:
        """The elements of a property of the packet itself, not of a structure in it."""
        return [one for node in self.nodes for one in _elements(node) if _is(one, namespace, name)]

    def structures(self, namespace: str, name: str, *fields: tuple[str, str]) -> list[tuple[str, ...]]:
        """The named fields ("" where one lacks) of each structure in the list of a property."""
        items = [
            one
            for holder in self.holders(namespace, name)
            for one in holder.getElementsByTagNameNS(RDF, "li")
            if isinstance(one, minidom.Element)
        ]
        return [tuple(_field(one, *field) for field in fields) for one in items]


def _field(item: minidom.Element, namespace: str, name: str) -> str:
    """A field of a structure, however it is written: in the item, or in an rdf:Description in it."""
    nodes = [item, *(one for one in _elements(item) if _is(one, RDF, "Description"))]
    return _text(nodes, namespace, name) or ""


def _parsed(packet: bytes | None) -> minidom.Document:
    if packet is None:
        return minidom.parseString(_EMPTY)
    try:
        text = packet.decode("utf-8-sig").strip("\0 \t\r\n")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # never part of XMP; could blow up in the parser
            raise UnsupportedImage("its XMP packet declares entities")
        document = minidom.parseString(text)
    except (UnicodeDecodeError, ExpatError) as error:
        raise UnsupportedImage(f"its XMP packet is damaged ({error})") from None
    level: list[minidom.Node] = [document]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node.childNodes]
    if level:
        raise UnsupportedImage("its XMP packet is nested too deeply")
    return document


def _set(nodes: list[minidom.Element], prefix: str, namespace: str, name: str, text: str) -> None:
    """Make `text` the default of a property, wherever and however it stands."""
    choices = _container(nodes, prefix, namespace, name, ("Alt",))
    default = [one for one in _elements(choices) if one.getAttributeNS(XML, "lang").lower() == "x-default"]
    item = default[0] if default else _item(choices, first=True)
    for one in default[1:]:
        choices.removeChild(one)
    _empty(item)
    item.setAttributeNS(XML, "xml:lang", "x-default")
    item.appendChild(_document(item).createTextNode(text))


def _set_list(nodes: list[minidom.Element], values: Sequence[str]) -> None:
    """Make these the keywords; those that stand keep what is said of them."""
    bag = _container(nodes, *_SUBJECT, ("Bag", "Seq", "Alt"))
    standing = {_content(one).strip(): one for one in _elements(bag)}
    for one in _elements(bag):
        bag.removeChild(one)
    for value in values:
        if value in standing:
            bag.appendChild(standing[value])
        else:
            _item(bag).appendChild(_document(bag).createTextNode(value))


def _container(
    nodes: list[minidom.Element], prefix: str, namespace: str, name: str, kinds: tuple[str, ...]
) -> minidom.Element:
    """The list of a property, of one of these kinds; a new one of the first, where it stands in another way."""
    for node in nodes:
        if node.hasAttributeNS(namespace, name):
            node.removeAttributeNS(namespace, name)
    present = [(node, one) for node in nodes for one in _elements(node) if _is(one, namespace, name)]
    for node, one in present[1:]:
        node.removeChild(one)
    if present:
        holder = present[0][1]
    else:
        holder = _child(nodes[0], f"{prefix}:{name}", namespace)
        holder.setAttributeNS(XMLNS, f"xmlns:{prefix}", namespace)
    found = next((one for one in _elements(holder) if any(_is(one, RDF, kind) for kind in kinds)), None)
    if found is not None:
        return found
    _empty(holder)
    for attribute in [key for key in holder.attributes.keysNS() if key[0] == RDF]:  # such as parseType
        holder.removeAttributeNS(*attribute)
    made = _child(holder, f"rdf:{kinds[0]}", RDF)
    made.setAttributeNS(XMLNS, "xmlns:rdf", RDF)
    return made


def _item(holder: minidom.Element, *, first: bool = False) -> minidom.Element:
    return _child(holder, f"{holder.prefix}:li" if holder.prefix else "li", RDF, first=first)


def _empty(node: minidom.Element) -> None:
    while node.firstChild is not None:
        node.removeChild(node.firstChild)


def _sign(nodes: list[minidom.Element], marks: Mapping[str, str]) -> None:
    """Put captune's marks in the place of earlier ones; an empty one is none."""
    for name, value in marks.items():
        for node in nodes:
            if node.hasAttributeNS(CAPTUNE, name):
                node.removeAttributeNS(CAPTUNE, name)
            for one in [one for one in _elements(node) if _is(one, CAPTUNE, name)]:
                node.removeChild(one)
        if value:
            nodes[0].setAttributeNS(XMLNS, "xmlns:captune", CAPTUNE)
            nodes[0].setAttributeNS(CAPTUNE, f"captune:{name}", _IMPOSSIBLE.sub("\ufffd", value))


def _text(nodes: list[minidom.Element], namespace: str, name: str) -> str | None:
    """A property as it is shown: its default language, else the first, else what stands in it."""
    for node in nodes:
        if node.hasAttributeNS(namespace, name):
            return node.getAttributeNS(namespace, name)
        for holder in (one for one in _elements(node) if _is(one, namespace, name)):
            items = [one for one in holder.getElementsByTagNameNS(RDF, "li") if isinstance(one, minidom.Element)]
            default = [one for one in items if one.getAttributeNS(XML, "lang").lower() == "x-default"]
            return _content((default or items or [holder])[0])
    return None


def _listed(nodes: list[minidom.Element], namespace: str, name: str) -> list[str]:
    """The values of a property that is a list, however it stands; each without spaces around it."""
    values: list[str] = []
    for node in nodes:
        values += [node.getAttributeNS(namespace, name)] if node.hasAttributeNS(namespace, name) else []
        for holder in (one for one in _elements(node) if _is(one, namespace, name)):
            items = [one for one in holder.getElementsByTagNameNS(RDF, "li") if isinstance(one, minidom.Element)]
            values += [_content(one) for one in (items or [holder])]
    return [value.strip() for value in values if value.strip()]


def _content(node: minidom.Element) -> str:
    return "".join(
        child.data if isinstance(child, minidom.Text) else _content(child)
        for child in node.childNodes
        if isinstance(child, (minidom.Text, minidom.Element))
    )


def _child(parent: minidom.Element, name: str, namespace: str, *, first: bool = False) -> minidom.Element:
    made = _document(parent).createElementNS(namespace, name)
    parent.insertBefore(made, parent.firstChild if first else None)
    return made


def _document(node: minidom.Element) -> minidom.Document:
    assert node.ownerDocument is not None
    return node.ownerDocument


def _elements(node: minidom.Element) -> list[minidom.Element]:
    return [child for child in node.childNodes if isinstance(child, minidom.Element)]


def _is(node: minidom.Element, namespace: str, name: str) -> bool:
    return node.namespaceURI == namespace and node.localName == name


def _written(node: minidom.Node) -> Iterator[str]:
    """XML as it was: minidom's own writer loses line breaks in attributes."""
    if isinstance(node, minidom.Element):
        # Namespaces first, as the parser gives them: what is written again has the same bytes.
        named = sorted(node.attributes.items(), key=lambda pair: not pair[0].startswith("xmlns"))
        attributes = "".join(f' {name}="{value.translate(_ATTRIBUTE)}"' for name, value in named)
        if not node.childNodes:
            yield f"<{node.tagName}{attributes}/>"
            return
        yield f"<{node.tagName}{attributes}>"
        for child in node.childNodes:
            yield from _written(child)
        yield f"</{node.tagName}>"
    elif isinstance(node, minidom.Text):  # with CDATA, which means the same
        yield node.data.translate(_TEXT)
    elif isinstance(node, minidom.Comment):
        yield f"<!--{node.data}-->"
    elif isinstance(node, minidom.ProcessingInstruction):
        yield f"<?{node.target} {node.data}?>"
