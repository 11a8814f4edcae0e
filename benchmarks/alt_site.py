"""Sites of 200 pages through `captune alt`: nothing but the texts changes, whoever applies the patch.

    python benchmarks/alt_site.py [--pages 200] [--keep FOLDER]

Half of the pages are a MkDocs site, half a Hugo-like one with templates in HTML; images are drawn, the texts come from
a stand-in for a server and hold every sign that HTML and Markdown mind. The patch is applied four ways (`git apply`,
`patch -p1`, `--apply`, `--write`), which have to leave the same bytes. Taking the texts out again has to give the pages
as they were. MkDocs builds its site before and after: exactly the images of the patch have got their texts, and all
else is the same. A second run has nothing to do.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

import captune
from captune.api.alt import AltRow
from captune.pages.alternative import in_attribute, in_markdown

TEXT = 'A "drawn" square [no. {number}] & a line | 3 < 4, `code`, {{{{ x }}}} and _*more*_ ñ'
ALT = re.compile(r' alt="[^"]*"')
WAYS = ("git apply", "patch -p1", "--apply", "--write")
MARKDOWN = (
    "Text with ![](IMAGE) in it, and `![](not.png)`.\n",
    "![](IMAGE){ width=40 }\n",
    "| a | b |\n|---|---|\n| ![](IMAGE) | x |\n",
    "- one\n\n    ![](IMAGE)\n\n- two\n",
    "!!! note\n\n    ![](IMAGE)\n",
    "![][pic]\n\n[pic]: IMAGE 'Title'\n",
    '<figure markdown="span">\n  ![](IMAGE)\n  <figcaption>Beside</figcaption>\n</figure>\n',
    '<p align="center"><img src="IMAGE" width=40></p>\n',
    "[![](IMAGE)](https://example.org)\n",
    "```html\n<img src='IMAGE'>\n```\n",
    "![A person's words](IMAGE)\n",
    '<img src="IMAGE" alt="">\n',
    "![](https://example.org/far.png)\n",
    "![image](IMAGE)\n",
    "<!-- ![](IMAGE) -->\n",
)
HTML = (
    "<p>Ünï <img src='IMAGE' class=\"a > b\"></p>",
    "<IMG SRC=IMAGE WIDTH=3>",
    '<img data-src="IMAGE" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">',
    '<picture><source srcset="IMAGE 2x"><img src="{{ . }}"></picture>',
    '{{ with .Params.x }}<img src="IMAGE" {{ if . }}alt="{{ . }}"{{ end }}>{{ end }}',
    "<a href='/'><img src='IMAGE'></a>",
    "<script>document.write('<img src=IMAGE>')</script>",
    "<figure><img\n  src='IMAGE'\n><figcaption>Beside</figcaption></figure>",
    '<img src="IMAGE" alt="A person\'s words" />',
)
HUGO = ('{{< figure src="IMAGE" title="T" >}}\n', "![](IMAGE)\n", '{{< figure src="IMAGE" alt="" >}}\n')


def draw_site(folder: Path, pages: int) -> None:
    """Both sites in a folder, the same for the same number."""
    draw = random.Random(7)
    for place in ("mk/docs/img", "hugo/static/img"):
        (folder / place).mkdir(parents=True)
        for number in range(pages // 4):
            image = Image.new("RGB", (48, 48), (number % 256, number // 256, 9 + number % 7 * 30))
            image.save(folder / place / f"im age{number}.png")
    (folder / "mk" / "mkdocs.yml").write_text(
        "site_name: Drawn\ntheme: {name: mkdocs}\nmarkdown_extensions: [tables, attr_list, md_in_html, admonition]\n"
    )
    (folder / "hugo" / "hugo.toml").write_text('title = "Drawn"\n')
    for number in range(pages):
        image = [f"img/im%20age{draw.randrange(pages // 4)}.png" for _ in range(9)]
        if number % 2:
            parts, root, end = draw.sample(MARKDOWN, 5), "", ("\n", "\r\n")[number % 3 == 0]
            text = f"# Page {number}\n\n" + "\n".join(parts)
            path = folder / "mk" / "docs" / f"page{number}.md"
        elif number % 4:
            parts, root, end = draw.sample(HUGO, 2), "/", "\n"
            text = f'---\ntitle: "Page {number}"\nimage: img/x.png\n---\n' + "\n".join(parts)
            path = folder / "hugo" / "content" / f"page{number}.md"
        else:
            parts, root, end = draw.sample(HTML, 4), "/", ("\n", "\r\n")[number % 3 == 0]
            charset = ("utf-8", "latin1")[number % 5 == 0]
            text = f"<html><head><meta charset={charset}><title>{number}</title></head>\n" + "\n".join(parts)
            path = folder / "hugo" / "layouts" / f"page{number}.html"
        for each in image:
            text = text.replace("IMAGE", root + each, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        encoding = "latin-1" if "charset=latin1" in text else ("utf-8", "utf-8-sig")[number % 7 == 0]
        path.write_bytes(text.replace("\n", end).rstrip().encode(encoding) + (b"", b"\n")[number % 2])


class Answers(BaseHTTPRequestHandler):
    """A server that numbers its texts."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for each answer
    count = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Answers.count += 1
        choice = {"message": {"content": TEXT.format(number=Answers.count)}, "finish_reason": "stop"}
        content = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given: object) -> None:
        """Nothing on the terminal."""


