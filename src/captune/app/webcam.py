"""`captune webcam`: what a camera sees, in words, every few seconds."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from captune.app.captioner import Captioner
from captune.app.video import as_captioning
from captune.core.config import resolve
from captune.core.files import atomic_file
from captune.core.film_options import WebcamConfig
from captune.core.options import DEFAULT_MODEL, CaptionOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption
from captune.data.camera import Camera


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
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Generator[WebcamCaption, None, None]:
    """Caption the camera's pictures one by one, for as long as they are asked for.

    `save` is a folder for the pictures. Raises `CaptuneError` where there is no camera. Options are those of
    `captune webcam --help`.
    """
    environment = os.environ if environment is None else environment
    resolved = resolve(WebcamConfig, environment=environment, flags=options)
    chosen = resolved.values.webcam
    with Camera(chosen.camera) as camera:
        with progress.task("Loading the model"):
            captioner = Captioner.load(
                model or DEFAULT_MODEL, config=as_captioning(resolved, CaptionOptions(batch_size=1))
            )
        for number, (seconds, picture) in enumerate(camera.pictures(chosen.every), start=1):
            when = datetime.now().astimezone()
            path = None
            if save is not None:
                path = Path(save) / f"{when:%Y-%m-%d_%H-%M-%S}-{number:05}.jpg"
                with atomic_file(path, "wb") as file:
                    picture.save(file, "JPEG", quality=95)
            yield WebcamCaption(when, seconds, tuple(captioner.captions(picture)), None if path is None else str(path))
            if number == chosen.count:
                return
