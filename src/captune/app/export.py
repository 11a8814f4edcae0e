"""`captune export`: a model as files for another runtime, checked against the original before they appear."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from captune.app.caption import find_pictures
from captune.app.export_check import Check, check, refuse_other
from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.export_options import ExportConfig
from captune.core.exported import TOKENIZER
from captune.core.files import write_json
from captune.core.folders import check_free, whole_folder
from captune.core.progress import SILENT, Progress
from captune.data.words import Words
from captune.exporters import EXPORTERS

if TYPE_CHECKING:
    from captune.models.backbone import Backbone

REPORT = "export_report.json"
SCENES_SEED = 7


@dataclass(frozen=True)
class ExportReport:
    """An export that was written: where, what of, its files in bytes, and how it compares with its model."""

    folder: str
    model: str
    family: str
    target: str
    precision: str
    files: dict[str, int]
    check: Check

    @property
    def megabytes(self) -> float:
        return sum(self.files.values()) / 1e6

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> ExportReport:
    """Write a model into the folder `out` as graphs that run without torch.

    Options are those of `captune export --help` (`to`, `int8`, `check_on`, …). The folder appears
    only when the export captions like the model does; else `CaptuneError` says what differs.
    """
    environment = os.environ if environment is None else environment
    asked = resolve(ExportConfig, environment=environment, flags=options).values.export
    target = EXPORTERS[asked.to]
    target.check_installed()
    check_free(Path(out).expanduser())
    from captune.engine.loader import load_backbone
    from captune.exporters.described import describe, write_tokenizer
    from captune.exporters.graphs import graphs_of
    from captune.exporters.stepping import ExportedStepper

    with progress.task(f"Loading {model}"):
        backbone = load_backbone(str(model))
        graphs = graphs_of(backbone)
    pixels, source = _pictures(backbone, asked.check_on, asked.check_images, progress)
    with whole_folder(out) as stage:
        precision = "int8" if asked.int8 else "fp32"
        facts = describe(backbone, graphs, model=str(model), target=asked.to, precision=precision, opset=target.OPSET)
        write_tokenizer(backbone.tokenizer, stage)
        target.write(graphs, stage, progress)
        stepper = ExportedStepper(
            target.open_model(stage), layers=facts.layers, heads=facts.heads, head_width=facts.head_width
        )
        words = Words.load(stage / TOKENIZER, clean_up=facts.clean_up)
        found = check(backbone, stepper, pixels, words, source=source, progress=progress)
        refuse_other(found)
        replace(facts, check=found.to_json()).write(stage)
        files = {path.name: path.stat().st_size for path in sorted(stage.iterdir())}
        report = ExportReport(str(out), str(model), backbone.family, asked.to, precision, files, found)
        write_json(stage / REPORT, report.to_json())
    return report


def _pictures(backbone: Backbone, check_on: str | None, count: int, progress: Progress) -> tuple[list[np.ndarray], str]:
    """Pixels (3, size, size) of the pictures to check on, and where they are from."""
    from captune.data.scenes import held_out_scenes, render_scene
    from captune.engine.pictures import read_pixels, stream_pixels

    if check_on is None:
        scenes = held_out_scenes(count, seed=SCENES_SEED)
        return [read_pixels(render_scene(scene, backbone.pixels.size), backbone.pixels) for scene in scenes], "scenes"
    paths = find_pictures([check_on])
    paths = paths[:: max(1, len(paths) // count)][:count]
    found = []
    for _, seen in stream_pixels(((path, path) for path in paths), backbone.pixels):
        if isinstance(seen, CaptuneError):
            progress.warn(f"Left out of the check: {seen.message}")
        else:
            found.append(seen)
    if not found:
        raise CaptuneError(f"No picture of {check_on} can be read.", "Name a folder with pictures: --check-on DIR.")
    return found, check_on
