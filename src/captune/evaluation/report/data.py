"""What a report shows: the files of an evaluation folder, read once and checked, and its attention sheets."""

from __future__ import annotations

import base64
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captune.captions.prompts.choice import Prompts
from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, read_json, read_text, write_json
from captune.core.files.paths import Boundary, written_here
from captune.core.progress import Progress, track
from captune.core.records import Caption, ImageRecord
from captune.core.runs import CONFIG, EVAL, Run
from captune.evaluation.results import PER_IMAGE, read_rows
from captune.inference.prompting import ImagePrompts

if TYPE_CHECKING:
    from captune.models.backbone import Backbone


FOLDER, INDEX = "attention", "sheets.json"
AGAIN = "Evaluate again: captune evaluate MODEL --data DIR --out FOLDER"


@dataclass(frozen=True)
class AttentionSheet:
    """An image's id, the caption that is explained, and the file of its sheet."""

    id: str
    caption: str
    file: Path

    @property
    def uri(self) -> str:
        """The file as a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.file.read_bytes()).decode()


def draw_attention_sheets(
    backbone: Backbone,
    records: Sequence[ImageRecord],
    captions: Mapping[str, Caption],
    generation: Any,
    into: Path,
    progress: Progress,
) -> None:
    """A JPEG of each image's maps, and what is on them; a family without maps is told and leaves none."""
    from captune.inference.explain import explain

    folder = into / FOLDER
    folder.mkdir(parents=True)
    rows = []
    prompts = ImagePrompts(Prompts(generation.prompt, backbone.prompt), backbone.codec, generation)
    for number, record in enumerate(track(records, progress, "Attention maps", len(records)), start=1):
        options = generation.model_copy(update={"prompt": prompts.read(record.image, record.image, record.question)})
        try:
            explained = explain(backbone, record.image, options, caption=captions[record.id])
        except CaptuneError as error:
            progress.info(f"No attention maps: {error.message}")
            break
        with atomic_file(folder / f"{number:03}.jpg", "wb") as file:
            explained.overlay().convert("RGB").save(file, "JPEG", quality=85)
        rows.append({"id": record.id, "caption": explained.caption, "file": f"{number:03}.jpg"})
    write_json(folder / INDEX, rows)


def delete_attention_sheets(folder: Path) -> None:
    """Delete the sheets of an earlier evaluation."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def read_attention_sheets(folder: Path) -> tuple[AttentionSheet, ...]:
    """What `draw_attention_sheets` left in a folder; nothing where it was not asked for, or for files elsewhere."""
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return ()
    boundary = Boundary([folder / FOLDER])  # the page takes their bytes as they are
    try:
        rows = [
            AttentionSheet(str(row["id"]), str(row["caption"]), folder / FOLDER / str(row["file"]))
            for row in read_json(index)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise CaptuneError(
            f"{index} is not the list of an evaluation's sheets ({type(error).__name__}: {error}).",
            f"Evaluate again, or remove the folder {FOLDER}.",
        ) from None
    return tuple(sheet for sheet in rows if sheet.file.is_file() and boundary.holds(sheet.file))


# What no page can show: control characters but tab and line feed, halves of characters.
UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Model:
    """A model of the evaluation: `label` is the shortest name that tells it from the others."""

    name: str
    label: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """The first model's score minus another's; `low`, `high` and both p-values are None where nothing was sampled."""

    value: float
    low: float | None = None
    high: float | None = None
    p_bootstrap: float | None = None
    p_randomisation: float | None = None


@dataclass(frozen=True)
class Picture:
    """One image; `captions` and `scores` are in the order of the models, a caption that is missing is None."""

    id: str
    image: str
    references: tuple[str, ...]
    captions: tuple[str | None, ...]
    scores: tuple[dict[str, float], ...]
    question: str = ""

    @property
    def title(self) -> str:
        """Its id, with the question that was asked about it."""
        return f"{self.id}: {self.question}" if self.question else self.id

    @property
    def alt(self) -> str:
        """The image in words: a human's where there are any, else the first model's."""
        caption = next((text for text in (*self.references, *self.captions) if text), f"picture {self.id}")
        return f"{self.question} {caption}".strip()


@dataclass(frozen=True)
class ReportData:
    """Everything a report says.

    `models` begins with the one that is evaluated; `differences` are that one's scores
    minus each other model's, by its name. `history` and `config` are empty where the folder
    is not a run.
    """

    folder: Path
    models: tuple[Model, ...]
    differences: dict[str, dict[str, Difference]]
    pictures: tuple[Picture, ...]
    evaluation: dict[str, Any]
    history: tuple[dict[str, Any], ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    sheets: tuple[AttentionSheet, ...] = ()
    allow_outside: bool = False

    @cached_property
    def boundary(self) -> Boundary:
        """Which images are shown: any where captune wrote the evaluation here, else those inside of the folder."""
        anywhere = self.allow_outside or written_here(self.folder, [PER_IMAGE])
        return Boundary([self.folder], anywhere=anywhere)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every score of any model, in the order in which they were measured."""
        return tuple(dict.fromkeys(key for model in self.models for key in model.scores))

    @property
    def picture_keys(self) -> tuple[str, ...]:
        """Every score that images have one by one."""
        return tuple(dict.fromkeys(key for image in self.pictures for scores in image.scores for key in scores))

    @property
    def split(self) -> str:
        return str(self.evaluation.get("split") or "")

    @property
    def references(self) -> int:
        return sum(len(image.references) for image in self.pictures)


