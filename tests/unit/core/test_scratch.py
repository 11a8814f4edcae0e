"""Temporary folders: removed at the end, and after a kill by the next process, never while they are in use."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from captune.core import files
from captune.core.files import scratch_folder

HOLDER = """
import os, sys
from captune.core.files import scratch_folder
with scratch_folder(sys.argv[1]) as made:
    (made / "half").write_text("x")
    print(made, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def first_of_a_process() -> None:
    files._sweep.cache_clear()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    foreign = tmp_path / "captune-scratch-notes"
    foreign.symlink_to(tmp_path)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        with scratch_folder(tmp_path) as made:
            assert (held / "half").is_file()
        assert not made.exists()
        holder.send_signal(signal.SIGKILL)
    files._sweep.cache_clear()  # as in a process of its own
    with scratch_folder(tmp_path) as made:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([made.name, foreign.name])


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path) as made:
        (made / "folder").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_given_its_name(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as made:
        (made / "index").write_text("whole")
        made.rename(tmp_path / "paraphrases")
    assert (tmp_path / "paraphrases" / "index").read_text() == "whole"
