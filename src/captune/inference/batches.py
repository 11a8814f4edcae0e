"""Training batches: images grouped with their references, in an order known from the seed."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from captune.core.errors import CaptuneError, ImageError
from captune.core.records import ImageRecord
from captune.images.batches import read_pixels, stack
from captune.images.open import open_image
from captune.images.preprocessing import augment
from captune.images.workers import end_with_parent
from captune.inference.features import CachedFeatures
from captune.inference.processes import ALONE, Processes
from captune.inference.prompting import prompts_of_records
from captune.models.backbone import Backbone, Encoded, PixelSettings

CLEANED = re.compile(r'[.!"()*#:;~]')


@dataclass(frozen=True)
class Augmentation:
    """How a training image may change; all zero: not at all. Seeded by (seed, epoch, image)."""

    seed: int = 0
    crop: float = 0.0
    flip: bool = False
    color_jitter: float = 0.0

    @property
    def active(self) -> bool:
        return bool(self.crop or self.flip or self.color_jitter)


@dataclass(frozen=True)
class TrainingExample:
    """An image with some of its references; an epoch has every reference once."""

    record: ImageRecord
    references: tuple[Encoded, ...]


def clean_reference(text: str) -> str:
    """A reference as BLIP's authors clean it: lower case, without `.!"()*#:;~`, at most 30 words."""
    return " ".join(CLEANED.sub(" ", text.lower()).split()[:30])


def make_examples(
    records: Sequence[ImageRecord], backbone: Backbone, *, max_tokens: int, per_image: int = 0, clean: bool = False
) -> list[TrainingExample]:
    """Examples of all records; `per_image` references share one (0: all of an image's).

    Raises `CaptuneError` where no record has a reference.
    """
    examples = []
    for record, prompt in zip(records, prompts_of_records(backbone, records), strict=True):
        texts = [clean_reference(r) for r in record.references] if clean else record.references
        encoded = [backbone.encode_reference(text, max_tokens, prompt=prompt) for text in texts]
        step = per_image or max(1, len(encoded))
        examples += [TrainingExample(record, tuple(encoded[i : i + step])) for i in range(0, len(encoded), step)]
    if not examples:
        raise CaptuneError("No training image has a reference.", "Check the train split of the prepared data.")
    return examples


Collate = Callable[[Any], dict[str, Tensor]]


class CaptionDataset(Dataset[tuple[np.ndarray, tuple[Encoded, ...]]]):
    """Examples by (epoch, number): the epoch seeds the augmentation.

    With `features` an example has those of its image instead of pixels.
    """

    def __init__(
        self,
        examples: Sequence[TrainingExample],
        pixels: PixelSettings,
        augmentation: Augmentation,
        features: CachedFeatures | None = None,
    ) -> None:
        self.examples, self.pixels, self.augmentation, self.features = examples, pixels, augmentation, features

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: tuple[int, int]) -> tuple[np.ndarray, tuple[Encoded, ...]]:
        epoch, number = index
        if number < 0:  # fills up the batch of a process: nothing of it is supervised
            example = self.examples[-1 - number]
            idle = Encoded(example.references[0].tokens, len(example.references[0].tokens))
            return self._image(epoch, example), (idle,)
        return self._image(epoch, self.examples[number]), self.examples[number].references

    def _image(self, epoch: int, example: TrainingExample) -> np.ndarray:
        change = self.augmentation
        if self.features is not None:
            return self.features[example.record.image]
        try:
            if not change.active:
                return read_pixels(example.record.image, self.pixels)
            image = open_image(example.record.image)
        except ImageError as error:
            raise CaptuneError(
                f"A training image cannot be read any more: {error.message}",
                "Run `captune prepare` again with --on-bad skip, then continue with --resume.",
            ) from None
        image = augment(
            image,
            seed=change.seed,
            epoch=epoch,
            key=example.record.id,
            crop=change.crop,
            flip=change.flip,
            color_jitter=change.color_jitter,
            references=example.record.references,
        )
        return read_pixels(image, self.pixels)


class EpochOrder(Sampler[tuple[int, int]]):
    """(epoch, number) of every example, shuffled anew each epoch by (seed, epoch) alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return iter([(self.epoch, int(number)) for number in order])


class SharedBatches(Sampler[list[tuple[int, int]]]):
    """Each process's part of every batch of `count` × `batch_size` examples.

    The batches are those of one process with as many images a step. Of the last, short
    one a process may have nothing: it gets an example without a supervised token (numbered
    below 0), so that all take every step together.
    """

    def __init__(self, order: EpochOrder, batch_size: int, rank: int = 0, count: int = 1) -> None:
        self.order, self.batch_size, self.rank, self.count = order, batch_size, rank, count

    def __len__(self) -> int:
        return -(-len(self.order) // (self.batch_size * self.count))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        examples, together = list(self.order), self.batch_size * self.count
        for start in range(0, len(examples), together):
            batch = examples[start : start + together]
            share = batch[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
            yield share or [(batch[0][0], -1 - batch[0][1])]


def collate(examples: Sequence[tuple[np.ndarray, Sequence[Encoded]]], pad: int = 0) -> dict[str, Tensor]:
    """Pixels (or cached features) and ragged references to tensors.

    `images` (images, 3, size, size), uint8, or (images, length, width), uint16; `tokens`
    (captions, width) padded on the right; `lengths`, `owner` and `given` (captions,).
    """
    encoded = [(i, one) for i, (_, references) in enumerate(examples) for one in references]
    lengths = torch.tensor([len(one.tokens) for _, one in encoded])
    tokens = torch.full((len(encoded), int(lengths.max())), pad)
    for row, (_, one) in zip(tokens, encoded, strict=True):
        row[: len(one.tokens)] = torch.tensor(one.tokens)
    return {
        "images": _as_tensors([image for image, _ in examples]),
        "tokens": tokens,
        "lengths": lengths,
        "owner": torch.tensor([i for i, _ in encoded]),
        "given": torch.tensor([one.prompt_length for _, one in encoded]),
    }


def _as_tensors(images: Sequence[np.ndarray]) -> Any:
    """One tensor, or a list where the shapes of images differ."""
    batch = stack(images)
    return [torch.from_numpy(image) for image in images] if batch.dtype == object else torch.from_numpy(batch)


def supervised_tokens(batch: dict[str, Tensor]) -> int:
    """How many tokens of a batch have a loss."""
    return int((batch["lengths"] - batch["given"]).sum())


def training_loader(
    examples: CaptionDataset,
    order: EpochOrder,
    batch_size: int,
    workers: int,
    pad: int,
    together: Collate | None = None,
    processes: Processes = ALONE,
) -> DataLoader:
    """Batches of examples; no global random state is touched, in any number of workers.

    A batch with an image that cannot be read is the `CaptuneError` that says so: raised in a worker, it would reach
    the training as a text without its hint.
    """
    collate_batch = together or partial(collate, pad=pad)

    def collate_or_error(items: Sequence[Any]) -> dict[str, Tensor] | CaptuneError:
        return next((item for item in items if isinstance(item, CaptuneError)), None) or collate_batch(items)

    return DataLoader(
        _ErrorsAsItems(examples),
        batch_sampler=SharedBatches(order, batch_size, processes.rank, processes.count),
        collate_fn=collate_or_error,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(order.seed),
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=lambda _: end_with_parent(),  # also in the middle of an image
    )


class _ErrorsAsItems(Dataset[Any]):
    """Items of a data set, or the error in an item's place."""

    def __init__(self, items: CaptionDataset) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.items[index]
        except CaptuneError as error:
            return error
