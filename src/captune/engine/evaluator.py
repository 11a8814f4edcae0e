"""A model against references: its captions, and the likelihood it gives the references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.progress import SILENT, Progress, track
from captune.core.records import Caption, ImageRecord
from captune.engine.batches import collate
from captune.engine.captioning import caption_stream
from captune.engine.features import Features
from captune.engine.pictures import stream_pixels
from captune.metrics.corpus import Measured
from captune.metrics.statistics import Statistics
from captune.models.backbone import Backbone


@dataclass(frozen=True)
class ReferenceLikelihood:
    """Summed negative log-likelihood (nats) of each image's references, and the number of their tokens, end included.

    `nll` and `tokens` (N,) are in the order of the records.
    """

    nll: np.ndarray
    tokens: np.ndarray

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of a token."""
        return float(self.nll.sum() / max(1, self.tokens.sum()))

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def measured(self) -> Measured:
        """Keys `loss` and `perplexity`, corpus and per image, as a metric gives them."""
        rows = np.stack([self.nll, self.tokens], axis=1)
        keys = ("loss", "perplexity")
        per_image = dict(zip(keys, _likelihoods(rows).T, strict=True))
        return Measured(
            {"loss": self.loss, "perplexity": self.perplexity}, per_image, {}, Statistics(keys, rows, _likelihoods)
        )


def joined(parts: Sequence[ReferenceLikelihood]) -> ReferenceLikelihood:
    """The whole of shares that took every n-th record."""
    count = sum(len(part.nll) for part in parts)
    nll, tokens = np.zeros(count), np.zeros(count, np.int64)
    for first, part in enumerate(parts):
        nll[first :: len(parts)], tokens[first :: len(parts)] = part.nll, part.tokens
    return ReferenceLikelihood(nll, tokens)


def _likelihoods(sums: np.ndarray) -> np.ndarray:
    """Loss and perplexity (…, 2) from sums (…, 2) of log-likelihoods and tokens."""
    loss = sums[..., 0] / np.maximum(1, sums[..., 1])
    return np.stack([loss, np.exp(np.minimum(loss, 700.0))], axis=-1)


def sample_records(records: Sequence[ImageRecord], count: int, seed: int = 42) -> list[ImageRecord]:
    """`count` records (0: all) in their order, chosen by the seed alone."""
    if not 0 < count < len(records):
        return list(records)
    chosen = np.random.default_rng(seed).choice(len(records), count, replace=False)
    return [records[i] for i in sorted(chosen)]


def caption_records(
    backbone: Backbone,
    records: Sequence[ImageRecord],
    options: GenerationOptions,
    *,
    batch_size: int = 16,
    autocast: torch.dtype | None = None,
    features: Features | None = None,
    progress: Progress = SILENT,
    label: str = "Captioning",
) -> dict[str, Caption]:
    """The best caption of each record, or answer to its question, by its id.

    A picture that cannot be read raises its error.
    """
    captions: dict[str, Caption] = {}
    prompts = {record.id: backbone.asking(record.question, options.prompt) for record in records if record.question}
    items = ((record.id, record.image) for record in records)
    with _autocast(backbone, autocast):
        stream = caption_stream(backbone, items, options, prompts=prompts, batch_size=batch_size, features=features)
        for key, found in track(stream, progress, label, len(records)):
            if isinstance(found, CaptuneError):
                raise found
            captions[key] = found[0]
    return captions


def likelihood_of_references(
    backbone: Backbone,
    records: Sequence[ImageRecord],
    *,
    longest: int = 512,
    batch_size: int = 16,
    autocast: torch.dtype | None = None,
    features: Features | None = None,
    progress: Progress = SILENT,
    label: str = "Loss",
) -> ReferenceLikelihood:
    """How likely the model finds the references, by the forward pass that training uses."""
    by_id = {record.id: record for record in records if record.references}
    place = {key: index for index, key in enumerate(by_id)}
    nll, tokens = np.zeros(len(by_id)), np.zeros(len(by_id), np.int64)
    items = ((key, record.image) for key, record in by_id.items())
    waiting: list[tuple[ImageRecord, np.ndarray]] = []

    def flush() -> None:
        if not waiting:
            return
        batch = collate(
            [
                (pixels, [backbone.encode_reference(t, longest, r.question) for t in r.references])
                for r, pixels in waiting
            ],
            backbone.pad,
        )
        on = {name: value.to(backbone.device) for name, value in batch.items()}
        with torch.inference_mode():
            memory = backbone.memory(on["seen"])
            losses = backbone.token_losses(memory, on["tokens"], on["lengths"], on["owner"], on["given"])
        owners = np.array([place[record.id] for record, _ in waiting])[batch["owner"].numpy()]
        image = owners[losses.caption.cpu().numpy()]
        np.add.at(nll, image, losses.nll.double().cpu().numpy())
        np.add.at(tokens, image, 1)
        waiting.clear()

    with _autocast(backbone, autocast):
        stream = stream_pixels(items, backbone.pixels, features=features)
        for key, pixels in track(stream, progress, label, len(by_id)):
            if isinstance(pixels, CaptuneError):
                raise pixels
            waiting.append((by_id[key], pixels))
            if len(waiting) == batch_size:
                flush()
        flush()
    return ReferenceLikelihood(nll, tokens)


def _autocast(backbone: Backbone, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    if dtype in (None, torch.float32):
        return nullcontext()
    return torch.autocast(backbone.device.type, dtype)