def contents(folder: Path) -> dict[str, bytes]:
    """All pages by their names."""
    files = [path for path in folder.rglob("*") if path.suffix in (".md", ".html")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files)}


def apply(way: str, folder: Path, patches: dict[str, bytes]) -> None:
    """Apply the patches of both sites in a copy of them."""
    for site, patch in patches.items():
        (folder / "x.patch").write_bytes(patch)
        if way == "--apply":
            captune.alt(folder / site, apply=folder / "x.patch")
        else:
            command = [*way.split(), "x.patch"] if way.startswith("git") else [*way.split(), "-s", "-i", "x.patch"]
            where = folder / site
            shutil.copy(folder / "x.patch", where)
            subprocess.run(command, cwd=where, check=True, stderr=subprocess.DEVNULL)
            (where / "x.patch").unlink()


def without(page: bytes, texts: list[str]) -> bytes:
    """A page with the texts of a run taken out again, in whatever form they stand."""
    for text in texts:
        shortcode = text.replace("\\", "\\\\").replace('"', '\\"')
        for form in (f' alt="{in_attribute(text)}"', f' alt="{shortcode}"', in_markdown(text)):
            for encoding in ("utf-8", "cp1252"):
                page = page.replace(form.encode(encoding), b"")
    return page


class Images(HTMLParser):
    """Sources and alternative texts of a built page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str | None]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            values = dict(attrs)
            self.found.append((values.get("src") or "", values.get("alt") or None))

    handle_startendtag = handle_starttag


def built(folder: Path, out: Path) -> dict[str, str]:
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", folder / "mk" / "mkdocs.yml", "-d", out]
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
    return {path.parent.name: path.read_text("utf-8") for path in out.rglob("page*/index.html")}


def check_built(before: dict[str, str], after: dict[str, str], rows: list[AltRow]) -> int:
    """Compare pages that MkDocs built; returns how many images have got their text."""
    count = 0
    for name, page in after.items():
        texts = [row.text for row in rows if row.proposed and Path(row.page).stem == name]
        old, new = Images(before[name]).found, Images(page).found
        assert [source for source, _ in old] == [source for source, _ in new], name
        gained = [text for (_, was), (_, text) in zip(old, new, strict=True) if was != text]
        assert gained == texts, (name, gained, texts)
        assert ALT.sub("", page) == ALT.sub("", before[name]), name
        count += len(gained)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="Folder for the site and its patches, to look at.")
    chosen = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model = f"openai:m@http://127.0.0.1:{server.server_port}/v1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_site(folder / "before", chosen.pages)
        before = contents(folder / "before")
        started = time.perf_counter()
        checked = [captune.alt(folder / "before" / site, check=True) for site in ("mk", "hugo")]
        print(f"check: {time.perf_counter() - started:.2f} s, {sum(each.remaining for each in checked)} without a text")
        started = time.perf_counter()
        reports = {
            site: captune.alt(folder / "before" / site, model=model, sight_check=False) for site in ("mk", "hugo")
        }
        seconds = time.perf_counter() - started
        rows = [row for report in reports.values() for row in report.rows]
        proposed = [row for row in rows if row.proposed]
        print(f"{len(before)} pages, {len(rows)} images listed, {len(proposed)} texts from {Answers.count} requests")
        print(f"captune alt: {seconds:.2f} s")
        patches = {site: report.patch for site, report in reports.items()}
        results = {}
        for way in WAYS:
            shutil.copytree(folder / "before", folder / way)
            if way == "--write":
                Answers.count = 0
                for site in ("mk", "hugo"):
                    captune.alt(folder / way / site, model=model, sight_check=False, write=True, concurrency=1)
                results[way] = contents(folder / way)
                continue
            apply(way, folder / way, patches)
            results[way] = contents(folder / way)
        assert results["git apply"] == results["patch -p1"] == results["--apply"]
        numbers = re.compile(rb"no\. \d+")
        assert {k: numbers.sub(b"", v) for k, v in results["--write"].items()} == {
            k: numbers.sub(b"", v) for k, v in results["git apply"].items()
        }
        texts = [row.text or "" for row in proposed]
        assert (
            {name: without(page, texts) for name, page in results["git apply"].items()}
            == {name: without(page, texts) for name, page in before.items()}
            == before
        )
        again = [captune.alt(folder / "git apply" / site, model=model, sight_check=False) for site in ("mk", "hugo")]
        assert not any(report.patch for report in again)
        assert sum(report.remaining for report in again) == sum(report.remaining for report in reports.values())
        gained = check_built(
            built(folder / "before", folder / "site-before"), built(folder / "git apply", folder / "site-after"),
            list(reports["mk"].rows),
        )  # fmt: skip
        print(f"bytes beside the texts are as before; {gained} images of MkDocs' pages have their texts")
        if chosen.keep:
            shutil.copytree(folder / "before", chosen.keep)
            for site, patch in patches.items():
                (chosen.keep / f"{site}.patch").write_bytes(patch)
    server.shutdown()


if __name__ == "__main__":
    main()
