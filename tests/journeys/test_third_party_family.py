"""A model family in another package: installed by pip, found by its entry point, used by every verb."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import copies

FAMILY = '''
"""A BLIP that shouts."""
from captune.models.backbone import Checkpoint, Task
from captune.models.blip import Blip


class Shout(Blip):
    """A BLIP of another package."""

    family = "shout"
    sizes = ("tiny",)
    checkpoints = (Checkpoint("org/shouter", 1_000, "cc0-1.0"),)
    task = Task("image-to-text", "Shouting", "A shouter", 'captune.Captioner.load("{repo}")("photo.jpg").text.upper()')

    @classmethod
    def transformers_code(cls, repo, prompt, search, *, encoder=False):
        return f"print('{repo}'.upper())"
'''
DIST = "captune_shout-1.0.dist-info"
FILES = {
    "captune_shout.py": FAMILY,
    f"{DIST}/METADATA": "Metadata-Version: 2.1\nName: captune-shout\nVersion: 1.0\n",
    f"{DIST}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{DIST}/entry_points.txt": "[captune.families]\nshout = captune_shout:Shout\n",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the package installed by pip, beside captune's own."""
    folder = tmp_path_factory.mktemp("shout")
    wheel = folder / "captune_shout-1.0-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(text.encode())}")
        archive.writestr(f"{DIST}/RECORD", "\n".join([*record, f"{DIST}/RECORD,,"]) + "\n")
    site = folder / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(site),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    return {**os.environ, "PYTHONPATH": str(site)}


# Command lines, one after the other; between what they print stands an empty line.
TYPED = """
import json, sys
from captune.cli.main import main
for sys.argv[1:] in json.loads(sys.argv[1]):
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    print()
"""


def test_it_is_listed_trained_and_captions(environment: dict[str, str], tiny_data: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    train = [
        "train", "--data", str(tiny_data), "--model", "new:shout-tiny", "--out", run, "--max-steps", "2",
        "--batch-size", "6", "--validation-images", "0", "--trackers", "none", "--quiet",
    ]  # fmt: skip
    image = str(next((tiny_data.parent / "Images").iterdir()))
    push = ["push", run, "mine/shouter", "--dry-run", "--out", str(tmp_path / "hub"), "--quiet"]
    lines = [["models", "--json"], train, push, ["caption", image, "--model", run, "--format", "jsonl"]]
    done = subprocess.run(
        [sys.executable, "-c", TYPED, json.dumps(lines)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    models, *_, rows = done.stdout.strip().split("\n\n")
    listed = {row["name"]: row for row in json.loads(models)}
    assert listed["shout"]["new"] == ["new:shout-tiny"]
    assert listed["shout"]["origin"] == "captune_shout"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["family"] == "shout"
    assert json.loads(rows)["status"] == "ok"
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "A shouter (shout), trained from scratch" in card
    assert "print('mine/shouter'.upper())" in card
    assert 'captune.Captioner.load("mine/shouter")("photo.jpg").text.upper()' in card


def test_without_the_package_its_runs_say_what_is_missing(warm: str, tiny_data: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    done = copies.run(warm, "train", "--data", str(tiny_data), "--model", "new:shout-tiny", "--out", run)
    assert done.returncode == 2
    assert "There is no model family 'shout" in done.stderr


OLD_FAMILY = """
from captune.models.backbone import Backbone


class Old(Backbone):
    family = "old"
    sizes = ("tiny",)

    def encode(self, pixel_values):
        return self.seen_by(self.model.vision, pixel_values, lambda: None)

    @property
    def start(self):
        return 0
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (OLD_FAMILY, ["start is bos_token_id now", "seen_by is fused_features now"]),
        ("from captune.models.retina import Retina\n", ["captune.models.retina"]),
    ],
)
def test_a_family_of_an_earlier_captune_names_what_to_change(tmp_path: Path, text: str, named: list[str]) -> None:
    (tmp_path / "captune_old.py").write_text(text)
    about = tmp_path / "captune_old-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: captune-old\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[captune.families]\nold = captune_old:Old\n")
    done = subprocess.run(
        [sys.executable, "-c", "from captune.models import FAMILIES; FAMILIES['old']"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "CaptuneError" in done.stderr
    for words in [*named, "captune.models.backbone.Backbone"]:
        assert words in done.stderr
