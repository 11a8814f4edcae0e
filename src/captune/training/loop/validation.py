"""Validation during training: loss on all references, metrics on generated captions, samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch

from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress
from captune.core.records import Caption, ImageRecord
from captune.datasets.prepared import sample_records
from captune.evaluation.evaluator import autocast_to, likelihood_of_references
from captune.inference.captioning import caption_records
from captune.inference.features import CachedFeatures
from captune.inference.processes import ALONE, Processes
from captune.inference.torch_model import TorchModel
from captune.metrics.corpus import MetricContext
from captune.metrics.measure import measure
from captune.models.backbone import Backbone
from captune.training.trackers import CaptionSample


@dataclass(eq=False)
class Validation:
    """Measures a backbone on the records that have references, and captions so many `images` of them (0: none).

    `samples` are the first `shown` captions of the last call.
    """

    backbone: Backbone
    records: Sequence[ImageRecord]
    generation: GenerationOptions
    _: KW_ONLY
    images: int
    metrics: Sequence[str]
    shown: int
    max_caption_tokens: int
    batch_size: int
    autocast: torch.dtype | None
    features: CachedFeatures | None = None
    processes: Processes = ALONE
    progress: Progress = SILENT
    samples: list[CaptionSample] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.records = [record for record in self.records if record.references]
        self.captioned = sample_records(self.records, self.images) if self.images else []

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
        with autocast_to(self.backbone, self.autocast):
            captions = caption_records(
                TorchModel(self.backbone),
                self._share(self.captioned),
                self.generation,
                batch_size=self.batch_size,
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
