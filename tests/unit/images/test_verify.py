"""One bad image costs one image, whatever it does to the process that opens it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captune.core.errors import CaptuneError
from captune.images.verify import verify


def photos(folder: Path, names: list[str]) -> list[str]:
    for number, name in enumerate(names):
        Image.new("RGB", (24 + number, 16), (number, 100, 50)).save(folder / name)
    return [str(folder / name) for name in names]


def crashing(action: str) -> tuple[str, ...]:
    """A worker in which an image whose name has 'crash' in it does `action`."""
    code = (
        "import os, signal, time, captune.images.verify as worker\ncheck_image = worker.check_image\n"
        "def crash(path, most):\n"
        f"    if 'crash' in path:\n        {action}\n"
        "    return check_image(path, most)\n"
        "worker.check_image = crash\nworker.main()"
    )
    return (sys.executable, "-c", code)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("os._exit(7)", "code 7"),
        ("time.sleep(60)", "too long"),
    ],
)
def test_a_picture_that_kills_its_worker_costs_one_picture(tmp_path: Path, action: str, words: str) -> None:
    paths = photos(tmp_path, [f"{'crash' if number in (5, 6, 39) else 'good'}{number}.png" for number in range(40)])
    found = verify(paths, max_pixels=10**8, workers=2, timeout=1.0, worker=crashing(action))
    checks = sorted(found, key=lambda check: check.index)
    assert [check.index for check in checks] == list(range(40))
    bad = {check.index: check.reason for check in checks if check.reason}
    assert sorted(bad) == [5, 6, 39]
    assert all(words in str(reason) for reason in bad.values())


def test_workers_that_cannot_start_say_why(tmp_path: Path) -> None:
    paths = photos(tmp_path, ["a.png"])
    worker = (sys.executable, "-c", "raise SystemExit('no such module')")
    with pytest.raises(CaptuneError, match="no such module"):
        list(verify(paths, max_pixels=10**8, worker=worker))


def test_verifying_that_is_given_up_leaves_no_process(tmp_path: Path, no_children: Callable[[], bool]) -> None:
    paths = photos(tmp_path, [f"{number}.png" for number in range(64)])
    checks = verify(paths, max_pixels=10**8, workers=2)
    next(checks)
    checks.close()
    assert no_children()


def test_a_check_has_size_and_reason(tmp_path: Path) -> None:
    good, bad = photos(tmp_path, ["good.png", "bad.png"])
    Path(bad).write_bytes(Path(bad).read_bytes()[:50])
    checks = {check.index: check for check in verify([good, bad, str(tmp_path / "none")], max_pixels=10**8)}
    assert (checks[0].reason, checks[0].width, checks[0].height, len(checks[0].thumb)) == (None, 24, 16, 192)
    assert checks[1].reason
    assert (checks[2].kind, checks[2].reason) == ("missing", "there is no such file")
    giant = next(verify([good], max_pixels=100))
    assert giant.kind == "giant"


def test_nothing_to_open() -> None:
    assert list(verify([], max_pixels=100)) == []
