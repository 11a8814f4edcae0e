"""Validation during training: loss on all references, metrics on generated captions, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption, ImageRecord
from captune.datasets.prepared import sample_records
from captune.evaluation.evaluator import caption_records, likelihood_of_references
from captune.inference.features import CachedFeatures
from captune.inference.processes import ALONE, Processes
from captune.metrics.corpus import MetricContext
from captune.metrics.measure import measure
from captune.models.backbone import Backbone
from captune.training.trackers import CaptionSample


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
        max_caption_tokens: int,
        batch_size: int,
        autocast: torch.dtype | None,
        features: CachedFeatures | None = None,
        processes: Processes = ALONE,
        progress: Progress = SILENT,
    ) -> None:
        self.backbone, self.generation = backbone, generation
        self.records = [record for record in records if record.references]
        self.captioned = sample_records(self.records, images) if images else []
        self.metrics = metrics
        self.shown, self.max_caption_tokens, self.batch_size = shown, max_caption_tokens, batch_size
        self.autocast, self.features, self.progress = autocast, features, progress
        self.processes = processes
        self.samples: list[CaptionSample] = []

    def __call__(self) -> dict[str, float]:
        """`loss` (nats a token), and for captioned images the scores of `metrics`."""
        likelihood = likelihood_of_references(
            self.backbone,
            self._share(self.records),
            longest=self.max_caption_tokens,
            batch_size=self.batch_size,
            autocast=self.autocast,
            features=self.features,
            progress=self.progress,
            label="Validation: loss",
        )
        parts = self.processes.gather((float(likelihood.nll.sum()), int(likelihood.tokens.sum())))
        loss = sum(nll for nll, _ in parts) / max(1, sum(tokens for _, tokens in parts))
        scores = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if self.captioned:
            scores |= self._caption()
        return scores

    def _share(self, records: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
        """This process's share; all together have each record once."""
        return records[self.processes.rank :: self.processes.count]

    def _caption(self) -> dict[str, float]:
        captions = caption_records(
            self.backbone,
            self._share(self.captioned),
            self.generation,
            batch_size=self.batch_size,
            autocast=self.autocast,
            features=self.features,
            progress=self.progress,
            label="Validation: captions",
        )
        captions = {key: one for part in self.processes.gather(captions) for key, one in part.items()}
        scores = self._measured(captions) if self.processes.first else {}
        return self.processes.share(scores)

    def _measured(self, captions: Mapping[str, Caption]) -> dict[str, float]:
        report = measure(
            {record.id: captions[record.id].text for record in self.captioned},
            {record.id: record.references for record in self.captioned},
            metrics=self.metrics,
            context=MetricContext(pictures={record.id: record.image for record in self.captioned}),
            resamples=0,
            progress=self.progress,
        )
        self.samples = [
            CaptionSample(
                record.image,
                captions[record.id].text,
                record.references,
                report.per_image.get(record.id, {}),
                record.question,
            )
            for record in self.captioned[: self.shown]
        ]
        return dict(report.scores)
