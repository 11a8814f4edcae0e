"""A camera as it is: fresh frames now and then, an end for films, words for what is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captune.core.errors import CaptuneError
from captune.video.webcam import Camera
from films import RATE, drawn, write_film

cv2 = pytest.importorskip("cv2")


class FakeCapture:
    """A camera of ten frames a second on a clock of its own; its frames tell their number in red."""

    def __init__(self, source: int, frames: int = 200) -> None:
        self.source, self.left, self.number, self.released = source, frames, -1, False

    def isOpened(self) -> bool:
        return self.source == 0

    def get(self, what: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self.number += 1
        return self.number < self.left

    def retrieve(self) -> tuple[bool, np.ndarray]:
        blue_green_red = np.zeros((4, 6, 3), np.uint8)
        blue_green_red[..., 2] = self.number
        return True, blue_green_red

    def release(self) -> None:
        self.released = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeCapture]:
    """Every camera that was opened."""
    cameras: list[FakeCapture] = []

    def open_one(source: int) -> FakeCapture:
        cameras.append(FakeCapture(source))
        return cameras[-1]

    monkeypatch.setattr(cv2, "VideoCapture", open_one)
    return cameras


def test_every_picture_is_fresh(made: list[FakeCapture]) -> None:
    slow = [0.0]  # what the captions take
    with Camera("0") as camera:
        found = []
        for seconds, image in camera.images(1.0, now=lambda: made[0].number / 10 + sum(slow)):
            found.append((round(seconds, 1), image.getpixel((0, 0))))
            slow.append(0.5)
            if len(found) == 4:
                break
    # Half a second passes with each caption, so every second image comes five frames later.
    assert [seconds for seconds, _ in found] == [0.1, 1.1, 2.1, 3.1]
    assert [pixel for _, pixel in found] == [(n, 0, 0) for n in (0, 5, 10, 15)]
    assert made[0].released


def test_a_camera_that_stops_is_an_error(made: list[FakeCapture]) -> None:
    with Camera("0") as camera, pytest.raises(CaptuneError, match="gives no images any more"):
        list(camera.images(1.0, now=lambda: made[0].number / 10))


def test_no_camera_says_what_to_do(made: list[FakeCapture]) -> None:
    with pytest.raises(CaptuneError, match="There is no camera 7") as error:
        Camera("7")
    assert "--camera 1" in error.value.hint
    assert made[0].released


def test_a_film_as_a_camera(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.avi", [drawn(n // (2 * RATE)) for n in range(10 * RATE)])
    with Camera(str(path)) as camera:
        found = list(camera.images(2.0))
    assert [round(seconds, 2) for seconds, _ in found] == [0, 2, 4, 6, 8]
    for number, (_, image) in enumerate(found):
        assert np.abs(np.asarray(image, float) - np.asarray(drawn(number), float)).mean() < 15


def test_a_file_that_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no film")
    with pytest.raises(CaptuneError, match="cannot be opened"):
        Camera(str(tmp_path / "a.txt"))


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "cv2", missing)
    with pytest.raises(CaptuneError, match=r"captune\[webcam\]"):
        Camera("0")