def read_report_data(folder: str | os.PathLike[str], *, allow_outside: bool = False) -> ReportData:
    """Read an evaluation folder. Raises `CaptuneError` that names the file and line that is missing or broken."""
    path = Path(folder)
    if not (path / EVAL).is_file():
        reason = "there is no such folder" if not path.is_dir() else f"there is no {EVAL} in it"
        raise CaptuneError(
            f"{path} holds no evaluation: {reason}.", "Make one: captune evaluate MODEL --data DIR --out FOLDER"
        )
    evaluation = read_json(path / EVAL)
    try:
        first = str(evaluation["model"])
        names = [first, *(name for name in evaluation["models"] if name != first)]
        labels = short_names(names)
        models = tuple(_model(name, labels[name], evaluation["models"][name]) for name in names)
        differences = _differences(models, evaluation.get("comparisons") or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CaptuneError(f"{path / EVAL} is not an evaluation ({type(error).__name__}: {error}).", AGAIN) from None
    is_run = Run.is_run(path)
    return ReportData(
        folder=path,
        models=models,
        differences=differences,
        pictures=_pictures(path / PER_IMAGE, names),
        evaluation={key: value for key, value in evaluation.items() if key not in ("models", "comparisons")},
        history=tuple(line for line in Run(path).history() if isinstance(line, dict)),
        manifest=Run(path).manifest() if is_run else {},
        config=_config(path / CONFIG) if is_run else "",
        sheets=read_attention_sheets(path),
        allow_outside=allow_outside,
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The end of each path-like name, as long as it takes to tell all apart: `runs/a@last` → `a@last`."""
    parts = {name: [part for part in name.replace("\\", "/").split("/") if part] or [name] for name in names}
    for depth in range(1, max(map(len, parts.values()), default=1) + 1):
        short = {name: showable("/".join(part[-depth:])) for name, part in parts.items()}
        if len(set(short.values())) == len(names):
            return short
    return {name: showable(name) for name in names}


def showable(text: str) -> str:
    """Text without what HTML and Markdown cannot hold; a sign stands in its place."""
    return UNSHOWABLE.sub("\ufffd", text)


def _config(path: Path) -> str:
    """The options of a run, as they stand; none where the file is a link that leads out of the run."""
    return showable(read_text(path)) if Boundary([path.parent]).holds(path) else ""


def _model(name: str, label: str, found: Mapping[str, Any]) -> Model:
    intervals = {key: (float(low), float(high)) for key, (low, high) in (found.get("intervals") or {}).items()}
    return Model(name, label, _numbers(found["scores"]), intervals, dict(found.get("settings") or {}))


def _differences(models: Sequence[Model], compared: Mapping[str, Any]) -> dict[str, dict[str, Difference]]:
    first = models[0].scores
    found: dict[str, dict[str, Difference]] = {}
    for other in models[1:]:
        sampled = compared.get(other.name, {})
        found[other.name] = {
            key: Difference(
                first[key] - other.scores[key],
                *(sampled.get(key, {}).get(name) for name in ("low", "high", "p_bootstrap", "p_randomisation")),
            )
            for key in first
            if key in other.scores
        }
    return found


def _pictures(path: Path, names: Sequence[str]) -> tuple[Picture, ...]:
    if not path.is_file():
        raise CaptuneError(f"{path.parent} holds no scores of single images: there is no {path.name}.", AGAIN)
    return tuple(read_rows(path, lambda row: _picture(row, names), AGAIN))


def _picture(row: Mapping[str, Any], names: Sequence[str]) -> Picture:
    found = [row["models"].get(name) or {} for name in names]
    return Picture(
        id=showable(str(row["id"])),
        image=str(row.get("image") or ""),
        references=tuple(showable(str(text)) for text in row.get("references") or ()),
        captions=tuple(showable(str(one["caption"])) if "caption" in one else None for one in found),
        scores=tuple(_numbers(one) for one in found),
        question=showable(str(row.get("question") or "")),
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among values; what was not measured is left out."""
    return {
        str(key): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
