"""An evaluation as a value, and as the files that hold it: `eval_bleu.json` and `eval_per_image.jsonl`."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from captune.captions.row import confidence_in, known
from captune.core.errors import CaptuneError
from captune.core.files import read_json, read_text, write_json, write_jsonl
from captune.core.files.limits import parse_json
from captune.core.files.paths import mark_written
from captune.core.records import Caption, ImageRecord
from captune.core.runs import EVAL
from captune.core.text import shortened
from captune.datasets.prepared import sample_records
from captune.metrics.report import MetricReport
from captune.metrics.significance import Difference

PER_IMAGE = "eval_per_image.jsonl"
SCALE = "0-1; cider as it is, loss in nats a token"
Row = TypeVar("Row")


@dataclass(frozen=True)
class Evaluation:
    """Reports of one or more models on the same images; the first model is the one that is evaluated.

    `captions` holds every model's caption of every image by id; `comparisons` what the
    first model has over each other one, with intervals and p-values (empty without
    resamples); `folder` the files that were written, or None; `shown_captions` how many images a
    reader wants to see.
    """

    reports: dict[str, MetricReport]
    captions: dict[str, dict[str, Caption]]
    records: tuple[ImageRecord, ...]
    comparisons: dict[str, dict[str, Difference]]
    folder: Path | None
    shown_captions: int = 0

    @property
    def model(self) -> str:
        return next(iter(self.reports))

    @property
    def scores(self) -> dict[str, float]:
        """Scores of the first model, 0–1 (CIDEr-D as it is)."""
        return self.reports[self.model].scores

    def differences(self) -> dict[str, dict[str, float]]:
        """The first model's scores minus each other model's."""
        first = self.reports[self.model]
        return {name: first.difference(other) for name, other in self.reports.items() if name != self.model}

    def relative(self) -> dict[str, dict[str, float]]:
        """Those differences as shares of each other model's scores: 0.25 is a quarter more."""
        first = self.reports[self.model]
        return {name: first.relative(other) for name, other in self.reports.items() if name != self.model}

    def shown(self, count: int) -> list[dict[str, Any]]:
        """The rows of `count` images, chosen by a fixed seed alone."""
        return [self.row(record) for record in sample_records(self.records, count)] if count else []

    def comparisons_json(self) -> dict[str, dict[str, Any]]:
        return {
            other: {key: asdict(difference) for key, difference in found.items()}
            for other, found in self.comparisons.items()
        }

    def row(self, record: ImageRecord) -> dict[str, Any]:
        """One image with every model's caption and scores."""
        models = {}
        for name, report in self.reports.items():
            caption = self.captions[name][record.id]
            scores = report.per_image.get(record.id, {})
            confidence = known(caption.confidence)
            models[name] = {
                "caption": caption.text,
                **({} if confidence is None else {"confidence": confidence}),
                **scores,
            }
        question = {"question": record.question} if record.question else {}
        references = list(record.references)
        return {"id": record.id, "image": record.image, **question, "references": references, "models": models}


def write_evaluation(
    evaluation: Evaluation, folder: str | os.PathLike[str], *, own: bool = True, **fields: Any
) -> None:
    """Write both files; `fields` (data, split, …) stand beside the scores; not `own`: from another machine."""
    first = evaluation.reports[evaluation.model]
    write_json(
        Path(folder) / EVAL,
        {
            "model": evaluation.model,
            **fields,
            "images": first.images,
            "references": first.references,
            "scale": SCALE,
            "models": {name: r.to_json(per_image=False) for name, r in evaluation.reports.items()},
            "differences": evaluation.differences(),
            "relative": evaluation.relative(),
            "comparisons": evaluation.comparisons_json(),
        },
    )
    write_jsonl(Path(folder) / PER_IMAGE, map(evaluation.row, evaluation.records))
    if own:
        mark_written(folder, [PER_IMAGE])


def read_captions(folder: str | os.PathLike[str]) -> tuple[str, tuple[ImageRecord, ...], dict[str, dict[str, Caption]]]:
    """What an evaluation left in a folder: the name of its first model, its records, and every model's captions by id.

    Raises `CaptuneError` where there is no evaluation, or a broken one.
    """
    path = Path(folder) / PER_IMAGE
    if not path.is_file():
        raise CaptuneError(
            f"{folder} holds no evaluation: there is no {PER_IMAGE}.", f"Make one: captune evaluate {folder} --data DIR"
        )
    captions: dict[str, dict[str, Caption]] = {}

    def record(row: Any) -> ImageRecord:
        for name, found in row["models"].items():
            captions.setdefault(name, {})[row["id"]] = Caption(
                _text(found["caption"]), confidence_in(found.get("confidence"))
            )
        references = tuple(map(_text, row["references"]))
        return ImageRecord(_text(row["id"]), _text(row["image"]), references, question=_text(row.get("question", "")))

    records = read_rows(path, record, f"Evaluate again: captune evaluate {folder} --data DIR")
    return _first_model(folder, records, captions), tuple(records), captions


def read_rows(path: Path, convert: Callable[[Any], Row], hint: str) -> list[Row]:
    """Every row of an `eval_per_image.jsonl`, converted; raises `CaptuneError` with the line that is not a row."""
    rows = []
    # Not splitlines(): a caption may hold U+2028.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(convert(parse_json(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CaptuneError(
                f"{path}, line {number}: not a row of an evaluation ({type(error).__name__}: {error}).", hint
            ) from None
    return rows


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shortened(repr(value))} is no text")
    return value


def _first_model(
    folder: str | os.PathLike[str], records: list[ImageRecord], captions: dict[str, dict[str, Caption]]
) -> str:
    """The model that was evaluated first; raises `CaptuneError` where not every model has a caption of every image."""
    found = read_json(Path(folder) / EVAL)
    model = found.get("model", next(iter(captions), "")) if isinstance(found, dict) else None
    if model not in captions:
        raise CaptuneError(f"{folder}: {PER_IMAGE} holds no captions of {model!r}.", "Evaluate again.")
    ids = {record.id for record in records}
    fewer = next((name for name, texts in captions.items() if texts.keys() != ids), None)
    if fewer is not None or len(ids) < len(records):
        problem = f"not every image has a caption of {fewer}" if fewer is not None else "an image stands in it twice"
        raise CaptuneError(f"{folder}: {PER_IMAGE} is not whole: {problem}.", "Evaluate again.")
    return str(model)
