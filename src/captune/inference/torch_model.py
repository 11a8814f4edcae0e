"""A backbone as a captioning model: images in, captions out, by torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from captune.core.options import GenerationOptions
from captune.core.records import Caption
from captune.decoding.encoding import TextCodec
from captune.images.preprocessing import Preprocessing
from captune.models.backbone import Backbone
from captune.models.generate import generate


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
    def pixels(self) -> Preprocessing:
        return self.backbone.pixels

    @property
    def device(self) -> str:
        return str(self.backbone.device)

    @property
    def precision(self) -> str:
        return str(self.backbone.compute_dtype).removeprefix("torch.")

    @property
    def decoder(self) -> str:
        return self.backbone.searched_by

    @property
    def weights(self) -> int:
        model = self.backbone.model
        return sum(part.numel() * part.element_size() for part in (*model.parameters(), *model.buffers()))

    @property
    def codec(self) -> TextCodec:
        return self.backbone.codec

    def image_tokens(self, width: int, height: int) -> int:
        return self.backbone.image_tokens(width, height)

    def generate(
        self,
        inputs: np.ndarray,
        options: GenerationOptions,
        *,
        prompts: Sequence[str | None] | None = None,
        on_token: Callable[[Any, Any], None] | None = None,
    ) -> list[list[Caption]]:
        with torch.inference_mode():
            features = self.backbone.image_features(inputs)
            return generate(self.backbone, features, options, on_token=on_token, prompts=prompts)
