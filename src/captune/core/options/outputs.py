"""Options of jobs, exports, films and cameras, declared once like those of `captune.core.options`."""

from typing import Literal

from captune.core.options.option import Options, option


class ExportOptions(Options, section="export", panel="Export"):
    """What an export becomes, and how it is held against its model before it is called done."""

    to: str = option("onnx", "onnx or openvino.")
    int8: bool = option(False, "Linear layers in 8 bits: smaller and faster, but some captions change.")
    calibrate_on: str | None = option(
        None, "Images, or a prepared folder (its train split), to calibrate the activations of --int8."
    )
    calibrate_images: int = option(128, "Images of --calibrate-on that are used.", ge=1)
    check_on: str | None = option(
        None, "Folder or pattern of images to check the export on; default: the split of --data, else drawn scenes."
    )
    check_images: int = option(16, "Images for the check of the export.", ge=1)
    limit_images: int = option(0, "Score int8 on this many images of the split of --data; 0: all.", ge=0)
    min_identical: float = option(
        0.5, "An int8 export with a smaller share of unchanged captions is refused.", ge=0, le=1
    )
    resamples: int = option(1000, "Resamples for intervals and tests; 0: none.", ge=0, le=100_000)


class JobOptions(Options, section="job", panel="A job in a folder"):
    """How a job is divided, and what becomes of one that the folder holds already."""

    shard_size: int = option(1000, "Images per result file; after a stop, at most that many are captioned again.", ge=1)
    part: str = option(
        "1/1", "2/8: only the second of eight parts of the job; parts may run at the same time.", pattern=r"^\d+/\d+$"
    )
    resume: bool = option(True, "Continue the job in --out; --no-resume: stop with an error if there is one.")
    restart: bool = option(False, "Delete the job in --out and start again.")
    retry_failed: bool = option(False, "Try the failed images of a job again.")
    retry_flagged: bool = option(False, "Try the images of a job again that failed or whose captions have flags.")
    dry_run: bool = option(False, "Count images and finished ones; load and write nothing.")
    engine: Literal["local", "ray"] = option("local", "Where the job runs: in this process, or on a Ray cluster.")
    ray_address: str | None = option(
        None,
        "Ray cluster: host:port, auto (the one that runs here) or local (a new one on this machine). "
        "Default: the one that runs here, else a new one.",
        env="RAY_ADDRESS",
    )
    ray_workers: int = option(0, "Workers on the Ray cluster, each with the model; 0: as many as fit.", ge=0)
    ray_wait: int = option(60, "Seconds to wait for a free node of the Ray cluster.", ge=0)
    gpus_per_worker: float | None = option(
        None, "GPUs per Ray worker, or a share of one; default: 1 if the cluster has any, else 0.", ge=0
    )
    cpus_per_worker: int | None = option(
        None, "Cores per Ray worker; default: those of its node divided between its workers.", ge=1
    )


class VideoOptions(Options, section="video", panel="Films and scenes"):
    """How a film becomes scenes, and scenes become lines."""

    format: Literal["text", "json", "srt", "vtt"] = option("text", "Output: a table, JSON, or subtitles.")
    existing: Literal["keep", "replace"] = option(
        "keep", "Files in --out that captune did not write, or that were corrected since: keep or replace them."
    )
    every: float = option(0.0, "Seconds between captions, instead of one per scene; 0: scenes.", ge=0)
    scene_threshold: float = option(
        0.06, "Least difference between two scenes; a lower value finds more scenes.", gt=0, lt=1
    )
    min_scene_seconds: float = option(1.0, "Shortest scene, in seconds.", ge=0)
    sample_fps: float = option(5.0, "Frames per second that are compared to find scenes.", gt=0, le=120)
    merge: bool = option(True, "Merge neighbouring scenes with the same caption.")
    batch_size: int = option(8, "Frames per batch.", ge=1, env="BATCH_SIZE")
    max_pixels: int = option(100_000_000, "Films with more pixels in a frame are refused.", ge=1)


class WebcamOptions(Options, section="webcam", panel="Camera"):
    """Which camera is looked through, and how often."""

    camera: str = option("0", "Number of the camera, a stream's address, or a film.")
    every: float = option(5.0, "Seconds between two captions.", gt=0)
    count: int = option(0, "Stop after this many captions; 0: at Ctrl-C.", ge=0)
