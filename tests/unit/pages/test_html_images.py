"""Which images of HTML have no alternative text, and where it goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.pages.alternative import written
from captune.pages.html import HtmlImages
from captune.pages.page import Page, PageImage
from captune.pages.patch import Edit, edited


def images(source: str) -> list[PageImage]:
    return HtmlImages(page(source), source.encode()).images


def page(source: str) -> Page:
    return Page(Path("a.html"), "a.html", source.encode(), "utf-8")


def with_texts(source: str, text: str = "A dog") -> str:
    """The page with a text in each slot."""
    slots = [image.slot for image in images(source) if image.slot and not image.functional]
    return edited(source.encode(), [Edit(s.start, s.end, written(text, s, page(source))) for s in slots]).decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<img src="a.png">', '<img src="a.png" alt="A dog">'),
        ("<IMG SRC='a.png' width=3>", "<IMG SRC='a.png' alt=\"A dog\" width=3>"),
        ("<img src=a.png/>", '<img alt="A dog" src=a.png/>'),
        ("<img\n  src='a.png'\n  class=\"x\"\n/>", '<img\n  src=\'a.png\' alt="A dog"\n  class="x"\n/>'),
        ('<img alt="IMG_1.jpg" src="b.jpg">', '<img alt="A dog" src="b.jpg">'),
        ("<img src='b.jpg' ALT=image>", "<img src='b.jpg' alt=\"A dog\">"),
        ('<img title="" src="{{ url("a.png") }}">', '<img title="" src="{{ url("a.png") }}" alt="A dog">'),
        ("<img src='<?= $a > 1 ? \"x'y\" : 2 ?>'>", '<img src=\'<?= $a > 1 ? "x\'y" : 2 ?>\' alt="A dog">'),
        ('<img data-src="a.png" src="data:,">', '<img data-src="a.png" alt="A dog" src="data:,">'),
        ('<noscript><img src="a.png"></noscript>', '<noscript><img src="a.png" alt="A dog"></noscript>'),
    ],
)
def test_where_a_text_goes(before: str, after: str) -> None:
    assert with_texts(before) == after
    assert with_texts(after) == after


@pytest.mark.parametrize(
    "source",
    [
        '<img src="a.png" alt="">',
        '<img src="a.png" alt>',
        '<img src="a.png" role="presentation">',
        '<img src="a.png" role=none>',
        '<img src="a.png" aria-hidden="true">',
        '<div aria-hidden="true"><span><img src="a.png"></span></div>',
    ],
)
def test_decorative_images_are_left_alone(source: str) -> None:
    (image,) = images(source)
    assert (image.state, image.slot) == ("decorative", None)


@pytest.mark.parametrize(
    "source",
    [
        '<img src="a.png" alt="A cat">',
        '<img src="a.png" aria-label="A cat">',
        '<img src="a.png" title="A cat">',
        '<img src="a.png" alt="{{ text }}">',
        "<img src='a.png' alt='<?= $x ?>'>",
        '<img src="a.png" :alt="text">',
        "<img src={a} alt={`${x} > ${y}`} />",
        '<img src="a.png" {% if x %}alt="{{ x }}"{% endif %}>',
        '<svg role="img" aria-label="A cat"></svg>',
        '<svg role="img"><title>A cat</title></svg>',
        '<area href="/x" alt="Shop">',
        '<div role="img" aria-label="A cat" style="background: url(a.png)"></div>',
    ],
)
def test_a_persons_texts_are_left_alone(source: str) -> None:
    (image,) = images(source)
    assert (image.state, image.slot) == ("described", None)


@pytest.mark.parametrize(
    "source",
    [
        "<script>x = '<img src=a.png>'</script>",
        "<!-- <img src=a.png> -->",
        "<style>/* <img src=a.png> */</style>",
        "<textarea><img src=a.png></textarea>",
        "<pre><img src=a.png></pre>",
        "<?php echo '<img src=a.png>'; ?>",
        "<% '<img src=a.png>' %>",
        "{# <img src=a.png> #}",
        '<p title="<img src=a.png>">x</p>',
        "a < b, <img src='a.png",
        "<a href='x'>no image</a><area shape=rect>",
    ],
)
def test_what_is_no_image(source: str) -> None:
    assert images(source) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('<map><area href="/x"></map>', "area"),
        ('<svg role="img"><path></svg>', "svg"),
        ('<i role="img" style="background-image:url(\'a.png\')"></i>', "background"),
        ('<img src="a.png" {{ attributes }}>', "template"),
        ("<img {...props} />", "template"),
    ],
)
def test_what_is_only_reported(source: str, reason: str) -> None:
    (image,) = images(source)
    assert (image.state, image.reason, image.slot) == ("missing", reason, None)


def test_a_background_without_a_role_is_listed() -> None:
    (image,) = images("<div style='color: red; background: #fff url( \"b.jpg\" ) no-repeat'>x</div>")
    assert (image.state, image.addresses) == ("listed", ("b.jpg",))


@pytest.mark.parametrize(
    ("source", "functional"),
    [
        ("<a href='x'><img src=a.png></a>", [True]),
        ("<a href='x'> <span><img src=a.png></span>\n</a>", [True]),
        ("<button><img src=a.png></button>", [True]),
        ("<input type=image src=a.png>", [True]),
        ("<a href='x'><img src=a.png> Home</a>", [False]),
        ("<a href='x'>{{ text }}<img src=a.png></a>", [False]),
        ("<a href='x' aria-label='Home'><img src=a.png></a>", [False]),
        ("<a href='x'><img src=a.png><img src=b.png alt='Home'></a>", [False, False]),
        ("<a href='x'><img src=a.png><img src=b.png alt=''></a>", [True, True]),
        ("<a name='x'><img src=a.png></a>", [False]),
        ("<a href='x'><img src=a.png><a href='y'>Text</a>", [True]),
        ("<p><a href='x'>Text</a><img src=a.png></p>", [False]),
    ],
)
def test_images_that_are_all_a_link_holds(source: str, functional: list[bool]) -> None:
    assert [image.functional for image in images(source)] == functional


def test_addresses_of_lazy_loading_and_of_several_sizes() -> None:
    source = (
        '<picture><source srcset="w.webp 1x, w2.webp 2x"><img src="s.jpg?a=1&amp;b=2" data-src=" real.jpg "'
        ' srcset="m,1.jpg 400w, l.jpg 800w"></picture><img src="other.jpg">'
    )
    first, second = images(source)
    assert first.addresses == ("real.jpg", "s.jpg?a=1&b=2", "l.jpg", "m,1.jpg", "w2.webp", "w.webp")
    assert second.addresses == ("other.jpg",)


def test_the_context_of_an_image() -> None:
    source = """<html lang="de"><head><title>Tiere &amp; mehr</title></head><body><h1>Tiere</h1><h2>Hunde</h2>
<p>Ein Absatz mit <b>einem</b> Bild: <img src="a.png"></p>
<figure><img src="b.png"><figcaption>Ein Hund</figcaption></figure><p>Danach.</p>
<a href="/katzen"><img src="c.png"></a></body></html>"""
    inline, figure, link = [image.context for image in images(source)]
    assert (inline.title, inline.heading, inline.language) == ("Tiere & mehr", "Hunde", "de")
    assert inline.nearby == "Ein Absatz mit einem Bild:"
    assert (figure.figure_caption, figure.nearby) == ("Ein Hund", "Danach.")
    assert link.link == "/katzen"


@pytest.mark.parametrize("part", ["<a b={", "<a b='", "<p>", "{{", "<img src='", "<a href=x>", "<!--"])
def test_broken_pages_take_no_time_that_anybody_would_notice(part: str) -> None:
    assert images("<img src=a.png>" + part * 10_000)[0].addresses == ("a.png",)


def test_a_page_of_many_images_in_elements_that_never_end() -> None:
    source = "<h2>H</h2><div><p>Some text <img src=a.png>" * 2_000
    assert {image.context.nearby for image in images(source)} == {"Some text"}
