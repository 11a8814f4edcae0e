"""`captune webcam`: a caption of what a camera shows, every few seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from captune.core.config import resolve
from captune.core.errors import CaptuneError, missing_extra
from captune.core.options import DEFAULT_MODEL, CaptionOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption
from captune.inference.captioner import Captioner
from captune.video.video import as_captioning, save_jpeg


class Camera:
    """An open camera, stream or film, to be used in a `with` block.

    `source` is a camera's number ("0"), a stream's address or a film's path. Raises `CaptuneError`
    where nothing can be opened.
    """

    def __init__(self, source: str) -> None:
        try:
            import cv2
        except ImportError:
            raise missing_extra("opencv-python-headless", "webcam", "Looking through a camera") from None
        self.source = source
        self.is_film = os.path.isfile(source)
        _quiet(cv2)
        self._capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
        if not self._capture.isOpened():
            self._capture.release()
            raise _closed(source)
        self._rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *exc: object) -> None:
        self._capture.release()

    def images(self, every: float, *, now: Callable[[], float] = time.monotonic) -> Iterator[tuple[float, Image.Image]]:
        """Seconds since the first image and an RGB image, every `every` seconds or as soon as asked after that.

        Between two images the camera's frames are thrown away, so that none is old. A film's seconds are its
        own, and it ends; a camera that stops raises `CaptuneError`.
        """
        start, due, frames = now(), 0.0, 0
        while self._capture.grab():
            at = frames / self._rate if self.is_film else now() - start
            frames += 1
            if at + 0.5 / self._rate < due:
                continue
            given, pixels = self._capture.retrieve()
            if not given:
                break
            due = at + every
            yield at, Image.fromarray(pixels[:, :, ::-1].copy())  # OpenCV's blue, green and red turned round
        if not (self.is_film and frames):
            what = f"The camera {self.source} gives no images any more."
            raise CaptuneError(what, "Check its cable, then start again.")


def _closed(source: str) -> CaptuneError:
    if source.isdigit():
        return CaptuneError(
            f"There is no camera {source}, or another program has it.",
            "Plug one in, allow its use, close what uses it, or name another: --camera 1. "
            "A film does as well: --camera film.mp4",
        )
    return CaptuneError(f"{source} cannot be opened as a camera, a stream or a film.", "Check the path or the address.")


def _quiet(cv2: Any) -> None:
    """OpenCV's own notes on a missing camera say less than captune's."""
    try:
        cv2.setLogLevel(0)
    except AttributeError:  # other builds of OpenCV have no such function
        cv2.utils.logging.setLogLevel(0)


@dataclass(frozen=True)
class WebcamCaption:
    """What a camera showed: when by the clock, seconds since the start, its captions, and where it was saved."""

    when: datetime
    seconds: float
    captions: tuple[Caption, ...]
    frame: str | None = None


def webcam(
    *,
    model: str | None = None,
    save: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Generator[WebcamCaption, None, None]:
    """Caption the camera's images one by one, for as long as they are asked for.

    `save` is a folder for the images. Raises `CaptuneError` where there is no camera. Options are those of
    `captune webcam --help`.
    """
    resolved = resolve("webcam", file=config, environment=environment, flags=options, sets=sets)
    chosen = resolved.values.webcam
    with Camera(chosen.camera) as camera:
        with progress.task("Loading the model"):
            captioning = as_captioning(resolved, CaptionOptions(batch_size=1))
            captioner = Captioner.load(model or DEFAULT_MODEL, config=captioning)
        for number, (seconds, image) in enumerate(camera.images(chosen.every), start=1):
            when = datetime.now().astimezone()
            name = f"{when:%Y-%m-%d_%H-%M-%S}-{number:05}.jpg"
            saved = None if save is None else save_jpeg(image, Path(save) / name)
            yield WebcamCaption(when, seconds, tuple(captioner.captions(image)), saved)
            if number == chosen.count:
                return
