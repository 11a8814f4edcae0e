"""`captune capfilt`: a captioner writes, a matcher filters; noisy pairs in, cleaned records out.

Li et al. 2022 (BLIP), *CapFilt*: web texts and captions that the model wrote are kept where
the matcher finds them true of their image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, write_json
from captune.core.files.paths import CLEANED, mark_written
from captune.core.options import DEFAULT_MODEL, CaptionOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.datasets.prepared import read_prepared, read_split
from captune.inference.captioner import Captioner
from captune.video.video import as_captioning

if TYPE_CHECKING:
    from captune.models.blip_matcher import BlipMatcher

# What went lies aside, where `captune prepare` does not take it for more captions.
RECORDS, DROPPED, REPORT = CLEANED, "report/dropped.jsonl", "report/report.json"


def _no_texts() -> dict[str, int]:
    return {"web": 0, "written": 0}


@dataclass
class Filtered:
    """A cleaned set: its folder, and how many texts of each kind were kept and dropped, and images left without."""

    folder: Path
    failed: dict[str, str]
    kept: dict[str, int] = field(default_factory=_no_texts)
    dropped: dict[str, int] = field(default_factory=_no_texts)
    pictures: int = 0
    empty: int = 0


def capfilt(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    matcher: str | None = None,
    config: str | os.PathLike[str] | None = None,
    sets: Iterable[str] = (),
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Filtered:
    """Write captions for a prepared folder's images, and keep the texts, old and new, that fit their image.

    `out` gets `captions.jsonl` (`captune prepare out/` reads it), `report/dropped.jsonl` with the
    probability of each text that went, and `report/report.json`. `model` captions, `matcher` judges
    (defaults: the Hub's BLIP base and `Salesforce/blip-itm-base-coco`). An image that cannot
    be read is named and left out.
    """
    from captune.models.blip_matcher import MATCHER, BlipMatcher
    from captune.models.loading.devices import choose_device
    from captune.models.loading.loader import load_pretrained

    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise CaptuneError(f"The folder {folder} is not empty.", "Choose another --out.")
    resolved = resolve("capfilt", file=config, environment=environment, flags=options, sets=sets)
    values = resolved.values
    prepared = read_prepared(data)
    by_split = {name: read_split(data, name, allow_outside=values.tables.allow_outside) for name in prepared.splits}
    # Options that were not set are as the captioner was saved, as in `captune caption`.
    with progress.task("Loading the models"):
        captioner = Captioner.load(model or DEFAULT_MODEL, config=as_captioning(resolved, CaptionOptions()))
        judge = load_pretrained(BlipMatcher.load, matcher or MATCHER)
        judge.model.to(choose_device(values.run_on.device))
    written, failed = _written(captioner, [r for records in by_split.values() for r in records], progress)
    made = Filtered(folder, failed)
    (folder / "report").mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / RECORDS) as good, atomic_file(folder / DROPPED) as bad:
        for split, records in by_split.items():
            there = [record for record in records if record.image not in failed]
            for record, texts in _judged(judge, there, written, progress, split):
                _write(replace(record, split=split), texts, values.capfilt.keep_above, made, good, bad)
    mark_written(folder, [RECORDS])
    write_json(
        folder / REPORT,
        {
            "data": str(Path(data).resolve()),
            "captioner": captioner.name,
            "matcher": matcher or MATCHER,
            "keep_above": values.capfilt.keep_above,
            "generation": captioner.options.generation.model_dump(),
            "kept": made.kept,
            "dropped": made.dropped,
            "pictures": made.pictures,
            "pictures_without_text": made.empty,
            "failed": failed,
        },
    )
    return made


def _write(
    record: ImageRecord,
    texts: Sequence[tuple[str, str, float]],
    keep_above: float,
    made: Filtered,
    good: IO[Any],
    bad: IO[Any],
) -> None:
    """Write each text of an image (text, where it comes from, probability) where it belongs, and count it."""
    fitting = []
    for text, kind, chance in texts:
        if chance >= keep_above:
            fitting.append(text)
            made.kept[kind] += 1
        else:
            made.dropped[kind] += 1
            row = {"image": record.image, "text": text, "from": kind, "match": round(chance, 4)}
            bad.write(json.dumps(row, ensure_ascii=False) + "\n")
    made.pictures += bool(fitting)
    made.empty += not fitting
    for text in fitting:  # a row each: a list of single words could be the words of one sentence
        row = {"image": record.image, "caption": text, "split": record.split}
        good.write(json.dumps(row, ensure_ascii=False) + "\n")


def _written(
    captioner: Captioner, records: list[ImageRecord], progress: Progress
) -> tuple[dict[str, str], dict[str, str]]:
    """A caption of each image, and why the others have none."""
    written: dict[str, str] = {}
    failed: dict[str, str] = {}
    stream = captioner.stream((record.image, record.image) for record in records)
    with progress.task("Captioning", len(records)) as task:
        for image, found in stream:
            task.advance(1)
            if isinstance(found, CaptuneError):
                failed[image] = getattr(found, "reason", "") or found.message
            else:
                written[image] = found[0].text
    return written, failed


def _judged(
    judge: BlipMatcher, records: list[ImageRecord], written: dict[str, str], progress: Progress, split: str
) -> Any:
    """Each record with its texts, where they come from, and the probability that they are true."""
    from captune.inference.match import encode_images

    by_image = {record.image: record for record in records}
    for names, patches in encode_images(judge, list(by_image), {}, progress, f"Filtering ({split})"):
        for row, name in enumerate(names):
            record = by_image[name]
            texts = [(text, "web") for text in dict.fromkeys(record.references)]
            if written[name] and written[name] not in record.references:
                texts.append((written[name], "written"))
            together = patches[row : row + 1].expand(len(texts), -1, -1)
            chances = judge.probability(together, [text for text, _ in texts]).tolist() if texts else []
            yield record, [(text, kind, chance) for (text, kind), chance in zip(texts, chances, strict=True)]
