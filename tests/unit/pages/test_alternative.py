"""Which texts are none, what becomes of a caption, and how texts stand in HTML and Markdown."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest

from captune.pages.alternative import alternative_text, in_attribute, in_markdown, is_no_text, written
from captune.pages.page import Page, Slot


@pytest.mark.parametrize(
    "alt",
    ["image", " Photo. ", "IMG_1234.JPG", "IMG_1234", "DSC00012", "untitled", "Untitled-1",
     "Screenshot 2024-01-02 at 10.30.12", "image001", "a1b2c3d4e5f60718", "12345", "...", " ", "logo-final_2",
     "my pic.png", "Bild 3"],
)  # fmt: skip
def test_texts_that_are_none(alt: str) -> None:
    assert is_no_text(alt, ("img/logo-final_2.png?x=1", "my%20pic.png"))


@pytest.mark.parametrize(
    "alt", ["sunset", "A dog", "Logo of captune", "Image of a dog", "Figure 3: loss", "P. Smith", "IBM"]
)
def test_texts_of_persons(alt: str) -> None:
    assert not is_no_text(alt, ("sunset.jpg",))


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("a photo of a dog", "A dog"),
        ("An image of two cats.", "Two cats."),
        ("This picture shows a  red\ncar", "A red car"),
        ("“the sea”", "The sea"),
        ("images of dogs", "Images of dogs"),
        ("a dog", "A dog"),
        ("", ""),
        ("a dog " * 40, "A dog" + " a dog" * 20),
    ],
)
def test_a_caption_as_an_alternative_text(caption: str, text: str) -> None:
    assert alternative_text(caption, 125) == text


def page(encoding: str, *, sure: bool = True) -> Page:
    return Page(Path("a.html"), "a.html", b"", encoding, sure)


HOSTILE = 'a "b" & <c> [d] | {{ e }} {% f %} *g* _h_ `i` \\j ~k~ é 日'


def test_in_html_a_text_is_read_back_and_no_template_finds_it() -> None:
    source = in_attribute(HOSTILE)
    assert unescape(source) == HOSTILE
    assert not {'"', "<", "{"} & set(source)


def test_in_markdown_a_text_is_read_back() -> None:
    import markdown  # as MkDocs reads it

    for extensions in ([], ["tables"]):
        page = (
            f"| a |\n|---|\n| ![{in_markdown(HOSTILE)}](x.png) |" if extensions else f"![{in_markdown(HOSTILE)}](x.png)"
        )
        html = markdown.markdown(page, extensions=extensions)
        assert f'alt="{HOSTILE}"' == 'alt="' + unescape(html.partition('alt="')[2].partition('" src')[0]) + '"', html


def test_in_a_shortcode_quotes_are_escaped() -> None:
    assert written('a "b" \\', Slot(3, 3, "shortcode"), page("utf-8")) == b' alt="a \\"b\\" \\\\"'


def test_letters_that_the_encoding_has_not_are_references() -> None:
    assert written("é 日", Slot(3, 3, "attribute"), page("cp1252")) == b' alt="\xe9 &#26085;"'
    assert written("é", Slot(3, 3, "attribute"), page("utf-8", sure=False)) == b' alt="&#233;"'
