"""`captune alt`: from pages without texts to a patch, to changed pages, and nothing more to do."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import captune
from captune.api.alt import caption_files
from captune.cli.main import run
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.progress import SILENT
from captune.core.records import Caption
from stand_in import Asked, Reply, StandIn, said, stand_in

PAGES = {
    "docs/index.md": b"---\r\ntitle: Home\r\n---\r\n# Dogs\r\n\r\n![](img/a.png) and ![](img/none.png)\r\n\r\n"
    b"![image](img/b.png)",
    "docs/cats.html": b"\xef\xbb\xbf<title>Cats</title>\n<img src='img/a.png' class=x>\n"
    b"<a href='/x'><img src='img/b.png'></a>\n<img src='img/b.png' alt=''>\n<img src='img/broken.png'>\n",
    "docs/latin.html": "<meta charset=latin1><p>Ça</p>\n<img src='/img/b.png'>\n".encode("latin-1"),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs" / "img").mkdir(parents=True)
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n")
    for name, page in PAGES.items():
        (tmp_path / name).write_bytes(page)
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "docs" / "img" / f"{name}.png")
    (tmp_path / "docs" / "img" / "broken.png").write_bytes(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def colour(asked: Asked, number: int) -> Reply:
    red, _, blue = asked.image.convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    return said("An image of a red square." if red > blue else "A blue “square” & more")


def alt(server: StandIn, **options: Any) -> Any:
    return captune.alt("docs", model=server.name, sight_check=False, **options)


WRITTEN = {
    "docs/index.md": PAGES["docs/index.md"].replace(b"![](img/a.png)", b"![A red square.](img/a.png)"),
    "docs/cats.html": PAGES["docs/cats.html"].replace(b"a.png' ", b'a.png\' alt="A red square." '),
    "docs/latin.html": PAGES["docs/latin.html"].replace(b"b.png'", b'b.png\' alt="A blue \x93square\x94 &amp; more"'),
}


def pages(site: Path) -> dict[str, bytes]:
    return {name: (site / name).read_bytes() for name in PAGES}


def test_a_patch_that_git_applies_and_nothing_more_to_do(site: Path) -> None:
    with stand_in(colour) as server:
        report = alt(server, patch="x.patch")
        assert pages(site) == PAGES
        subprocess.run(["git", "apply", "x.patch"], check=True)
        assert pages(site) == WRITTEN
        again = alt(server)
    assert (report.pages, report.images) == (3, {"decorative": 1, "missing": 6, "suspicious": 1})
    reasons = {(row.page, row.image): row.reason for row in report.rows if not row.proposed}
    broken = reasons.pop(("docs/cats.html", "img/broken.png"))
    assert "PNG" in broken or "image" in broken
    assert reasons == {
        ("docs/cats.html", "img/b.png"): "functional",
        ("docs/index.md", "img/none.png"): "not found",
        ("docs/index.md", "img/b.png"): "",
    }
    assert report.remaining == again.remaining == 3
    assert again.patch == b""


def test_each_image_is_captioned_once_in_each_context(site: Path) -> None:
    (site / "docs" / "twice.md").write_text("![](img/a.png)\n\n---\n\n![](img/a.png)\n" + "# End\n")
    (site / "docs" / "again.md").write_text("# End\n\n![](img/a.png)\n\n![](img/a.png)\n")
    with stand_in(colour) as server:
        alt(server)
        prompts = [asked.prompt for asked in server.asked]
    assert len(prompts) == len(set(prompts)) == 5
    first = next(prompt for prompt in prompts if "Title of the page: Home" in prompt)
    assert first.endswith("Heading above the image: Dogs\nText beside the image: and")
    assert "at most 125 characters" in first


def test_written_pages_keep_their_permissions_and_a_changed_one_stays(site: Path) -> None:
    (site / "docs" / "cats.html").chmod(0o640)

    def meanwhile(asked: Asked, number: int) -> Reply:
        (site / "docs" / "index.md").write_bytes(b"by a person")
        return colour(asked, number)

    with stand_in(meanwhile) as server:
        report = alt(server, write=True)
    assert pages(site) == {**WRITTEN, "docs/index.md": b"by a person"}
    assert report.changed == ("docs/cats.html", "docs/latin.html")
    assert report.unwritten == {"docs/index.md": "it was changed meanwhile"}
    assert (site / "docs" / "cats.html").stat().st_mode & 0o777 == 0o640


def test_an_edited_patch_is_applied_and_never_overwritten(site: Path) -> None:
    patch = site / "x.patch"
    with stand_in(colour) as server:
        alt(server, patch=patch)
        patch.write_bytes(patch.read_bytes().replace(b"[A red square.]", b"[A person's words]"))
        with pytest.raises(UsageError, match="may have been edited"):
            alt(server, patch=patch)
    (site / "docs" / "cats.html").write_bytes(b"by a person")
    report = captune.alt("docs", apply=patch)
    assert report.changed == ("docs/index.md", "docs/latin.html")
    assert report.unwritten == {"docs/cats.html": "a change does not fit it"}
    assert (site / "docs" / "index.md").read_bytes() == WRITTEN["docs/index.md"].replace(
        b"A red square.", b"A person's words"
    )
    assert captune.alt("docs", apply=patch).changed == ()
    patch.write_bytes(patch.read_bytes().replace(b"docs/latin.html", b"../latin.html"))
    with pytest.raises(CaptuneError, match="no page of docs"):
        captune.alt("docs", apply=patch)


@pytest.mark.parametrize(
    ("answer", "flag"),
    [
        ("Sure! Here is a caption: a dog", "chat"),
        ("I'm sorry, I cannot describe this.", "refusal"),
        ("a dog and a dog and a dog", "repeats"),
    ],
)
def test_captions_with_flags_are_for_review(site: Path, answer: str, flag: str) -> None:
    with stand_in(lambda asked, number: said(answer)) as server:
        report = alt(server)
        assert report.patch == b""
        assert {tuple(row.flags) for row in report.rows if row.text} == {(flag,)}
        assert report.remaining == 6
        assert alt(server, write_flagged=True).patch != b""


def test_doubtful_captions_and_those_in_another_language_are_for_review(site: Path) -> None:
    (site / "mkdocs.yml").write_text("theme:\n  language: de\n")
    logprobs = {"content": [{"token": "a", "logprob": -3.0}]}

    def unsure(asked: Asked, number: int) -> Reply:
        reply = said("a dog that runs across the beach with two kids")
        reply.body["choices"][0]["logprobs"] = logprobs
        assert "Language of the text: de" in asked.prompt
        return reply

    with stand_in(unsure) as server:
        flags = {tuple(sorted(row.flags)) for row in alt(server).rows if row.text}
        assert flags == {("language", "unsure")}


def test_suspicious_texts_and_functional_images_on_request(site: Path) -> None:
    with stand_in(colour) as server:
        report = alt(server, replace_suspicious=True, functional=True, write=True, prompt="Say it: {stem}.")
        functional = [asked.prompt for asked in server.asked if "The link leads to: /x" in asked.prompt]
    assert report.remaining == 2
    assert b"\r\n![A blue \xe2\x80\x9csquare\xe2\x80\x9d &amp; more](img/b.png)" in pages(site)["docs/index.md"]
    assert len(functional) == 1
    assert functional[0].startswith("Say it: b.\n")


class Spent:
    """A captioner that ends after so many captions."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.options = resolve("caption").values
        self.model = SimpleNamespace(codec=SimpleNamespace(answers=False))

    def stream(self, items: Any, **options: Any) -> Iterator[Any]:
        for number, (key, _) in enumerate(items):
            if number == self.count:
                raise CaptuneError("spent")
            yield key, [Caption("a dog", 0.9)]


