"""What holds everywhere: floors, lengths, words, and nothing heavy before it is needed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from captune.core.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "accelerate", "datasets", "pandas", "matplotlib", "pyarrow")


def committed(*patterns: str) -> list[Path]:
    """Files that git knows, or all files where this is no checkout."""
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [path for pattern in patterns for path in ROOT.glob(f"**/{pattern}") if ".venv" not in path.parts]


def loaded_by(steps: list[str]) -> dict[str, list[str]]:
    """The heavy packages that each line of code loads, run one after another in a Python of its own."""
    program = f"""
import json, sys
loads, before = {{}}, set()
for step in {steps!r}:
    exec(step)
    if new := {set(HEAVY)!r} & set(sys.modules) - before:
        loads[step] = sorted(new)
        before |= new
print(json.dumps(loads))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    loads: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return loads


def test_imports_go_downwards_only() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_import_captune_is_light() -> None:
    assert loaded_by(["import captune; captune.CaptuneError"]) == {}


def test_a_verb_stays_a_function_beside_the_package_of_its_name() -> None:
    program = """
import captune, captune.export.check, captune.video.video
assert callable(captune.export) and callable(captune.video), (captune.export, captune.video)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_help_is_light() -> None:
    lines = [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)]
    assert loaded_by([f"from captune.cli.main import run; assert run({line!r}) == 0" for line in lines]) == {}


@pytest.mark.parametrize(
    "room", ["core", "decoding", "metrics", "images", "datasets.formats", "captions.writers", "inference.runtime"]
)
def test_rooms_without_torch(room: str) -> None:
    assert not any("torch" in loaded for loaded in loaded_by([f"import captune.{room}"]).values())


@pytest.mark.parametrize("path", committed("*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_at_most_600_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@pytest.mark.parametrize("path", committed("src/*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_has_at_most_60_lines(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {one.name: (one.end_lineno or one.lineno) - one.lineno + 1 for one in functions}
    assert {name: lines for name, lines in lengths.items() if lines > 60} == {}


def test_committed_text_speaks_of_the_project_alone() -> None:
    # Written in pieces, so that this file does not find itself.
    machine = re.compile("|".join(["/" + "work/", "/" + "tmp/", "/" + "root/", "/" + r"home/\w", "/" + "opt/"]))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in committed(
            "*.py", "*.md", "*.toml", "*.txt", "*.yaml", "*.yml", "*.ipynb", "Makefile", ".ci/*", "tools/*"
        )
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if machine.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_without_torch_the_tests_that_import_it_are_skipped() -> None:
    program = """
import pytest, sys
tests = ["tests/conformance/test_pixels.py", "tests/unit/core/test_tables.py"]
code = pytest.main(["-q", "--no-torch", "-p", "no:cacheprovider", *tests])
sys.exit(code or "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "needs torch" in done.stdout
    assert " passed" in done.stdout


def test_no_room_for_odds_and_ends() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "manager", "common"}
    assert not [p for p in committed("src/*.py") if vague & {p.stem, p.parent.name}]


# Words of everyday English that hide what a thing is; names use the field's words (CONTRIBUTING.md, Style).
UNCLEAR = {
    "asked", "said", "seen", "told", "heard", "looked", "kept", "held", "mine", "theirs", "say", "eye", "shelf",
    "manner", "duty", "crew", "riddle", "wish",
}  # fmt: skip
CLEAR = {
    "kept",  # a key in the results of `captune convert` and `captune capfilt`
    "seen",  # a key in what `captune inspect` prints: the part of the image that the model gets
}  # fmt: skip


@pytest.mark.parametrize("path", committed("src/*.py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_names_are_in_the_words_of_the_field(path: Path) -> None:
    with path.open("rb") as file:
        names = {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
    parts = {name: set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", name).lower())) for name in names - CLEAR}
    assert not {name for name, words in parts.items() if words & UNCLEAR}
