"""CLIP and SigLIP: images and texts as vectors in one space, and how likely texts are of an image.

Radford et al. 2021; Zhai et al. 2023, *Sigmoid Loss for Language Image Pre-Training*. Weights and layers are those of
`transformers`. CLIP shares a probability of 1 among all texts (softmax); SigLIP has one for each text by itself
(sigmoid).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from captune.core.errors import CaptuneError
from captune.models.backbone import PixelSettings
from captune.models.from_scratch import learn_tokenizer
from captune.models.loading.pretrained import load_processor, load_tokenizer, pretrained

CLIP, SIGLIP = ("clip",), ("siglip", "siglip2")


@dataclass
class ClipMatcher:
    """A `transformers` CLIP, SigLIP or SigLIP 2 in fp32."""

    model: Any
    tokenizer: Any
    pixels: PixelSettings

    @classmethod
    def load(cls, name: str | Path, **hub: Any) -> ClipMatcher:
        from transformers import AutoModel

        model: Any = pretrained(AutoModel, name, dtype=torch.float32, **hub)
        if model.config.model_type not in CLIP + SIGLIP:
            raise CaptuneError(f"{name} is a {model.config.model_type}, no CLIP.", "Take a CLIP or a SigLIP.")
        return cls(model.eval(), load_tokenizer(name, **hub), PixelSettings.of(load_processor(name, **hub)))

    @classmethod
    def tiny(
        cls, kind: str = "clip", texts: Iterable[str] = ("a photo of a red circle", "two dogs play")
    ) -> ClipMatcher:
        """One with random weights, for tests."""
        from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

        tokenizer = learn_tokenizer(texts, 200)
        ids = tokenizer.get_vocab()
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {**size, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
        special = {"bos_token_id": ids["[CLS]"], "eos_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
        config_class, model_class, more = (
            (CLIPConfig, CLIPModel, {"projection_dim": 16}) if kind == "clip" else (SiglipConfig, SiglipModel, {})
        )
        config = config_class(
            text_config={**text, **special}, vision_config={**size, "image_size": 32, "patch_size": 8}, **more
        )
        return cls(model_class(config).eval(), tokenizer, PixelSettings(32, mean=(0.5,) * 3, std=(0.5,) * 3))

    def save(self, folder: str | Path) -> None:
        """In the Hub's layout."""
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        side = {"height": self.pixels.size, "width": self.pixels.size}
        mean, std = list(self.pixels.mean), list(self.pixels.std)
        processor = SiglipImageProcessorPil(size=side, image_mean=mean, image_std=std, resample=self.pixels.resample)
        processor.save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def shared(self) -> bool:
        """Whether the probabilities of all texts add up to 1."""
        return self.model.config.model_type in CLIP

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (images, 3, size, size), uint8, to features (images, size)."""
        return _pooled(self.model.get_image_features(pixel_values=self.pixels.normalise(pixels.to(self.device))))

    @torch.inference_mode()
    def embed_images(self, features: Tensor) -> Tensor:
        """Unit vectors (images, size)."""
        return functional.normalize(features.float(), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (texts, size); what is longer than the model reads is cut."""
        longest = self.model.config.text_config.max_position_embeddings
        if self.shared:
            found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
            inputs = {name: found[name].to(self.device) for name in ("input_ids", "attention_mask")}
        else:  # trained on lower case, padded to one length without a mask
            lower = [text.lower() for text in texts]
            found = self.tokenizer(
                lower, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
            )
            inputs = {"input_ids": found["input_ids"].to(self.device)}
        return functional.normalize(_pooled(self.model.get_text_features(**inputs)).float(), dim=-1)

    @torch.inference_mode()
    def probabilities(self, cosines: Tensor) -> Tensor:
        """Probabilities (images, texts) of cosines of the same shape."""
        logits = cosines * self.model.logit_scale.exp()
        return logits.softmax(-1) if self.shared else (logits + self.model.logit_bias).sigmoid()


def _pooled(features: Any) -> Tensor:
    return getattr(features, "pooler_output", features)
