"""The options of films and cameras, declared once like those of `captune.core.options`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from captune.core.options import DeviceOptions, GenerationOptions, TranslationOptions
from captune.core.options.option import Options, option


class VideoOptions(Options):
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


class WebcamOptions(Options):
    """Which camera is looked through, and how often."""

    camera: str = option("0", "Number of the camera, a stream's address, or a film.")
    every: float = option(5.0, "Seconds between two captions.", gt=0)
    count: int = option(0, "Stop after this many captions; 0: at Ctrl-C.", ge=0)


class VideoConfig(Options):
    """Everything `captune video` takes."""

    video: VideoOptions = Field(default_factory=VideoOptions)
    generation: GenerationOptions = Field(default_factory=GenerationOptions)
    translation: TranslationOptions = Field(default_factory=TranslationOptions)
    run_on: DeviceOptions = Field(default_factory=DeviceOptions)


class WebcamConfig(Options):
    """Everything `captune webcam` takes."""

    webcam: WebcamOptions = Field(default_factory=WebcamOptions)
    generation: GenerationOptions = Field(default_factory=GenerationOptions)
    translation: TranslationOptions = Field(default_factory=TranslationOptions)
    run_on: DeviceOptions = Field(default_factory=DeviceOptions)
