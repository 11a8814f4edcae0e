"""Input shards decoded ahead in processes: in order, exact, and one image lost where one is bad."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError, ImageError
from captune.datasets.sources.input_shards import ImageSource, InputShard, list_input_shards
from captune.images.batches import read_pixels
from captune.images.decode_worker import command
from captune.images.open import open_image
from captune.images.preprocessing import Preprocessing, to_pixels
from captune.images.workers import ProcessPool
from captune.jobs.decode_ahead import DecodeAhead, Decoded, ShardTask
from captune.models.backbone import PixelSettings
from jobs import PREPROCESSING, pictures

DECODER = command(square=PREPROCESSING, max_pixels=10**8)
Found = list[tuple[int, list[tuple[int, str, Decoded]]]]


def decoded(
    shards: list[ShardTask], settings: Preprocessing = PREPROCESSING, *, workers: int = 2, **more: Any
) -> Found:
    ahead = DecodeAhead(shards, settings, workers=workers, max_pixels=10**8, ahead=4, **more)
    with ahead as decoding:
        return [
            (shard.number, [(place, image.name, each) for place, image, each in found])
            for shard, found in decoding.shards()
        ]


def shards_of(folder: Path, size: int) -> list[ShardTask]:
    return [ShardTask(number, shard) for number, shard in enumerate(list_input_shards([folder], shard_size=size))]


def test_pixels_are_those_of_one_picture_alone(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pics", 11, bad=(4,))
    found = decoded(shards_of(folder, 4))
    assert [(number, [place for place, _, _ in each]) for number, each in found] == [
        (0, [0, 1, 2, 3]),
        (1, [0, 1, 2, 3]),
        (2, [0, 1, 2]),
    ]
    every = [(name, each) for _, shard in found for _, name, each in shard]
    assert [name for name, _ in every] == [str(folder / f"{number:03}.png") for number in range(11)]
    for name, each in every:
        if name.endswith("004.png"):
            assert (each.pixels, each.kind) == (None, "truncated")
        else:
            assert each.pixels is not None
            assert np.array_equal(each.pixels, to_pixels(open_image(name), 16))
            assert len(each.fingerprint) == 216
            assert any(each.fingerprint)


@pytest.mark.parametrize(
    "settings",
    [
        Preprocessing(16, shorter=20),
        Preprocessing(16, fast=True),
        PixelSettings(16, shorter=18, fast=True, mean=(0.5,) * 3, std=(0.5,) * 3),
    ],
)
def test_other_ways_to_pixels(tmp_path: Path, settings: Preprocessing) -> None:
    pytest.importorskip("simplejpeg")
    folder = pictures(tmp_path / "pics", 3)
    for path in folder.iterdir():
        open_image(path).save(path.with_suffix(".jpg"), quality=95)
    for _, shard in decoded(shards_of(folder, 9), settings, workers=1):
        for _, name, each in shard:
            assert np.array_equal(each.pixels, read_pixels(name, settings))


def test_sources_that_are_bytes_or_fetched(tmp_path: Path) -> None:
    path = next(pictures(tmp_path / "pics", 1).iterdir())

    def gone() -> bytes:
        raise ImageError("far", "there is no such key", kind="missing")

    def read(shard: InputShard) -> list[ImageSource]:
        return [
            ImageSource("bytes", path.read_bytes()),
            ImageSource("fetched", path.read_bytes),
            ImageSource("far", gone),
            ImageSource("empty", b""),
        ]

    ((_, found),) = decoded([ShardTask(0, InputShard("tar", "a.tar"))], read=read)
    expected = to_pixels(open_image(path), 16)
    assert [np.array_equal(each.pixels, expected) for _, _, each in found[:2]] == [True, True]
    assert [(each.reason, each.kind) for _, _, each in found[2:]] == [
        ("there is no such key", "missing"),
        ("the file is empty (0 bytes)", "empty"),
    ]


def test_a_shard_that_cannot_be_read_on(tmp_path: Path) -> None:
    path = next(pictures(tmp_path / "pics", 1).iterdir())

    def read(shard: InputShard) -> object:
        yield ImageSource("first", str(path))
        raise CaptuneError("a.tar: cut off.", "Download it again.")

    found = decoded([ShardTask(0, InputShard("tar", "a.tar")), ShardTask(1, InputShard("tar", "a.tar"))], read=read)
    for _, pictures_found in found:
        assert [(name, each.reason) for _, name, each in pictures_found] == [("first", ""), ("a.tar", "cut off.")]


def test_only_failed_pictures_are_decoded_again(tmp_path: Path) -> None:
    (shard,) = shards_of(pictures(tmp_path / "pics", 5), 9)
    states = ("ok", "error", "ok", "ok", "error")
    rows = tuple(
        CaptionRow(name, (), state, None, "")  # type: ignore[arg-type]
        for name, state in zip(shard.source.names, states, strict=True)
    )
    ((_, found),) = decoded([ShardTask(0, shard.source, rows)])
    assert [place for place, _, _ in found] == [1, 4]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("time.sleep(60)", "too long"),
    ],
)
def test_a_picture_that_kills_its_decoder_costs_one(tmp_path: Path, action: str, words: str) -> None:
    code = (
        "import os, signal, time, captune.images.decode_worker as worker\nread = worker.read_pixels\n"
        "def crash(source, *settings):\n"
        f"    if source[-7:-4] in ('005', '006', '019'):\n        {action}\n"
        "    return read(source, *settings)\n"
        "worker.read_pixels = crash\nworker.main()"
    )
    worker = [sys.executable, "-c", code, DECODER[-1]]
    folder = pictures(tmp_path / "pics", 20)
    found = [each for _, shard in decoded(shards_of(folder, 8), timeout=1.0, worker=worker) for each in shard]
    assert len(found) == 20
    bad = {Path(name).stem: each.reason for _, name, each in found if each.pixels is None}
    assert sorted(bad) == ["005", "006", "019"]
    assert all(words in reason for reason in bad.values())


@pytest.mark.parametrize("when", ["start", "idle", "work"])
def test_a_decoder_that_is_killed_costs_no_image(tmp_path: Path, when: str) -> None:
    """Killed by somebody else: before it is ready, while it waits, and while it decodes what is good."""
    once = (
        "import os, signal, sys, threading, captune.images.decode_worker as worker\n"
        f"first = {str(tmp_path / 'first')!r}\n"
        "def die():\n"
        "    os.path.exists(first) or (open(first, 'x'), os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    place = {
        "start": "die()\n",
        "idle": "threading.Timer(0.05, die).start()\n",
        "work": "read = worker.read_pixels\nworker.read_pixels = lambda *given: (die(), read(*given))[1]\n",
    }
    code = f"{once}{place[when]}worker.main()"
    (path,) = pictures(tmp_path / "pics", 1).iterdir()
    with ProcessPool([sys.executable, "-c", code, DECODER[-1]], 1) as processes:
        for _ in range(2):
            assert "reason" not in processes.submit(lambda send: send({"path": str(path)}, b"")).result().fields
            time.sleep(0.1 * (when == "idle"))
    assert (tmp_path / "first").exists()


def test_a_decoder_ends_with_a_killed_parent_in_the_middle_of_a_bomb() -> None:
    """One that lets no other thread of its process run, as many decoders do."""
    bomb = (
        "import re; from captune.images.workers import end_with_parent; end_with_parent(); print(1, flush=True)\n"
        "re.match('(a+)+$', 'a' * 60 + 'b')"
    )
    code = (
        f"import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', {bomb!r}])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert parent.stdout.readline() == b"1\n"
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([child], timeout=5)[0] or child.status() == psutil.STATUS_ZOMBIE


def test_decoding_that_is_given_up_leaves_no_process(tmp_path: Path, no_children: Callable[[], bool]) -> None:
    shards = shards_of(pictures(tmp_path / "pics", 40), 10)
    with DecodeAhead(shards, PREPROCESSING, workers=2, max_pixels=10**8, ahead=4) as decoding:
        _, found = next(decoding.shards())
        next(found)
    assert no_children()


@pytest.mark.parametrize("broken", ["shards", "worker"])
def test_what_breaks_off_says_why(tmp_path: Path, broken: str, no_children: Callable[[], bool]) -> None:
    shards: Callable[[], object] = lambda: iter(shards_of(pictures(tmp_path / "pics", 9), 3))
    if broken == "worker":
        given, more = shards(), {"worker": (sys.executable, "-c", "raise SystemExit('no such module')")}
    else:

        def failing() -> object:
            yield from shards()  # type: ignore[misc]
            raise CaptuneError("no such module")

        given, more = failing(), {}
    with pytest.raises(CaptuneError, match="no such module"):
        decoded(given, **more)  # type: ignore[arg-type]
    assert no_children()


def test_the_exact_decoder_never_loads_torch() -> None:
    code = "import sys, captune.images.decode_worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_input_shards_pass_through_json() -> None:
    shard = InputShard("tar", "a/b.tar", 512, None, ("x\udc80.jpg",))
    assert InputShard.from_json(shard.to_json()) == shard
