"""The pages become a site: all of them, with links that lead somewhere, asking no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import captune
from doc_blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        built = site / ("" if page.stem == "index" else page.stem) / "index.html"
        assert "<h1" in built.read_text(encoding="utf-8"), page.name


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    asked = re.compile(r'<(?:script|img|iframe)[^>]* src="(https?:[^"]+)|<link[^>]* href="(https?:[^"]+)"[^>]*>')
    for page in site.rglob("*.html"):
        for found in asked.finditer(page.read_text(encoding="utf-8")):
            assert 'rel="canonical"' in found[0] or 'rel="next"' in found[0] or 'rel="prev"' in found[0], found[0]


def test_every_public_name_is_documented(site: Path) -> None:
    page = (site / "api" / "index.html").read_text(encoding="utf-8")
    homes = {name: target.replace(":", ".") for name, target in captune._TARGETS.items()}
    missing = [name for name in homes if not re.search(rf'id="captune\.[\w.]*\b{name}"|<code>{name}</code>', page)]
    assert missing == []
