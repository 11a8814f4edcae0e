"""How likely an exported model finds references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captune.core.errors import CaptuneError
from captune.core.progress import SILENT, Progress, track
from captune.core.records import ImageRecord
from captune.decoding.encoding import Encoded, prompt_for
from captune.decoding.numpy_ops import NumpyOps
from captune.images.batches import stream_pixels
from captune.inference.runtime.decoder import Memory, empty_cache
from captune.inference.runtime.model import ExportedModel
from captune.metrics.likelihood import ReferenceLikelihood


def likelihood_of_references(
    model: ExportedModel,
    records: Sequence[ImageRecord],
    *,
    max_tokens: int = 512,
    progress: Progress = SILENT,
    label: str = "Loss",
) -> ReferenceLikelihood:
    """The references of each image, read side by side over its memory; an image that cannot be read raises."""
    records = list({record.id: record for record in records if record.references}.values())
    nll, tokens = np.zeros(len(records)), np.zeros(len(records), np.int64)
    stream = stream_pixels(((n, record.image) for n, record in enumerate(records)), model.pixels)
    for n, pixels in track(stream, progress, label, len(records)):
        if isinstance(pixels, CaptuneError):
            raise pixels
        prompt = prompt_for(model.prompt, records[n].question)
        references = [model.codec.reference(text, prompt, max_tokens) for text in records[n].references]
        nll[n], tokens[n] = _likelihood(model, model.memory(pixels[None]), references)
    return ReferenceLikelihood(nll, tokens)


def _likelihood(model: ExportedModel, memory: Memory, references: Sequence[Encoded]) -> tuple[float, int]:
    """Summed negative log-likelihood (nats) and number of the supervised tokens of one image's references."""
    lengths = [len(one.tokens) - 1 for one in references]
    positions = np.concatenate([np.arange(length) for length in lengths])
    owner = np.repeat(np.arange(len(references)), lengths)
    # A token attends to its own reference up to itself.
    visible = (owner[:, None] == owner) & (positions[:, None] >= positions)
    outputs = model.text(
        tokens=np.concatenate([np.array(one.tokens[:-1], np.int64) for one in references])[None],
        positions=positions,
        mask=np.where(visible, np.float32(0), np.float32(-np.inf))[None, None],
        **memory,
        **empty_cache(memory),
    )
    targets = np.concatenate([np.array(one.tokens[1:], np.int64) for one in references])
    supervised = np.concatenate([np.arange(1, len(one.tokens)) >= one.prompt_length for one in references])
    logits = outputs["logits"][0]
    nll = NumpyOps().logsumexp(logits)[:, 0] - logits[np.arange(len(logits)), targets]
    return float(nll[supervised].sum(dtype=np.float64)), int(supervised.sum())
