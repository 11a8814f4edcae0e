"""Alternative texts: which are none, what becomes of a caption, and how a text stands in HTML and Markdown."""

import re
from html import escape
from urllib.parse import unquote, urlsplit

from captune.captions.wording import shortened
from captune.core.text import without_controls
from captune.pages.page import Page, Slot

# Texts that say of no image what is in it.
_WORDS = """
    image images img picture pictures pic photo photos photograph graphic graphics icon figure fig diagram screenshot
    thumbnail placeholder spacer untitled alt alttext caption description null none undefined todo tbd banner hero
    bild bilder foto grafik unbenannt imagen imagenes immagine afbeelding imagem sanstitre
"""
_NO_TEXTS = frozenset(_WORDS.split())
_FILE = re.compile(r"[^\s/\\]+\.(?:jpe?g|png|gif|webp|avif|svg|bmp|tiff?|heic|ico)", re.IGNORECASE)
# What cameras, screens and programs call their files.
_CAMERA = re.compile(
    r"(?:img|image|dsc[fn]?|dscn|pict?|photo|foto|bild|p|pxl|mvimg|gopr|dji|screenshot|screen[ _-]?shot|bildschirmfoto"
    r"|untitled|unnamed|figure|fig|unknown|download|scan)[ _-]*(?:at[ _-]*)?[(]?\d(?:[\d _.,:()-]|at|[ap]m)*",
    re.IGNORECASE,
)
_HASH = re.compile(r"[0-9a-f]{12,}|[\d\W_]+", re.IGNORECASE)
# "An image of a dog": who reads alternative texts knows that they are of images.
_IMAGE_OF = re.compile(
    r"(?:(?:this|the) (?:image|picture|photo|photograph)(?: here)? (?:shows|depicts|features|displays|is of|is)\s+"
    r"|(?:(?:an?|the|this is an?) )?(?:close[- ]up )?(?:image|picture|photo|photograph) (?:of|showing)\s+)",
    re.IGNORECASE,
)
# Signs of tables, strikethrough and templates; not every Markdown takes a backslash before them.
_REFERENCES = {ord(sign): f"&#{ord(sign)};" for sign in "|~{}"}
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»"}


def is_no_text(alt: str, addresses: tuple[str, ...]) -> bool:
    """Whether an alternative text is none: blank, a file name, a word such as "image", a number."""
    text = " ".join(alt.split())
    if not text:
        return True
    plain = "".join(sign for sign in text.casefold() if sign.isalnum())
    if not plain or plain in _NO_TEXTS:
        return True
    if any(pattern.fullmatch(text) for pattern in (_FILE, _CAMERA, _HASH)):
        return True
    names = [unquote(urlsplit(address).path).rpartition("/")[2] for address in addresses if ":" not in address[:6]]
    stems = {name.rpartition(".")[0] for name in names}
    # "sunset" of sunset.jpg may be a person's word; "sunset-2_final" is none.
    return text in names or (text in stems and not text.isalpha() and " " not in text)


def alternative_text(caption: str, most: int) -> str:
    """A caption as an alternative text: one line without "an image of" before it, at most so many characters."""
    text = without_controls(caption).strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    text = _IMAGE_OF.sub("", text, count=1) if _IMAGE_OF.match(text) else text
    return shortened(text[:1].upper() + text[1:], most)


def written(text: str, slot: Slot, page: Page) -> bytes:
    """The bytes that put a text into its slot on a page; letters that its encoding may not have become references."""
    if slot.syntax == "markdown":
        source = in_markdown(text)
    elif slot.syntax == "shortcode":
        source = ' alt="' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        source = f'{" " if slot.start == slot.end else ""}alt="{in_attribute(text)}"'
    return source.encode(page.encoding if page.sure else "ascii", "xmlcharrefreplace")


def in_attribute(text: str) -> str:
    """A text between double quotes; templates find nothing of theirs in it."""
    return escape(text, quote=True).replace("&#x27;", "'").replace("{", "&#123;").replace("}", "&#125;")


def in_markdown(text: str) -> str:
    """A text between the brackets of `![](…)`, also in a table."""
    text = re.sub(r"([\\\[\]*_`])", r"\\\1", escape(text, quote=False))
    return text.translate(_REFERENCES)
