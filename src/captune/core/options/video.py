"""The options of films and cameras, declared once like those of `captune.core.options`."""

from __future__ import annotations

from typing import Literal

from captune.core.options.option import Options, option


class VideoOptions(Options, section="video", panel="Films and scenes"):
    """How a film becomes scenes, and scenes become lines."""

    format: Literal["text", "json", "srt", "vtt"] = option("text", "What is written: a table, JSON, or subtitles.")
    existing: Literal["keep", "replace"] = option(
        "keep", "Files in --out that captune did not write, or that were corrected since: keep or replace them."
    )
    every: float = option(0.0, "A caption every so many seconds instead of one for each scene; 0: scenes.", ge=0)
    scene_threshold: float = option(
        0.06, "How different frames of two scenes are at least; less finds more.", gt=0, lt=1
    )
    min_scene_seconds: float = option(1.0, "Shortest scene, in seconds.", ge=0)
    sample_fps: float = option(5.0, "Frames of each second that are compared to find scenes.", gt=0, le=120)
    merge: bool = option(True, "Neighbouring scenes with the same caption become one.")
    batch_size: int = option(8, "Frames captioned at once.", ge=1, env="BATCH_SIZE")
    max_pixels: int = option(100_000_000, "Films with more pixels in a frame are refused.", ge=1)


class WebcamOptions(Options, section="webcam", panel="Camera"):
    """Which camera is looked through, and how often."""

    camera: str = option("0", "Number of the camera, a stream's address, or a film.")
    every: float = option(5.0, "Seconds between two captions.", gt=0)
    count: int = option(0, "Stop after this many captions; 0: at Ctrl-C.", ge=0)
