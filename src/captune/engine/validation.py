"""Validation during training: loss on all references, metrics on generated captions, samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.engine.evaluator import caption_records, likelihood_of_references, sample_records
from captune.engine.features import Features
from captune.engine.trackers import Sample
from captune.metrics.aids import Aids
from captune.metrics.measure import measure
from captune.models.backbone import Backbone


class Validation:
    """Measures a backbone on a split; `samples` are the captions of the last call."""

    def __init__(
        self,
        backbone: Backbone,
        records: Sequence[ImageRecord],
        generation: GenerationOptions,
        *,
        images: int,
        metrics: Sequence[str],
        shown: int,
        longest: int,
        batch_size: int,
        autocast: torch.dtype | None,
        features: Features | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.backbone, self.generation = backbone, generation
        self.records = [record for record in records if record.references]
        self.captioned = sample_records(self.records, images) if images else []
        self.metrics = metrics
        self.shown, self.longest, self.batch_size = shown, longest, batch_size
        self.autocast, self.features, self.progress = autocast, features, progress
        self.samples: list[Sample] = []

    def __call__(self) -> dict[str, float]:
        """`loss` (nats a token), and for captioned pictures the scores of `metrics`."""
        found = likelihood_of_references(
            self.backbone,
            self.records,
            longest=self.longest,
            batch_size=self.batch_size,
            autocast=self.autocast,
            features=self.features,
            progress=self.progress,
            label="Validation: loss",
        )
        scores = {"loss": found.loss, "perplexity": found.perplexity}
        if self.captioned:
            scores |= self._caption()
        return scores

    def _caption(self) -> dict[str, float]:
        captions = caption_records(
            self.backbone,
            self.captioned,
            self.generation,
            batch_size=self.batch_size,
            autocast=self.autocast,
            features=self.features,
            progress=self.progress,
            label="Validation: captions",
        )
        report = measure(
            {key: caption.text for key, caption in captions.items()},
            {record.id: record.references for record in self.captioned},
            metrics=self.metrics,
            aids=Aids(pictures={record.id: record.image for record in self.captioned}),
            resamples=0,
            progress=self.progress,
        )
        self.samples = [
            Sample(record.image, captions[record.id].text, record.references, report.per_image.get(record.id, {}))
            for record in self.captioned[: self.shown]
        ]
        return dict(report.scores)
