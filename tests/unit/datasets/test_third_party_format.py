"""A dataset format of another package, in two files: a module, and the entry point that names it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sources import jpeg, write

MODULE = '''
"""Captions in captions.ini: dog.jpg = A dog runs."""
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row

DESCRIPTION = "captions.ini: `dog.jpg = A dog runs.`"


def files(source):
    return find_caption_files(source, ("captions.ini",), lambda path: path.suffix == ".ini")


def sniff(source, images=None):
    return "captions.ini names images" if files(source) else None


def rows(source, problems, side="references"):
    for path in files(source):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            name, _, caption = line.partition(" = ")
            yield Row(path, number, name, [caption])
'''
USED = """
import json, sys
from captune import prepare
from captune.evaluation.pairing import read_results
source, out = sys.argv[1:]
made = prepare(source, out, on_bad="skip", split="50/50")
found = read_results(source, "references")
print(json.dumps([made.format, sorted(made.splits), [str(p.where) for p in made.problems], found.format, found.texts]))
"""


def test_a_format_of_another_package_in_two_files(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write(site / "captune_ini.py", MODULE)
    write(site / "captune_ini-1.0.dist-info" / "entry_points.txt", "[captune.formats]\nini = captune_ini\n")
    source = tmp_path / "source"
    for number in (1, 2):
        write(source / f"{number}.jpg", jpeg(number))
    write(source / "captions.ini", "1.jpg = A dog runs.\n2.jpg = A cat.\n = Nobody.\n")
    done = subprocess.run(
        [sys.executable, "-c", USED, str(source), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        "ini", ["train", "val"], ["captions.ini, line 3"], "ini", {"1.jpg": ["A dog runs."], "2.jpg": ["A cat."]}
    ]  # fmt: skip
