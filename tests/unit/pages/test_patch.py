"""Patches that git and patch apply, byte for byte, and patches that people edited."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from captune.pages.patch import Edit, edited, page_patch, patched, read_patch

TOOLS = {"git": ["git", "apply", "x.patch"], "patch": ["patch", "-s", "-p1", "-i", "x.patch"]}
PAGES = {
    "plain.md": b"a\nb ![](x)\nc\n",
    "no end.md": b"a\n![](x)",
    "sub/crlf \xc3\xa4.html": b"\xef\xbb\xbfa\r\n![](x)\r\nb\n\r\n![](x)",
    'q"uote.md': b"![](x) ![](x)\nlast",
    "latin.html": b"\xe9\xe9\n![](x)\n" + b"line\n" * 9 + b"![](x)\n\xe9",
    "one line.html": b"![](x)" * 3,
    "dashes.md": b"-- a\n++ b\n![](x)\n--- c\n+++ d\n",
}


def edits_of(content: bytes) -> list[Edit]:
    places = [place for place in range(len(content)) if content.startswith(b"![", place)]
    return [Edit(place + 2, place + 2, b"text %d" % place) for place in places]


def whole_patch() -> bytes:
    return b"".join(page_patch(name.decode(), page, edits_of(page)) for name, page in encoded().items())


def encoded() -> dict[bytes, bytes]:
    return {name.encode("latin-1") if "\xc3" in name else name.encode(): page for name, page in PAGES.items()}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_apply_it_and_change_nothing_else(tmp_path: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")
    for name, page in encoded().items():
        (tmp_path / name.decode()).parent.mkdir(exist_ok=True)
        (tmp_path / name.decode()).write_bytes(page)
    (tmp_path / "x.patch").write_bytes(whole_patch())
    subprocess.run(TOOLS[tool], cwd=tmp_path, check=True, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    for name, page in encoded().items():
        assert (tmp_path / name.decode()).read_bytes() == edited(page, edits_of(page))


def test_a_patch_is_read_back_and_applied_once() -> None:
    hunks = read_patch(whole_patch(), "x.patch")
    assert list(hunks) == [name.decode() for name in encoded()]
    for name, page in encoded().items():
        after = edited(page, edits_of(page))
        assert patched(page, hunks[name.decode()]) == after
        assert patched(after, hunks[name.decode()]) == after


def test_pages_of_many_shapes_come_out_as_edited() -> None:
    draw = random.Random(1)
    for _ in range(300):
        page = b"".join(draw.choice((b"![](x)", b"\n", b"\r\n", b"text ", b"- a\n", b"")) for _ in range(40))
        edits = [edit for edit in edits_of(page) if draw.random() < 0.5]
        if edits:
            (hunks,) = read_patch(page_patch("a.md", page, edits), "p").values()
            assert patched(page, hunks) == edited(page, edits), page


def test_an_edited_patch_and_lines_that_moved() -> None:
    page = b"1\n2\n3\n4\n![](x)\n5\n6\n7\n"
    patch = page_patch("a.md", page, edits_of(page)).replace(b"text 8", b"a person's words")
    (hunks,) = read_patch(patch.replace(b"\n 2\n", b"\n 2\n"), "p").values()
    assert patched(b"new\n\n" + page, hunks) == b"new\n\n" + page.replace(b"![]", b"![a person's words]")
    assert patched(page.replace(b"![](x)", b"![](y)"), hunks) is None
    assert patched(page.replace(b"4", b"changed"), hunks) is None


def test_a_change_of_two_same_places_that_was_made_is_not_made_at_the_other() -> None:
    part = b"a\nb\nc\n![](x)\nd\ne\nf\n"
    page = part + b"-\n" * 9 + part
    (hunks,) = read_patch(page_patch("a.md", page, edits_of(page)[:1]), "p").values()
    once = patched(page, hunks)
    assert once is not None
    assert patched(once, hunks) == once


@pytest.mark.parametrize(
    ("patch", "line"),
    [
        (b"--- a/x.md\n+++ b/x.md\n@@ -1,2 +1,2 @@\n-a\n+b\n", 6),
        (b"--- a/x.md\n+++ b/x.md\n@@ -1,1 +1,1 @@\n-a\n-b\n+c\n", 5),
        (b"@@ -1 +1 @@\n-a\n+b\n", 1),
        (b"--- a/x.md\n+++ b/x.md\n@@ what @@\n", 3),
    ],
)
def test_what_is_wrong_in_a_patch_has_its_line(patch: bytes, line: int) -> None:
    with pytest.raises(CaptuneError, match=f"p, line {line}:"):
        read_patch(patch, "p")
    with pytest.raises(CaptuneError, match="no changes"):
        read_patch(b"nothing\n", "p")
