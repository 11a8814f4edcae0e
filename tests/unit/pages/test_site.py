"""The pages of a site, and the files that addresses mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from captune.pages.page import PageError, read_page
from captune.pages.site import Site

FILES = (
    "hugo.toml", "content/post/a.md", "content/post/b/index.md", "content/post/b/in.png", "content/post/a/own.png",
    "static/img/x y.png", "static/img/ü.png", "static/img/d.svg", "assets/c.png", "public/index.html", "themes/t.html",
    ".hidden/a.md", "node_modules/a.md", "static/img/q?.png",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text('languageCode = "de-DE"\n')
    (tmp_path / "out.png").write_text("x")
    return tmp_path / "site"


def test_pages_are_neither_built_nor_hidden_nor_excluded(folder: Path) -> None:
    def pages(**options: tuple[str, ...]) -> list[str]:
        return [path.relative_to(folder).as_posix() for path in Site(folder, **options).pages()]

    assert pages() == ["content/post/a.md", "content/post/b/index.md", "themes/t.html"]
    assert pages(exclude=("themes", "*/b/*")) == ["content/post/a.md"]
    assert Site(folder / "content").language == "de-DE"
    with pytest.raises(CaptuneError, match="There is no folder"):
        Site(folder / "nothing")


@pytest.mark.parametrize(
    ("page", "address", "found"),
    [
        ("content/post/b/index.md", "in.png", "content/post/b/in.png"),
        ("content/post/a.md", "own.png", "content/post/a/own.png"),
        ("content/post/a.md", "../post/b/in.png", "content/post/b/in.png"),
        ("content/post/a.md", "../b/in.png", "content/post/b/in.png"),
        ("content/post/a.md", "../../../img/x y.png", "static/img/x y.png"),
        ("content/post/a.md", "/img/x%20y.png", "static/img/x y.png"),
        ("content/post/a.md", "/img/x y.png?v=2#top", "static/img/x y.png"),
        ("content/post/a.md", "/img/%C3%BC.png", "static/img/ü.png"),
        ("content/post/a.md", "/img/u\u0308.png", "static/img/ü.png"),
        ("content/post/a.md", "/img/q%3F.png", "static/img/q?.png"),
        ("content/post/a.md", "{{ site.baseurl }}/img/x y.png", "static/img/x y.png"),
        ("content/post/a.md", "{{ 'img/x y.png' | relative_url }}", "static/img/x y.png"),
        ("content/post/a.md", "img/x y.png", "static/img/x y.png"),
        ("content/post/b/index.md", "{require('./in.png').default}", "content/post/b/in.png"),
        ("content/post/a.md", "@site/static/img/x y.png", "static/img/x y.png"),
        ("content/post/a.md", "{picture}", "template"),
        ("content/post/a.md", "/c.png", "assets/c.png"),
        ("content/post/a.md", "/img/d.svg", "svg"),
        ("content/post/a.md", "no.png", "not found"),
        ("content/post/a.md", "../../../out.png", "outside"),
        ("content/post/a.md", "https://x.org/a.png", "remote"),
        ("content/post/a.md", "//x.org/a.png", "remote"),
        ("content/post/a.md", "data:image/png;base64,x", "data"),
        ("content/post/a.md", "{{ page.image }}", "template"),
        ("content/post/a.md", "", "no address"),
    ],
)
def test_what_an_address_means(folder: Path, page: str, address: str, found: str) -> None:
    location = Site(folder / "content").locate(folder / page, (address,) if address else ())
    where = location.reason if location.file is None else location.file.resolve().relative_to(folder).as_posix()
    assert where == found


def test_a_link_out_of_the_site_is_outside(folder: Path) -> None:
    (folder / "content" / "link.png").symlink_to(folder.parent / "out.png")
    assert Site(folder).locate(folder / "content" / "a.md", ("link.png",)).reason == "outside"


def test_the_base_of_a_page_and_a_named_root(folder: Path) -> None:
    page = folder / "content" / "x.html"
    assert Site(folder).locate(page, ("x y.png",), base="/img/").file == folder / "static/img/x y.png"
    assert Site(folder / "content", root=str(folder / "static/img")).locate(page, ("/x y.png",)).file is not None


@pytest.mark.parametrize(
    ("content", "encoding", "sure"),
    [
        ("é".encode(), "utf-8", True),
        ("\ufeffé".encode(), "utf-8", True),
        ("é".encode("latin-1"), "cp1252", False),
        (b"no word of it", "utf-8", False),
        (b"<meta charset=utf-8>", "utf-8", True),
        (b'<meta charset="iso-8859-1">\xe9', "cp1252", True),
        (b'<meta charset="iso-8859-1">', "cp1252", True),
        ('<meta charset="iso-8859-1">é'.encode(), "utf-8", False),
        (b"<meta http-equiv=x content='text/html; charset=koi8-r'>\xc1", "koi8-r", True),
    ],
)
def test_the_encoding_of_a_page(tmp_path: Path, content: bytes, encoding: str, sure: bool) -> None:
    (tmp_path / "a.html").write_bytes(content)
    page = read_page(tmp_path / "a.html", "a.html")
    assert (page.encoding, page.sure) == (encoding, sure)


def test_markdown_about_encodings_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text('`<meta charset="utf-7">`')
    assert read_page(tmp_path / "a.md", "a.md", markdown=True).encoding == "utf-8"


@pytest.mark.parametrize("content", ["é".encode("utf-16"), b"a\0b", b'<meta charset="utf-7">'])
def test_pages_that_are_not_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.html").write_bytes(content)
    with pytest.raises(PageError):
        read_page(tmp_path / "a.html", "a.html")
