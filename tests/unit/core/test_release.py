"""tools/release refuses what should not be released; the workflows name files that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from captune import __version__
from scripts import ROOT, script

ABOUT = f"captune-{__version__}.dist-info/"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def release() -> ModuleType:
    return script("tools/release")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit with a version and a changelog."""
    code = tmp_path / "src" / "captune"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (code / "py.typed").touch()
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2026-01-02\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    who = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *arguments], cwd=folder, check=True, env={**os.environ, **who, **plain})


# What is released


def test_the_version_is_the_codes(release: ModuleType, checkout: Path) -> None:
    assert release.version_of(checkout, None) == "1.2.0"
    assert release.version_of(ROOT, None) == __version__


def test_a_tag_has_to_be_the_version_and_in_the_changelog(release: ModuleType, checkout: Path) -> None:
    with pytest.raises(release.Refused, match=r"The tag is v1\.3\.0, the version .* 1\.2\.0"):
        release.version_of(checkout, "v1.3.0")
    with pytest.raises(release.Refused, match=r"no heading '## \[1\.2\.0\]"):
        release.version_of(checkout, "v1.2.0")
    with (checkout / "CHANGELOG.md").open("a") as file:
        file.write("\n## [1.2.0] - 2026-02-03\n")
    assert release.version_of(checkout, "v1.2.0") == "1.2.0"


def test_a_changelog_that_says_nothing_is_refused(release: ModuleType, checkout: Path) -> None:
    (checkout / "CHANGELOG.md").write_text("## [1.1.0] - 2026-01-02\n")
    with pytest.raises(release.Refused, match=r"says nothing of 1\.2\.0"):
        release.version_of(checkout, None)


def test_a_checkout_that_differs_from_its_commit_is_refused(release: ModuleType, checkout: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", release.clean_tree(checkout))
    (checkout / "new.py").touch()
    with pytest.raises(release.Refused, match=r"\?\? new\.py"):
        release.clean_tree(checkout)


def test_a_folder_with_files_in_it_is_not_released_into(tmp_path: Path) -> None:
    (tmp_path / "captune-0.0.1.tar.gz").touch()
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "release", "--out", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["captune-0.0.1.tar.gz"]


def test_a_failed_command_says_all_it_said(release: ModuleType, tmp_path: Path) -> None:
    program = "import sys; print('first'); print('then', file=sys.stderr); sys.exit(3)"
    with pytest.raises(release.Refused, match=r"ended with 3:\nfirst\n\nthen"):
        release.run([sys.executable, "-c", program], tmp_path)


# What a wheel holds


def wheel(folder: Path, **changes: bytes | None) -> Path:
    """A wheel of two files and its papers, with files changed, added or (None) left out."""
    files: dict[str, bytes | None] = {
        "captune/__init__.py": b"1\n",
        "captune/py.typed": b"",
        **{ABOUT + name: b"x" for name in ("METADATA", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE")},
        **changes,
    }
    path = folder / f"captune-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            if data is not None:
                archive.writestr(name, data)
    return path


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, Path]:
    """The checkout's files by their names in a wheel."""
    found = {"captune/__init__.py": tmp_path / "init", "captune/py.typed": tmp_path / "typed"}
    (tmp_path / "init").write_bytes(b"1\n")
    (tmp_path / "typed").touch()
    return found


def test_a_wheel_of_the_checkouts_files_is_right(
    release: ModuleType, tmp_path: Path, expected: dict[str, Path]
) -> None:
    assert release.check_wheel(wheel(tmp_path), __version__, expected) == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"captune/py.typed": None}, "is missing: captune/py.typed"),
        ({"captune/__init__.py": b"2\n"}, "is not the checkout's: captune/__init__.py"),
        ({"tests/test_x.py": b""}, "does not belong there: tests/test_x.py"),
        ({"captune/__pycache__/x.pyc": b""}, "does not belong there: captune/__pycache__/x.pyc"),
        ({ABOUT + "licenses/NOTICE": None}, r"is missing: captune-.*NOTICE"),
        ({ABOUT + "METADATA": b"token: hf_" + b"a" * 34}, "looks like a key: in .*METADATA"),
        ({"captune/key.py": b"-----BEGIN RSA PRIVATE KEY" + b"-----"}, "looks like a key: in captune/key.py"),
    ],
)
def test_a_wheel_with_other_files_is_refused(
    release: ModuleType, tmp_path: Path, expected: dict[str, Path], changes: dict[str, bytes | None], said: str
) -> None:
    with pytest.raises(release.Refused, match=said):
        release.check_wheel(wheel(tmp_path, **changes), __version__, expected)


