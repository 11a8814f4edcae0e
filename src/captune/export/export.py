"""`captune export`: a model as files for another runtime, checked against the original before they appear."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.exported import EXPORT_REPORT
from captune.core.files import atomic_folder, check_free, write_json
from captune.core.options.outputs import ExportOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.datasets.prepared import SPLITS, TRAIN, read_split
from captune.datasets.scenes import evaluation_scenes, render_scene
from captune.datasets.sources.listing import find_image_paths
from captune.export import EXPORTERS
from captune.export.check import Check, Score, check, score
from captune.export.graphs import describe, graphs_of, write_tokenizer
from captune.images.batches import read_pixels, stream_pixels
from captune.inference.runtime import ExportedModel
from captune.models.backbone import Backbone
from captune.models.loading.loader import load_backbone

SCENES = "drawn scenes"
SCENES_SEED = 7


@dataclass(frozen=True)
class ExportReport:
    """An export that was written: where, what of, its files, and how it compares with its model.

    `files` and `weights` (the model's own, in fp32) are in bytes; `calibrated` counts the images that the
    scales of int8 were measured on; `score` is there when references were.
    """

    folder: str
    model: str
    family: str
    target: str
    precision: str
    files: dict[str, int]
    weights: int
    check: Check
    calibrated: int = 0
    score: Score | None = None

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    split: str = "val",
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> ExportReport:
    """Write a model into the folder `out` as graphs that run without torch.

    Options are those of `captune export --help` (`to`, `int8`, `check_on`, …). The folder appears only when the
    export gives the model's captions, in 8 bits for enough images; else `CaptuneError` says what differs. With `data`,
    a prepared folder, both are measured on the references of its `split` as well.
    """
    values = resolve("export", file=config, environment=environment, flags=options, sets=sets).values
    settings, outside = values.export, values.tables.allow_outside
    target = EXPORTERS[settings.to]
    target.check_installed()
    if settings.calibrate_on is not None and not settings.int8:
        raise UsageError("--calibrate-on is of 8-bit exports.", "Add --int8, or leave out --calibrate-on.")
    check_free(Path(out).expanduser())
    records = () if data is None else _records(data, split, settings.limit_images, outside)
    with progress.task(f"Loading {model}"):
        backbone = load_backbone(str(model))
        graphs = graphs_of(backbone)
    pixels, source = _pixels_to_check(backbone, settings, records, progress)
    calibration = () if settings.calibrate_on is None else _calibration(backbone, settings, outside, progress)
    precision, min_identical = ("int8", settings.min_identical) if settings.int8 else ("fp32", None)
    facts = describe(backbone, graphs, model=str(model), target=settings.to, precision=precision, opset=target.OPSET)
    with atomic_folder(out) as stage:
        write_tokenizer(backbone.tokenizer, stage)
        target.write(graphs, stage, int8=settings.int8, calibration=calibration, progress=progress)
        facts.write(stage)
        written = ExportedModel.load(stage, threads=torch.get_num_threads())
        comparison = check(backbone, written, pixels, source=source, min_identical=min_identical, progress=progress)
        replace(facts, check=asdict(comparison)).write(stage)
        compared: dict[str, Any] = {"data": str(data), "split": split, "resamples": settings.resamples}
        report = ExportReport(
            folder=str(out),
            model=str(model),
            family=backbone.family,
            target=settings.to,
            precision=precision,
            files={path.name: path.stat().st_size for path in sorted(stage.iterdir())},
            weights=sum(p.numel() * p.element_size() for p in backbone.model.parameters()),
            check=comparison,
            calibrated=len(calibration),
            score=score(backbone, written, records, progress=progress, **compared) if records else None,
        )
        write_json(stage / EXPORT_REPORT, report.to_json())
    return report


def _records(data: str | os.PathLike[str], split: str, limit: int, allow_outside: bool) -> Sequence[ImageRecord]:
    records = [record for record in read_split(data, split, allow_outside=allow_outside) if record.references]
    if not records:
        raise CaptuneError(f"The split '{split}' of {data} has no references.", "Choose another --split.")
    return _spread(records, limit) if limit else records


def _pixels_to_check(
    backbone: Backbone, settings: ExportOptions, records: Sequence[ImageRecord], progress: Progress
) -> tuple[list[np.ndarray], str]:
    """Pixels (3, size, size) of the images to check on, and where they are from."""
    if settings.check_on is not None:
        source, paths = settings.check_on, find_image_paths([settings.check_on])
    elif records:
        source, paths = "the split's images", [record.image for record in records]
    else:
        scenes = evaluation_scenes(settings.check_images, seed=SCENES_SEED)
        return [read_pixels(render_scene(scene, backbone.pixels.size), backbone.pixels) for scene in scenes], SCENES
    return _read("check", backbone, paths, settings.check_images, source, progress), source


def _calibration(
    backbone: Backbone, settings: ExportOptions, allow_outside: bool, progress: Progress
) -> list[np.ndarray]:
    """Pixels (3, size, size) of the images that activations are measured on."""
    source = str(settings.calibrate_on)
    if (Path(source).expanduser() / SPLITS).is_file():
        paths = [record.image for record in read_split(source, TRAIN, allow_outside=allow_outside)]
    else:
        paths = find_image_paths([source])
    return _read("calibration", backbone, paths, settings.calibrate_images, source, progress)


def _read(
    purpose: str, backbone: Backbone, paths: Sequence[str], count: int, source: str, progress: Progress
) -> list[np.ndarray]:
    readable = []
    for _, pixels in stream_pixels(((path, path) for path in _spread(paths, count)), backbone.pixels):
        if isinstance(pixels, CaptuneError):
            progress.warn(f"Left out of the {purpose}: {pixels.message}")
        else:
            readable.append(pixels)
    if not readable:
        raise CaptuneError(f"No image of {source} can be read.", f"Name a folder of images for the {purpose}.")
    return readable


def _spread(items: Sequence[Any], count: int) -> Sequence[Any]:
    """At most `count` of the items, from first to last."""
    return [items[n * len(items) // count] for n in range(count)] if count < len(items) else items
