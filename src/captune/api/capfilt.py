"""`captune capfilt`: a captioner writes, a matcher filters; noisy pairs in, cleaned records out.

Li et al. 2022 (BLIP), *CapFilt*: web texts and captions that the model wrote are kept where
the matcher finds them true of their image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import atomic_file, write_json
from captune.core.files.paths import CLEANED, mark_written
from captune.core.options import DEFAULT_MATCHER, DEFAULT_MODEL, CapFiltOptions, CaptionOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.datasets.prepared import read_prepared, read_split
from captune.inference.captioner import Captioner
from captune.video.video import as_captioning

if TYPE_CHECKING:
    from captune.inference.match import Match
    from captune.models.matcher import Matcher

# What went lies aside, where `captune prepare` does not take it for more captions.
RECORDS, DROPPED, REPORT = CLEANED, "report/dropped.jsonl", "report/report.json"


def _no_texts() -> dict[str, int]:
    return {"web": 0, "written": 0}


@dataclass
class Filtered:
    """A cleaned set: its folder, and how many texts of each kind were kept and dropped, and images left without.

    Of `cut` texts the matcher read only the beginning.
    """

    folder: Path
    failed: dict[str, str]
    kept: dict[str, int] = field(default_factory=_no_texts)
    dropped: dict[str, int] = field(default_factory=_no_texts)
    pictures: int = 0
    empty: int = 0
    cut: int = 0


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
    probability (None of a CLIP) and the cosine of each text that went, and `report/report.json`. `model` captions,
    `matcher` judges: any that `match` takes (defaults: the Hub's BLIP base and `Salesforce/blip-itm-base-coco`). An
    image that cannot be read is named and left out.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise CaptuneError(f"The folder {folder} is not empty.", "Choose another --out.")
    resolved = resolve("capfilt", file=config, environment=environment, flags=options, sets=sets)
    values = resolved.values
    prepared = read_prepared(data)
    by_split = {name: read_split(data, name, allow_outside=values.tables.allow_outside) for name in prepared.splits}
    judge = _load_judge(matcher or DEFAULT_MATCHER, values, progress)
    # Options that were not set are as the captioner was saved, as in `captune caption`.
    with progress.task("Loading the captioner"):
        captioner = Captioner.load(model or DEFAULT_MODEL, config=as_captioning(resolved, CaptionOptions()))
    written, failed = _written(captioner, [r for records in by_split.values() for r in records], progress)
    made = Filtered(folder, failed)
    (folder / "report").mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / RECORDS) as good, atomic_file(folder / DROPPED) as bad:
        for split, records in by_split.items():
            there = [record for record in records if record.image not in failed]
            for record, texts in _judged(judge, there, written, progress, split):
                _write(replace(record, split=split), texts, values.capfilt, made, good, bad)
    mark_written(folder, [RECORDS])
    write_json(
        folder / REPORT,
        {
            "data": str(Path(data).resolve()),
            "captioner": captioner.name,
            "matcher": matcher or DEFAULT_MATCHER,
            "keep_above": None if judge.shared else values.capfilt.keep_above,
            "keep_cosine": values.capfilt.keep_cosine,
            "generation": captioner.options.generation.model_dump(),
            "kept": made.kept,
            "dropped": made.dropped,
            "cut": made.cut,
            "pictures": made.pictures,
            "pictures_without_text": made.empty,
            "failed": failed,
        },
    )
    return made


def _load_judge(name: str, values: Any, progress: Progress) -> Matcher:
    """The matcher; raises `UsageError` for one without probabilities where no lowest cosine is set."""
    from captune.models.matcher import load_matcher

    judge = load_matcher(name, values.run_on.device, progress)
    if judge.shared and values.capfilt.keep_cosine is None:
        raise UsageError(
            f"{name} has no probability that a text is true of an image: it compares texts with each other.",
            "Give the lowest cosine of a kept text, --keep-cosine 0.28 for example (captune match shows cosines); or "
            f"a matcher with probabilities: {DEFAULT_MATCHER}, a SigLIP.",
        )
    return judge


def _write(
    record: ImageRecord,
    texts: Sequence[tuple[str, Match]],
    limits: CapFiltOptions,
    made: Filtered,
    good: IO[Any],
    bad: IO[Any],
) -> None:
    """Write each text of an image (where it comes from, its match) where it belongs, and count it."""
    fitting = []
    for kind, found in texts:
        made.cut += found.cut
        likely = found.probability is None or found.probability >= limits.keep_above
        if likely and (limits.keep_cosine is None or found.similarity >= limits.keep_cosine):
            fitting.append(found.text)
            made.kept[kind] += 1
        else:
            made.dropped[kind] += 1
            chance = None if found.probability is None else round(found.probability, 4)
            row = {"image": record.image, "text": found.text, "from": kind, "match": chance}
            row["cosine"] = round(found.similarity, 4)
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
    judge: Matcher, records: list[ImageRecord], written: dict[str, str], progress: Progress, split: str
) -> Iterator[tuple[ImageRecord, list[tuple[str, Match]]]]:
    """Each record with its texts: where they come from, and how well they fit."""
    from captune.inference.match import encode_images, pairs_of

    by_image = {record.image: record for record in records}
    for names, features in encode_images(judge, list(by_image), {}, progress, f"Filtering ({split})"):
        for row, name in enumerate(names):
            record = by_image[name]
            kinds = dict.fromkeys(record.references, "web")
            if written[name]:
                kinds.setdefault(written[name], "written")
            texts = list(kinds)
            if texts:
                vectors, cut = judge.embed_texts(texts), judge.cut(texts)
                pairs = pairs_of(judge, features[row : row + 1], texts, vectors, cut)[0]
                yield record, [(kinds[pair.text], pair) for pair in pairs]
            else:
                yield record, []