def test_a_budget_that_is_spent_keeps_what_came() -> None:
    keys = [("a.png", ""), ("b.png", ""), ("a.png", ""), ("c.png", "")]
    found = caption_files(Spent(1), keys, SILENT)  # type: ignore[arg-type]
    assert {key[0]: str(each) for key, each in found.items() if isinstance(each, CaptuneError)} == {
        "b.png": "spent", "c.png": "spent",
    }  # fmt: skip
    assert found["a.png", ""] == Caption("a dog", 0.9)
    with pytest.raises(CaptuneError, match="spent"):
        caption_files(Spent(0), keys, SILENT)  # type: ignore[arg-type]


def test_the_command(site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["alt", "docs", "--check", "--json"]) == 1
    checked = json.loads(capsys.readouterr().out)
    assert (checked["remaining"], checked["images"]["missing"]) == (6, 6)
    monkeypatch.setenv("CAPTUNE_SIGHT_CHECK", "false")
    with stand_in(colour) as server:
        monkeypatch.chdir(site / "docs" / "img")
        assert run(["alt", f"{site}/docs", "--model", server.name, "--patch", "y.patch"]) == 3  # broken.png
        commands = capsys.readouterr().err.partition("Next:\n")[2].splitlines()
        subprocess.run([*shlex.split(commands[0]), "--check"], check=True)
        monkeypatch.chdir(site)
        assert run(["alt", "docs", "--model", server.name, "--html", "r.html"]) == 3
        printed = capsys.readouterr()
        assert "A red square." in printed.out
        assert "3 texts in captune-alt.patch" in printed.err
        assert "git apply captune-alt.patch" in printed.err
    assert (site / "r.html").read_text().count('src="data:image/jpeg') == 5
    assert run(["alt", "docs", "--apply", "captune-alt.patch"]) == 0
    assert pages(site) == WRITTEN
    assert run(["alt", "docs", "--write", "--check"]) == 2
    for page in ("docs/index.md", "docs/cats.html"):
        (site / page).unlink()
    assert run(["alt", "docs", "--check"]) == 0
