"""`captune demo`: the whole way on built-in scenes, by the ordinary verbs.

Nothing in it is a special path. What it does can be typed: `captune prepare DIR/scenes
--split flickr8k`, `captune train --model new:blip-demo --preset demo`, `captune evaluate`
against `@checkpoint-0`, `captune caption`.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from captune.api.caption import caption
from captune.core.errors import CaptuneError, check_torch
from captune.core.files import write_json, write_text
from captune.core.progress import SILENT, Progress
from captune.core.runs import Run
from captune.datasets.prepare import prepare
from captune.datasets.scenes import ShapeScene, all_true, objects_named, read_scenes, write_flickr8k_folder
from captune.evaluation.evaluate import Evaluation, evaluate
from captune.training.train import train

MODEL = "new:blip-demo"
PRESET = "demo"
START = "checkpoint-0"
SCENES = {"train": 10_000, "dev": 100, "test": 300}
SHOWN = 6
MODELS = ("untrained", "trained")


@dataclass(frozen=True)
class DemoRow:
    """A held-out image, its objects, and its captions before and after training."""

    image: str
    objects: tuple[str, ...]
    untrained: str
    trained: str
    right: bool


@dataclass(frozen=True)
class DemoScores:
    """One model on the held-out images.

    `objects_named` is the share of images whose caption names every object with its own
    colour and shape and nothing else, `all_true` the share whose relation is right as
    well; `cider` is CIDEr-D, `bleu_4` BLEU-4, 0–1 (CIDEr-D 0–10).
    """

    objects_named: float
    all_true: float
    cider: float
    bleu_4: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and measured; `table` is the result as Markdown, `next` commands to try."""

    folder: Path
    images: int
    scores: dict[str, DemoScores]
    rows: tuple[DemoRow, ...]
    sheet: Path
    seconds: dict[str, float]
    table: str
    next: tuple[tuple[str, ...], ...]


def demo(
    out: str | os.PathLike[str] = "captune-demo",
    *,
    progress: Progress = SILENT,
    scenes: Mapping[str, int] = SCENES,
    sets: tuple[str, ...] = (),
) -> DemoResult:
    """Draw scenes, prepare, train a small BLIP from scratch, and measure it on held-out combinations.

    `out` receives `scenes/` (a Flickr8k folder), `data/`, `run/`, `table.md`, `demo.json`
    and `captions.png`. A demo that was stopped continues in its `out`. `scenes` are the
    numbers of images, `sets` changes of the preset as in `captune train --set`.
    """
    check_torch()
    from captune.evaluation.report.figures import draw_sheet

    folder = Path(out)
    seconds: dict[str, float] = {}
    run = folder / "run"
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "scenes").is_dir():
        raise CaptuneError(f"The folder {folder} is not empty and not a demo's.", "Choose another --out.")
    with _timed(seconds, "draw"):
        drawn = write_flickr8k_folder(folder / "scenes", **scenes, progress=progress)
    with _timed(seconds, "prepare"):
        prepare(drawn.path, folder / "data", split="flickr8k", progress=progress)
    with _timed(seconds, "train"):
        train(folder / "data", MODEL, run, preset=PRESET, sets=sets, resume=Run.is_run(run), progress=progress)
    names = dict(zip(MODELS, (f"{run}@{START}", str(run)), strict=True))
    with _timed(seconds, "evaluate"):
        measured = evaluate(
            names["trained"], folder / "data", against=names["untrained"], preset=PRESET, progress=progress
        )
    truth = read_scenes(drawn.path)
    scores = {label: _scores(measured, name, truth) for label, name in names.items()}
    with _timed(seconds, "caption"):
        rows = _caption_some(measured, names, truth, progress)
        sheet = folder / "captions.png"
        captions = [(("untrained", row.untrained), ("trained", row.trained)) for row in rows]
        draw_sheet([row.image for row in rows], captions, sheet, right=[row.right for row in rows])
    table = _table(scores, rows, len(measured.records))
    result = DemoResult(folder, len(measured.records), scores, rows, sheet, seconds, table, _next(folder))
    write_text(folder / "table.md", table)
    write_json(folder / "demo.json", {**asdict(result), "folder": str(folder), "sheet": str(sheet)})
    return result


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


def _scores(measured: Evaluation, model: str, truth: Mapping[str, ShapeScene]) -> DemoScores:
    report, captions = measured.reports[model], measured.captions[model]
    pairs = [(captions[r.id].text, truth[Path(r.image).name]) for r in measured.records]
    return DemoScores(
        objects_named=sum(objects_named(text, scene.names) for text, scene in pairs) / len(pairs),
        all_true=sum(all_true(text, scene) for text, scene in pairs) / len(pairs),
        cider=report.scores["cider"],
        bleu_4=report.scores["bleu_4"],
    )


def _caption_some(
    measured: Evaluation, names: Mapping[str, str], truth: Mapping[str, ShapeScene], progress: Progress
) -> tuple[DemoRow, ...]:
    """The first images of the test split, captioned by the verb; none of them is chosen."""
    images = [record.image for record in measured.records[:SHOWN]]
    texts = {
        name: [row.captions[0].text for row in caption(images, model=model, progress=progress)]
        for name, model in names.items()
    }
    rows = []
    for image, before, after in zip(images, texts["untrained"], texts["trained"], strict=True):
        scene = truth[Path(image).name]
        objects = tuple(" ".join(one) for one in scene.names)
        rows.append(DemoRow(image, objects, before, after, objects_named(after, scene.names)))
    return tuple(rows)


def _table(scores: Mapping[str, DemoScores], rows: tuple[DemoRow, ...], images: int) -> str:
    before, after = scores["untrained"], scores["trained"]
    lines = [
        f"| {images} held-out images | untrained | trained |",
        "|---|---:|---:|",
        f"| every object's colour and shape named right | {before.objects_named:.1%} | {after.objects_named:.1%} |",
        f"| the relation as well | {before.all_true:.1%} | {after.all_true:.1%} |",
        f"| CIDEr-D × 100 | {100 * before.cider:.1f} | {100 * after.cider:.1f} |",
        f"| BLEU-4 × 100 | {100 * before.bleu_4:.1f} | {100 * after.bleu_4:.1f} |",
        "",
        "| image | untrained | trained |",
        "|---|---|---|",
    ]
    lines += [f"| {Path(row.image).name} | {row.untrained} | {row.trained} |" for row in rows]
    return "\n".join(lines) + "\n"


def _next(folder: Path) -> tuple[tuple[str, ...], ...]:
    hub = "Salesforce/blip-image-captioning-base"
    return (
        ("captune", "caption", "photo.jpg", "--model", str(folder / "run")),
        ("captune", "runs", "show", str(folder / "run")),
        ("captune", "prepare", "flickr8k", "--out", "data"),
        ("captune", "train", "--data", "data", "--model", hub, "--preset", "flickr8k-quick", "--out", "runs/flickr8k"),
        ("captune", "evaluate", "runs/flickr8k", "--data", "data", "--against", hub),
    )
