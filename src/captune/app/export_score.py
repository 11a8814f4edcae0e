"""An export and its model measured on the same references: what the 8 bits cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from captune.app.export_check import BATCH, batched, searches_of
from captune.core.errors import CaptuneError
from captune.core.progress import Progress, track
from captune.core.records import ImageRecord

if TYPE_CHECKING:
    from captune.models.backbone import Backbone
    from captune.runtime import ExportedModel

METRICS = ("bleu", "rouge_l", "cider")


@dataclass(frozen=True)
class Changed:
    """A score of the model and of the export, 0–1 (CIDEr-D as it is).

    `difference` is the export's minus the model's; `low` and `high` bound its paired bootstrap's 95 % interval and
    `p` is the randomisation test's, all None where nothing was resampled.
    """

    model: float
    export: float
    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Score:
    """A split captioned by both: the share of unchanged captions, how many times as fast, and every score."""

    data: str
    split: str
    pictures: int
    search: str
    identical: float
    speed: float
    scores: dict[str, Changed]


def score(
    backbone: Backbone,
    export: ExportedModel,
    records: Sequence[ImageRecord],
    *,
    data: str,
    split: str,
    resamples: int,
    progress: Progress,
) -> Score:
    """Caption the records' pictures with the model's beams by both, and measure both on the references."""
    from captune.engine.parity import speak_both
    from captune.metrics.measure import measure
    from captune.metrics.significance import compare

    name, options = searches_of(backbone)[-1]
    batches = track(
        batched(_pixels(backbone, records)), progress, f"Captioning {split} ({name})", -(-len(records) // BATCH)
    )
    spoken = speak_both(backbone, export, batches, options)
    references = {record.id: record.references for record in records}
    mine, theirs = (
        measure(
            dict(zip(references, [caption.text for caption in captions], strict=True)), references, METRICS, resamples=0
        )
        for captions in (spoken.mine, spoken.theirs)
    )
    differences = compare(theirs, mine, resamples) if resamples else {}
    changes = {}
    for key, value in mine.scores.items():
        found = differences.get(key)
        bounds = (found.low, found.high, found.p_randomisation) if found else (None, None, None)
        changes[key] = Changed(value, theirs.scores[key], theirs.scores[key] - value, *bounds)
    return Score(data, split, len(records), name, spoken.identical, spoken.ratio, changes)


def _pixels(backbone: Backbone, records: Sequence[ImageRecord]) -> Iterator[np.ndarray]:
    from captune.engine.pictures import stream_pixels

    for _, seen in stream_pixels(((record.id, record.image) for record in records), backbone.pixels):
        if isinstance(seen, CaptuneError):
            raise seen
        yield seen
