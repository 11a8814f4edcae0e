"""BLIP's matching: how well a text fits an image.

Li et al. 2022, *BLIP: Bootstrapping Language-Image Pre-training*; weights and layers are
`transformers.BlipForImageTextRetrieval`. Padding is masked, images are encoded once for all their texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from captune.models.backbone import PixelSettings
from captune.models.from_scratch import learn_tokenizer
from captune.models.loading.pretrained import load_tokenizer, pretrained, readable_by_earlier
from captune.models.matcher import Matcher, check_whole, no_matcher


@dataclass
class BlipMatcher(Matcher):
    """Texts and images in one space, and the probability that a text is true of an image."""

    # Of `transformers`.
    architecture: ClassVar[str] = "BlipForImageTextRetrieval"
    model: Any
    tokenizer: Any
    pixels: PixelSettings

    @classmethod
    def load(cls, name: str | Path, **hub: Any) -> BlipMatcher:
        """Of a folder or a Hub id; raises `CaptuneError` for another model, or weights that are not whole."""
        import transformers
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        config = pretrained(transformers.AutoConfig, name, **hub)
        if cls.architecture not in (config.architectures or ()):
            raise no_matcher(name, config)
        kind = getattr(transformers, cls.architecture)
        model, report = pretrained(kind, name, dtype=torch.float32, output_loading_info=True, **hub)
        check_whole(name, list(report["missing_keys"]))
        tokenizer = load_tokenizer(name, **hub)
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        return cls(model.eval(), tokenizer, PixelSettings.of(pretrained(BlipImageProcessorPil, name, **hub)))

    @classmethod
    def tiny(cls, texts: Iterable[str] = ("a red circle", "two dogs play")) -> BlipMatcher:
        """One with random weights, for tests."""
        from transformers import BlipConfig, BlipForImageTextRetrieval

        tokenizer = learn_tokenizer(texts, 200)
        ids = tokenizer.get_vocab()
        narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {"bos_token_id": ids["[DEC]"], "sep_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
        config = BlipConfig(
            vision_config={**narrow, "image_size": 32, "patch_size": 8, "initializer_range": 0.02},
            text_config={**narrow, **text, "encoder_hidden_size": 32, "vocab_size": len(tokenizer)},
            image_text_hidden_size=16,
        )
        return cls(
            BlipForImageTextRetrieval(config).eval(), tokenizer, PixelSettings(32, mean=(0.5,) * 3, std=(0.5,) * 3)
        )

    def save(self, folder: str | Path) -> None:
        """In the Hub's layout."""
        from transformers import BlipProcessor
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        self.model.save_pretrained(folder)
        side = {"height": self.pixels.size, "width": self.pixels.size}
        mean, std = list(self.pixels.mean), list(self.pixels.std)
        processor = BlipImageProcessorPil(size=side, image_mean=mean, image_std=std, resample=self.pixels.resample)
        BlipProcessor(processor, self.tokenizer).save_pretrained(folder)
        readable_by_earlier(Path(folder))

    @property
    def longest(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (images, 3, size, size), uint8, to patches (images, length, width)."""
        values = self.pixels.normalise(pixels.to(self.device)).to(next(self.model.parameters()).dtype)
        return self.model.vision_model(values).last_hidden_state

    @torch.inference_mode()
    def embed_images(self, patches: Tensor) -> Tensor:
        """Unit vectors (images, size)."""
        return functional.normalize(self.model.vision_proj(patches[:, 0]), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (texts, size)."""
        read = self.model.text_encoder(**self._text_inputs(texts)).last_hidden_state
        return functional.normalize(self.model.text_proj(read[:, 0]), dim=-1)

    @torch.inference_mode()
    def probability(self, patches: Tensor, texts: Sequence[str]) -> Tensor:
        """For each row (rows, length, width) and the text beside it, the probability that they belong together."""
        image_mask = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        read = self.model.text_encoder(
            **self._text_inputs(texts), encoder_hidden_states=patches, encoder_attention_mask=image_mask
        ).last_hidden_state
        return self.model.itm_head(read[:, 0]).float().softmax(-1)[:, 1]

    def probabilities(self, features: Tensor, texts: Sequence[str], cosines: Tensor) -> Tensor:
        """The probability of every pair, each read together."""
        return torch.stack([self.probability(features, [text] * len(features)) for text in texts], 1)

    def _text_inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        return {name: found[name].to(self.device) for name in ("input_ids", "attention_mask")}
