from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, atomic_folder, disk_error, read_json, write_json, write_jsonl, write_text
from captune.core.files.existing import ExistingCaptions
from captune.core.text import LONGEST, fit_name
from captune.images.metadata.files import CaptionEdit, write_copy


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_file(target) as file:
        file.write("whole")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "whole"
    assert os.listdir(target.parent) == ["a.txt"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "before")
    with pytest.raises(ZeroDivisionError), atomic_file(target) as file:
        file.write(f"half {1 / 0}")
    assert target.read_text(encoding="utf-8") == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_says_so_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CaptuneError, match="disk is full") as caught:
        write_text(target, "after")
    assert str(target) in caught.value.message
    assert target.read_text(encoding="utf-8") == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_that_is_a_file_is_an_error_with_a_path(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(CaptuneError, match="Cannot write"):
        write_text(tmp_path / "file" / "below.txt", "x")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_no_permission_names_the_path(code: int) -> None:
    error = disk_error(OSError(code, os.strerror(code)), "runs/x")
    assert error.message == "No permission to write runs/x."


def test_an_error_about_another_file_is_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_file(tmp_path / "a.txt"):
        open(tmp_path / "elsewhere").close()


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ü"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert os.listdir(tmp_path) == []


def test_broken_json_names_its_line(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", '{"a": 1,\n "b" 2}\n')
    with pytest.raises(CaptuneError, match=r"a\.json, line 2: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(CaptuneError, match="There is no file"):
        read_json(tmp_path / "b.json")


def test_jsonl_counts_its_lines(tmp_path: Path) -> None:
    assert write_jsonl(tmp_path / "a.jsonl", ({"n": n} for n in range(3))) == 3
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    assert write_jsonl(tmp_path / "b.jsonl", []) == 0


LONG = ["x" * 251 + ".txt", "日" * 82 + ".txt", "ü" * 125 + ".text", "a" + "🐕" * 62 + ".txt"]


@pytest.mark.parametrize("name", LONG)
def test_a_name_may_be_as_long_as_the_system_allows(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "whole")
    with atomic_folder(tmp_path / "folders" / name) as stage:
        write_text(stage / name, "inside")
    assert (tmp_path / "folders" / name / name).read_text() == "inside"
    assert os.listdir(tmp_path / "folders") == [name]


def test_what_a_killed_process_left_of_a_long_folder_is_cleared_away(tmp_path: Path) -> None:
    target = tmp_path / f"[{'x' * 252}]"
    left = tmp_path / fit_name(f".{target.name}", ".99999999.part")
    other = tmp_path / ".another.99999999.part"
    left.mkdir()
    other.mkdir()
    with atomic_folder(target):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([other.name, target.name])


def test_a_path_that_no_file_can_have_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="name is too long"):
        write_text(tmp_path / ("x" * 256), "")


def test_names_that_are_cut_stay_apart_and_whole_letters() -> None:
    assert fit_name("photo", ".explained.png") == "photo.explained.png"
    cut = {fit_name(f"{'日' * 90}{end}", ".explained.png") for end in "abc"}
    assert len(cut) == 3
    for name in cut:
        assert len(name.encode()) <= LONGEST
        assert name.startswith("日" * 70)
        assert name.endswith(".explained.png")


@pytest.mark.parametrize("name", ["日" * 83 + ".jpg", "x" * 251 + ".gif"])
def test_copies_with_alt_text_and_what_lies_beside_them_fit(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"GIF89a" if name.endswith("gif") else b"no picture")
    for _ in range(2):  # the second takes the caption into what the first wrote
        edit = CaptionEdit("a dog", ExistingCaptions())
        assert write_copy(str(tmp_path / name), tmp_path / "out" / name, edit) is not None
    copy, beside = sorted(os.listdir(tmp_path / "out"), key=lambda one: one.endswith(".xmp"))
    assert copy == name
    assert beside.endswith(".xmp")
    assert "a dog" in (tmp_path / "out" / beside).read_text()
