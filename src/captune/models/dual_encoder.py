"""CLIP, SigLIP and their like: one model for images and one for texts, whose vectors lie in one space.

Radford et al. 2021, *Learning Transferable Visual Models From Natural Language Supervision*; Zhai et al. 2023, *Sigmoid
Loss for Language Image Pre-Training*. Weights and layers are those of `transformers`: every model with
`get_image_features` and `get_text_features`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from captune.core.errors import CaptuneError
from captune.images.preprocessing import Preprocessing
from captune.models.backbone import PixelSettings
from captune.models.loading.pretrained import load_processor, load_tokenizer, pretrained
from captune.models.matcher import ADVICE, Matcher, check_whole

# Text models that count positions from behind the id of their padding.
_COUNT_BEHIND_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "altclip_text_model")


@dataclass
class DualEncoder(Matcher):
    """A dual encoder in fp32; `processor` prepares its images where those are no squares of one size."""

    model: Any
    tokenizer: Any
    pixels: Preprocessing
    processor: Any = None

    @classmethod
    def load(cls, name: str | Path, **hub: Any) -> DualEncoder:
        """Of a folder or a Hub id; raises `CaptuneError` for weights that are not whole."""
        from transformers import AutoModel

        model, report = pretrained(AutoModel, name, dtype=torch.float32, output_loading_info=True, **hub)
        # Only a `VisionTextDualEncoderModel` uses BERT's pooler, which the weights of others may lack.
        pools = model.config.model_type == "vision-text-dual-encoder"
        check_whole(name, [each for each in report["missing_keys"] if pools or ".pooler." not in each])
        if model.config.model_type == "aimv2":
            # transformers 5.23: its texts are causal with sdpa only where one is padded.
            model.set_attn_implementation("eager")
        tokenizer = load_tokenizer(name, **hub)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        processor = load_processor(name, **hub)
        try:
            settings = PixelSettings.of(processor)
        except (CaptuneError, AttributeError, TypeError):
            return cls(model.eval(), tokenizer, Preprocessing(0), processor)
        return cls(model.eval(), tokenizer, settings)

    @property
    def shared(self) -> bool:
        return not self._is_sigmoid

    @property
    def _is_sigmoid(self) -> bool:
        return hasattr(self.model, "logit_bias")

    @property
    def longest(self) -> int:
        text = self.model.config.text_config
        positions = int(getattr(text, "max_position_embeddings", 0) or 1_000_000)
        if text.model_type in _COUNT_BEHIND_PADDING:
            positions -= text.pad_token_id + 1
        return min(positions, int(self.tokenizer.model_max_length))

    def encode_all(self, images: Sequence[np.ndarray]) -> Tensor:
        if self.processor is None:
            return super().encode_all(images)
        ready = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
        inputs = self.processor(images=ready, return_tensors="pt")
        with torch.inference_mode():
            return self._features(**{name: value.to(self.device) for name, value in inputs.items()})

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (images, 3, size, size), uint8, to features (images, size)."""
        if not isinstance(self.pixels, PixelSettings):
            return self.encode_all(list(pixels.cpu().numpy()))
        return self._features(pixel_values=self.pixels.normalise(pixels.to(self.device)))

    def _features(self, **inputs: Tensor) -> Tensor:
        return _pooled(self.model.get_image_features(**inputs), self.model)

    @torch.inference_mode()
    def embed_images(self, features: Tensor) -> Tensor:
        return functional.normalize(features.float(), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        padding = "max_length" if self._is_sigmoid else True
        found = self.tokenizer(
            self.read_as(texts), padding=padding, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        names = ("input_ids",) if self._is_sigmoid else ("input_ids", "attention_mask")
        inputs = {name: found[name].to(self.device) for name in names if name in found}
        return functional.normalize(_pooled(self.model.get_text_features(**inputs), self.model).float(), dim=-1)

    def read_as(self, texts: Sequence[str]) -> list[str]:
        """SigLIP was trained on lower case, its texts padded to one length without a mask."""
        return [text.lower() for text in texts] if self._is_sigmoid else list(texts)

    def probabilities(self, features: Tensor, texts: Sequence[str], cosines: Tensor) -> Tensor:
        return self.of_cosines(cosines)

    @torch.inference_mode()
    def of_cosines(self, cosines: Tensor) -> Tensor:
        """Probabilities (images, texts) of cosines of the same shape: of a pair by itself, or shared (softmax)."""
        if self._is_sigmoid:
            return (cosines * self.model.logit_scale.exp() + self.model.logit_bias).sigmoid()
        if hasattr(self.model, "temperature"):  # ALIGN
            return (cosines / self.model.temperature).softmax(-1)
        scale = self.model.logit_scale
        if hasattr(self.model, "max_log_logit_scale"):  # AIMv2
            scale = scale.clamp(0.0, self.model.max_log_logit_scale)
        return (cosines * scale.exp()).softmax(-1)


def _pooled(features: Any, model: Any) -> Tensor:
    vectors = getattr(features, "pooler_output", features)
    if isinstance(vectors, Tensor) and model.config.model_type == "flava":
        vectors = vectors[:, 0]  # there is one of every token; its loss compares the first
    if not isinstance(vectors, Tensor) or vectors.dim() != 2:
        raise CaptuneError(f"{type(model).__name__} gives no vector of a whole image or text.", ADVICE)
    return vectors