def test_the_checkouts_own_wheel_is_right(release: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (made,) = tmp_path.glob("*.whl")
    # What is being written counts as well: the tree need not be clean for the tests.
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"]
    names = release.run(listed, ROOT).splitlines()
    expected = {name.removeprefix("src/"): ROOT / name for name in names if (ROOT / name).is_file()}
    assert release.check_wheel(made, __version__, expected) == len(expected) + 6
    assert {"captune/core/presets/demo.yaml", "captune/evaluation/report/report.html"} <= set(expected)


@pytest.mark.parametrize(("name", "said"), [("tests/x.py", "holds .*tests"), ("src/key", "looks like a key")])
def test_a_source_archive_with_more_is_refused(release: ModuleType, tmp_path: Path, name: str, said: str) -> None:
    tree = tmp_path / "captune-1"
    for path in ("src/x.py", "LICENSE", "NOTICE", "pyproject.toml"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).touch()
    whole = tmp_path / "whole.tar.gz"
    with tarfile.open(whole, "w:gz") as archive:
        archive.add(tree, "captune-1")
    release.check_sdist(whole)
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_bytes(b"AKIA" + b"A" * 16 if "key" in name else b"")
    more = tmp_path / "more.tar.gz"
    with tarfile.open(more, "w:gz") as archive:
        archive.add(tree, "captune-1")
    with pytest.raises(release.Refused, match=said):
        release.check_sdist(more)


# The workflows


def jobs(workflow: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return found


def runs(workflow: Path) -> list[str]:
    return [step["run"] for job in jobs(workflow).values() for step in job["steps"] if "run" in step]


def test_there_is_one_workflow_for_changes_and_one_for_releases() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_commits_and_say_which_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    assert uses
    for used in uses:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", used), used


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_do_little_and_end(workflow: Path) -> None:
    whole = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert whole["permissions"] in ({}, {"contents": "read"})
    writes = {
        (name, right)
        for name, job in whole["jobs"].items()
        for right, access in job.get("permissions", {}).items()
        if access == "write"
    }
    assert writes == ({("pypi", "id-token"), ("images", "packages")} if workflow.stem == "release" else set())
    for name, job in whole["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        checkouts = [step for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
        assert all(step["with"] == {"persist-credentials": False} for step in checkouts), name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_commands_of_workflows_hold_no_expressions_and_name_what_exists(workflow: Path) -> None:
    for command in runs(workflow):
        # A name of a branch or tag that is written into a script is a command of whoever chose it.
        assert "${{" not in command
        for path in re.findall(r"(?:^|\s)((?:tools|deploy|\.ci)/[\w-]+|[\w.]+\.(?:ya?ml|txt)|Dockerfile)", command):
            assert (ROOT / path).exists(), path
        for target in re.findall(r"--target (\w+)", command):
            assert f" AS {target}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_a_tag_runs_the_release_tool_before_anything_is_published() -> None:
    workflow = ROOT / ".github" / "workflows" / "release.yml"
    assert 'python tools/release --tag "$GITHUB_REF_NAME"' in runs(workflow)
    found = jobs(workflow)
    assert {name: job.get("needs") for name, job in found.items()} == {
        "package": None, "pypi": "package", "images": "package",
    }  # fmt: skip
    targets = re.findall(r"^FROM runtime AS (\w+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(found["images"]["strategy"]["matrix"]["target"]) == sorted(targets)


@pytest.mark.parametrize("path", ["tools/release", "tools/container-rehearsal", "deploy/make-keys", ".ci/run"])
def test_scripts_can_be_started(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)
    assert (ROOT / path).read_text(encoding="utf-8").startswith("#!")
