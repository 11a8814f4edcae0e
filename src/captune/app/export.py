"""`captune export`: a model as files for another runtime, checked against the original before they appear."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captune.app.export_check import Check, check, refuse_few, refuse_other
from captune.app.export_score import Score, score
from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.export_options import ExportConfig
from captune.core.exported import EXPORT_REPORT
from captune.core.files import write_json
from captune.core.folders import check_free, whole_folder
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.data.bulk.listing import find_pictures
from captune.data.prepared import read_split
from captune.exporters import EXPORTERS

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

SCENES = "drawn scenes"
SCENES_SEED = 7


@dataclass(frozen=True)
class ExportReport:
    """An export that was written: where, what of, its files, and how it compares with its model.

    `files` and `weights` (the model's own, in fp32) are in bytes; `score` is there when references were.
    """

    folder: str
    model: str
    family: str
    target: str
    precision: str
    files: dict[str, int]
    weights: int
    check: Check
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
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> ExportReport:
    """Write a model into the folder `out` as graphs that run without torch.

    Options are those of `captune export --help` (`to`, `int8`, `check_on`, …). The folder appears only when the
    export captions as the model does, in 8 bits often enough; else `CaptuneError` says what differs. With `data`,
    a prepared folder, both are measured on the references of its `split` as well.
    """
    environment = os.environ if environment is None else environment
    asked = resolve(ExportConfig, environment=environment, flags=options).values.export
    target = EXPORTERS[asked.to]
    target.check_installed()
    check_free(Path(out).expanduser())
    records = () if data is None else _records(data, split, asked.limit_images)
    import torch

    from captune.engine.loader import load_backbone
    from captune.exporters.described import describe, write_tokenizer
    from captune.exporters.graphs import graphs_of
    from captune.runtime import ExportedModel

    with progress.task(f"Loading {model}"):
        backbone = load_backbone(str(model))
        graphs = graphs_of(backbone)
    pixels, source = _pictures(backbone, asked.check_on, records, asked.check_images, progress)
    precision = "int8" if asked.int8 else "fp32"
    facts = describe(backbone, graphs, model=str(model), target=asked.to, precision=precision, opset=target.OPSET)
    with whole_folder(out) as stage:
        write_tokenizer(backbone.tokenizer, stage)
        target.write(graphs, stage, int8=asked.int8, progress=progress)
        facts.write(stage)
        written = ExportedModel.load(stage, threads=torch.get_num_threads())
        found = check(backbone, written, pixels, source=source, progress=progress)
        if asked.int8:
            refuse_few(found, asked.least_identical)
        else:
            refuse_other(found)
        measured = None
        if records:
            measured = score(
                backbone, written, records, data=str(data), split=split, resamples=asked.resamples, progress=progress
            )
        replace(facts, check=asdict(found)).write(stage)
        report = ExportReport(
            folder=str(out),
            model=str(model),
            family=backbone.family,
            target=asked.to,
            precision=precision,
            files={path.name: path.stat().st_size for path in sorted(stage.iterdir())},
            weights=sum(p.numel() * p.element_size() for p in backbone.model.parameters()),
            check=found,
            score=measured,
        )
        write_json(stage / EXPORT_REPORT, report.to_json())
    return report


def _records(data: str | os.PathLike[str], split: str, limit: int) -> Sequence[ImageRecord]:
    records = [record for record in read_split(data, split) if record.references]
    if not records:
        raise CaptuneError(f"The split '{split}' of {data} has no references.", "Choose another --split.")
    return _spread(records, limit) if limit else records


def _pictures(
    backbone: Backbone, check_on: str | None, records: Sequence[ImageRecord], count: int, progress: Progress
) -> tuple[list[np.ndarray], str]:
    """Pixels (3, size, size) of the pictures to check on, and where they are from."""
    from captune.data.scenes import held_out_scenes, render_scene
    from captune.engine.pictures import read_pixels, stream_pixels

    if check_on is None and not records:
        scenes = held_out_scenes(count, seed=SCENES_SEED)
        return [read_pixels(render_scene(scene, backbone.pixels.size), backbone.pixels) for scene in scenes], SCENES
    paths = [record.image for record in records] if check_on is None else find_pictures([check_on])
    source = check_on or "the split's pictures"
    found = []
    for _, seen in stream_pixels(((path, path) for path in _spread(paths, count)), backbone.pixels):
        if isinstance(seen, CaptuneError):
            progress.warn(f"Left out of the check: {seen.message}")
        else:
            found.append(seen)
    if not found:
        raise CaptuneError(f"No picture of {source} can be read.", "Name a folder with pictures: --check-on DIR.")
    return found, source


def _spread(items: Sequence[Any], count: int) -> Sequence[Any]:
    """At most `count` of the items, from first to last."""
    return [items[n * len(items) // count] for n in range(count)] if count < len(items) else items
