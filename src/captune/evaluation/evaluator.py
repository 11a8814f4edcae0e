"""The likelihood that a backbone gives references, and the number type of training."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from captune.core.errors import CaptuneError
from captune.core.machine import LESS_MEMORY, Halving, OutOfMemory
from captune.core.progress import SILENT, Progress, track
from captune.core.records import ImageRecord
from captune.images.batches import Features, stream_pixels
from captune.inference.batches import collate
from captune.inference.prompting import prompts_of_records
from captune.metrics.corpus import ReferenceLikelihood
from captune.models.backbone import Backbone


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

    halving = Halving(LESS_MEMORY)

    def losses_of(part: list[tuple[ImageRecord, np.ndarray]]) -> list[tuple[float, int]]:
        """Sum of losses and number of tokens of each image."""
        prompts = prompts_of_records(backbone, [record for record, _ in part])
        batch = collate(
            [
                (pixels, [backbone.encode_reference(text, longest, prompt=prompt) for text in record.references])
                for (record, pixels), prompt in zip(part, prompts, strict=True)
            ],
            backbone.pad_token_id,
        )
        images = batch.pop("images")
        on = {name: value.to(backbone.device) for name, value in batch.items()}
        with torch.inference_mode():
            memory = backbone.image_features(images)
            losses = backbone.token_losses(memory, on["tokens"], on["lengths"], on["owner"], on["given"])
        image = batch["owner"].numpy()[losses.caption.cpu().numpy()]
        sums = np.bincount(image, losses.nll.double().cpu().numpy(), minlength=len(part))
        return list(zip(sums.tolist(), np.bincount(image, minlength=len(part)).tolist(), strict=True))

    def flush() -> None:
        found = halving.results(len(waiting), lambda start, end: losses_of(waiting[start:end]))
        for (record, _), loss in zip(waiting, found, strict=True):
            if loss is None:
                raise OutOfMemory(f"There is not memory enough for the references of {record.id}.", LESS_MEMORY)
            nll[place[record.id]], tokens[place[record.id]] = loss
        waiting.clear()

    with autocast_to(backbone, autocast):
        stream = stream_pixels(items, backbone.pixels, features=features)
        for key, pixels in track(stream, progress, label, len(by_id)):
            if isinstance(pixels, CaptuneError):
                raise pixels
            waiting.append((by_id[key], pixels))
            if len(waiting) == batch_size:
                flush()
        flush()
    return ReferenceLikelihood(nll, tokens)


def autocast_to(backbone: Backbone, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Compute in `dtype` within the block, as training does; None and fp32 change nothing."""
    if dtype in (None, torch.float32):
        return nullcontext()
    return torch.autocast(backbone.device.type, dtype)
