"""One bad picture costs one picture, whatever it does to the process that opens it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from captune.core.errors import CaptuneError
from captune.data import verify as verifying
from captune.data.verify import verify


def photos(folder: Path, names: list[str]) -> list[str]:
    for number, name in enumerate(names):
        Image.new("RGB", (24 + number, 16), (number, 100, 50)).save(folder / name)
    return [str(folder / name) for name in names]


def crashing(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """A pool in which a picture whose name has 'crash' in it does `action`."""
    code = (
        "import os, signal, time, captune.data.verify_worker as worker\ncheck_image = worker.check_image\n"
        "def crash(path, most):\n"
        f"    if 'crash' in path:\n        {action}\n"
        "    return check_image(path, most)\n"
        "worker.check_image = crash\nworker.main()"
    )
    monkeypatch.setattr(verifying, "WORKER", (sys.executable, "-c", code))


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
def test_a_picture_that_kills_its_worker_costs_one_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, words: str
) -> None:
    paths = photos(tmp_path, [f"{'crash' if number in (5, 6, 39) else 'good'}{number}.png" for number in range(40)])
    crashing(monkeypatch, action)
    looks = sorted(verify(paths, max_pixels=10**8, workers=2, timeout=1.0), key=lambda look: look.index)
    assert [look.index for look in looks] == list(range(40))
    bad = {look.index: look.reason for look in looks if look.reason}
    assert sorted(bad) == [5, 6, 39]
    assert all(words in str(reason) for reason in bad.values())


def test_workers_that_cannot_start_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = photos(tmp_path, ["a.png"])
    monkeypatch.setattr(verifying, "WORKER", (sys.executable, "-c", "raise SystemExit('no such module')"))
    with pytest.raises(CaptuneError, match="no such module"):
        list(verify(paths, max_pixels=10**8))


def test_verifying_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    import psutil

    paths = photos(tmp_path, [f"{number}.png" for number in range(64)])
    looks = verify(paths, max_pixels=10**8, workers=2)
    next(looks)
    looks.close()
    deadline = time.monotonic() + 10
    while psutil.Process().children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert psutil.Process().children() == []


def test_looks_tell_size_and_reason(tmp_path: Path) -> None:
    good, bad = photos(tmp_path, ["good.png", "bad.png"])
    Path(bad).write_bytes(Path(bad).read_bytes()[:50])
    looks = {look.index: look for look in verify([good, bad, str(tmp_path / "none")], max_pixels=10**8)}
    assert (looks[0].reason, looks[0].width, looks[0].height, len(looks[0].thumb)) == (None, 24, 16, 192)
    assert looks[1].reason
    assert (looks[2].kind, looks[2].reason) == ("missing", "there is no such file")
    giant = next(verify([good], max_pixels=100))
    assert giant.kind == "giant"


def test_nothing_to_open() -> None:
    assert list(verify([], max_pixels=100)) == []
