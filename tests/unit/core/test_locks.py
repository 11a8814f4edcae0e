"""A lock keeps others out while its process lives, and no longer."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from captune.core.files.locks import Lock, Locked, lock_file
from captune.core.runs import LOCK, Run
from captune.training.folder import locked_run
from recorded import RecordedProgress


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.lock"
    with lock_file(path) as lock:
        assert lock == Lock(works=True)
        with pytest.raises(Locked, match=f"process {os.getpid()} on "), lock_file(path):
            pass
    assert not path.exists()
    with lock_file(path):
        pass


def test_a_folder_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(CaptuneError, match="/proc/1/out"), lock_file("/proc/1/out/x.lock"):
        pass


def test_the_run_names_who_trains_and_may_be_read_meanwhile(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_manifest({"model": "x"})
    owner = f"Another training .process {os.getpid()} on .* writes to"
    with run.lock():
        with pytest.raises(CaptuneError, match=owner) as caught, Run(tmp_path).lock():
            pass
        assert "another --out" in caught.value.hint
        assert run.manifest() == {"model": "x"}


def test_a_killed_process_holds_nothing_though_its_child_lives(tmp_path: Path) -> None:
    path, (ready, started) = tmp_path / "x.lock", os.pipe()
    owner = os.fork()
    if not owner:
        try:
            with lock_file(path):
                if not os.fork():  # such as a loader worker, which notices its parent's end later
                    os.close(ready)
                    os.write(started, f"{os.getpid()}\n".encode())
                    signal.pause()
                signal.pause()
        finally:
            os._exit(1)
    child = int(os.read(ready, 20))
    try:
        with pytest.raises(Locked), lock_file(path):
            pass
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        with lock_file(path) as lock:
            assert lock.left_by.startswith(f"process {owner} on ")
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(ready)
        os.close(started)


def test_many_at_once_get_it_one_by_one(tmp_path: Path) -> None:
    path, inside, most, refused = tmp_path / "x" / "lock", [0], [0], [0]

    def work() -> None:
        for _ in range(30):
            try:
                with lock_file(path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except Locked:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not path.exists()


def test_what_another_host_left_is_told(tmp_path: Path) -> None:
    progress = RecordedProgress()
    (tmp_path / LOCK).write_text("process 7 on elsewhere\n")
    with locked_run(Run(tmp_path), progress, first=True):
        pass
    assert "process 7 on elsewhere" in progress.warnings[0]
    assert "other hosts" in progress.warnings[0]
