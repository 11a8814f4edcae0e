"""A backbone as a captioning model: images in, captions out, by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.decoding.encoding import TextCodec
from captune.images import batches
from captune.images.batches import Features
from captune.images.open import MAX_PIXELS
from captune.images.preprocessing import Preprocessing, resize_passes, resized_shape
from captune.models.backbone import Backbone, PixelSettings
from captune.models.generate import generate


def caption_pixels(
    backbone: Backbone,
    inputs: np.ndarray,
    options: GenerationOptions,
    on_token: Callable[[Tensor], None] | None = None,
    prompts: Sequence[str | None] | None = None,
) -> list[list[Caption]]:
    """Captions of pixels (images, 3, size, size), uint8, or of cached features; the rest as in `generate`."""
    with torch.inference_mode():
        return generate(
            backbone, backbone.image_features(torch.from_numpy(inputs)), options, on_token=on_token, prompts=prompts
        )


@dataclass(frozen=True)
class TorchModel:
    """A backbone as a `captune.inference.captioning.CaptioningModel`."""

    backbone: Backbone

    @property
    def family(self) -> str:
        return self.backbone.family

    @property
    def prompt(self) -> str:
        return self.backbone.prompt

    @property
    def generation(self) -> Mapping[str, Any]:
        return self.backbone.generation

    @property
    def pixels(self) -> TorchPreprocessing:
        return preprocessing_of(self.backbone.pixels)

    @property
    def device(self) -> str:
        return str(self.backbone.device)

    @property
    def precision(self) -> str:
        return str(self.backbone.compute_dtype).removeprefix("torch.")

    @property
    def decoder(self) -> str:
        return self.backbone.decoder

    @property
    def weights(self) -> int:
        model = self.backbone.model
        return sum(part.numel() * part.element_size() for part in (*model.parameters(), *model.buffers()))

    @property
    def codec(self) -> TextCodec:
        return self.backbone.codec

    def generate(
        self,
        inputs: np.ndarray,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Any], None] | None = None,
    ) -> list[list[Caption]]:
        return caption_pixels(self.backbone, inputs, options, on_token, prompts)


Key = TypeVar("Key")


class TorchPreprocessing(Preprocessing):
    """A square whose quick resize takes a quarter of Pillow's time."""

    def apply(self, levels: np.ndarray) -> np.ndarray:
        shape = levels.shape[1], levels.shape[0]
        image = torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0)
        first, (across, down) = resize_passes(shape, resized_shape(shape, self.size, self.shorter))
        if first[1] == down:  # columns first; torch itself begins with the rows
            image = interpolate(image, (down, first[0]), mode="bicubic", antialias=True)
        image = interpolate(image, (down, across), mode="bicubic", antialias=True)
        left, top = (across - self.size) // 2, (down - self.size) // 2
        return image[0, :, top : top + self.size, left : left + self.size].contiguous().numpy()


def preprocessing_of(settings: PixelSettings) -> TorchPreprocessing:
    """What of a model's settings is not arithmetic of its first layer."""
    return TorchPreprocessing(settings.size, settings.resample, settings.shorter, settings.fast)


def read_pixels(source: Any, settings: PixelSettings, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The model's pixels (3, size, size), uint8, of a path, bytes, what fetches them, or a PIL picture."""
    return batches.read_pixels(source, preprocessing_of(settings), max_pixels)


def stream_pixels(
    items: Iterable[tuple[Key, Any]],
    settings: PixelSettings,
    *,
    workers: int = 0,
    max_pixels: int = MAX_PIXELS,
    features: Features | None = None,
) -> Iterator[tuple[Key, np.ndarray | CaptuneError]]:
    """As `captune.images.batches.stream_pixels`."""
    preprocessing = preprocessing_of(settings)
    return batches.stream_pixels(items, preprocessing, workers=workers, max_pixels=max_pixels, features=features)
