"""An output format of another package, in two files: a module, and the entry point that names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sources import write

MODULE = '''
"""Captions as Markdown."""
from captune.captions.writers.writer import TextFormatWriter


class MarkdownWriter(TextFormatWriter):
    """A line `- image: caption` for each image."""

    suffix = "md"

    def row(self, row):
        return f"- {row.image}: {row.captions[0].text if row.captions else row.error}\\n"
'''
USED = """
import sys
from captune.captions.writers import CaptionRow, check_existing, open_writer
from captune.core.records import Caption
out = sys.argv[1]
check_existing("markdown", out)
with open_writer("markdown", out) as writer:
    writer.write(CaptionRow("a.jpg", (Caption("a dog", 0.5),), "ok", None, "m"))
    writer.write(CaptionRow("b.jpg", (), "error", "not an image", "m"))
"""


def test_an_output_format_of_another_package_in_two_files(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site / "captune_md.py", MODULE)
    names = "[captune.writers]\nmarkdown = captune_md:MarkdownWriter\n"
    write(site / "captune_md-1.0.dist-info" / "entry_points.txt", names)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)

    done = run("-c", USED, str(tmp_path / "captions"))
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "captions" / "captions.md").read_text(encoding="utf-8")
    assert written == "- a.jpg: a dog\n- b.jpg: not an image\n"
    refused = run("-m", "captune", "caption", "a.jpg", "--format", "markdwn")
    assert refused.returncode == 2
    assert "markdown" in refused.stderr
