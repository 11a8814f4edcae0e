"""BLIP's other two modes: how well a text fits a picture, and answers to questions about one.

Li et al. 2022. Weights and layers are `transformers`' `BlipForImageTextRetrieval` and
`BlipForQuestionAnswering`; padding is masked, pictures are encoded once for all their texts.
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
from captune.models.pixels import PixelSettings
from captune.models.vocabulary import learn_tokenizer

MATCHER = "Salesforce/blip-itm-base-coco"
ANSWERER = "Salesforce/blip-vqa-base"


@dataclass
class BlipMode:
    """A model with its tokenizer and pixels."""

    model: Any
    tokenizer: Any
    pixels: PixelSettings

    @classmethod
    def _load(cls, name: str, kind: str, wanted: str, **hub: Any) -> Any:
        import transformers
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        built = AutoConfig.from_pretrained(name, **hub).architectures or []
        if kind not in built:
            raise CaptuneError(
                f"{name} is a {', '.join(built) or 'model of an unknown kind'}: it was not trained for this.",
                f"Take a {kind} such as {wanted}.",
            )
        model = getattr(transformers, kind).from_pretrained(name, dtype=torch.float32, **hub).eval()
        tokenizer = AutoTokenizer.from_pretrained(name, **hub)
        return cls(model, tokenizer, PixelSettings.of(BlipImageProcessorPil.from_pretrained(name, **hub)))

    @classmethod
    def _tiny(cls, kind: str, texts: Iterable[str]) -> Any:
        import transformers
        from transformers import BlipConfig

        tokenizer = learn_tokenizer(texts, 200)
        ids = tokenizer.get_vocab()
        narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text = {"bos_token_id": ids["[DEC]"], "sep_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
        config = BlipConfig(
            vision_config={**narrow, "image_size": 32, "patch_size": 8, "initializer_range": 0.02},
            text_config={**narrow, **text, "encoder_hidden_size": 32, "vocab_size": len(tokenizer)},
            image_text_hidden_size=16,
        )
        model = getattr(transformers, kind)(config).eval()
        return cls(model, tokenizer, PixelSettings(32, (0.5,) * 3, (0.5,) * 3))

    def save(self, folder: str | Path) -> None:
        """In the Hub's layout."""
        from transformers import BlipProcessor
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        self.model.save_pretrained(folder)
        side = {"height": self.pixels.size, "width": self.pixels.size}
        mean, std = list(self.pixels.mean), list(self.pixels.std)
        processor = BlipImageProcessorPil(size=side, image_mean=mean, image_std=std, resample=self.pixels.resample)
        BlipProcessor(processor, self.tokenizer).save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def look(self, seen: Tensor) -> Tensor:
        """Pixels (pictures, 3, size, size), uint8, to patches (pictures, length, width)."""
        values = self.pixels.normalise(seen.to(self.device)).to(next(self.model.parameters()).dtype)
        return self.model.vision_model(values).last_hidden_state

    def _words(self, texts: Sequence[str]) -> dict[str, Tensor]:
        longest = self.model.config.text_config.max_position_embeddings
        found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return {name: found[name].to(self.device) for name in ("input_ids", "attention_mask")}


class BlipMatcher(BlipMode):
    """Texts and pictures in one space, and the probability that a text is true of a picture."""

    @classmethod
    def load(cls, name: str, **hub: Any) -> BlipMatcher:
        return cls._load(name, "BlipForImageTextRetrieval", MATCHER, **hub)

    @classmethod
    def tiny(cls, texts: Iterable[str] = ("a red circle", "two dogs play")) -> BlipMatcher:
        return cls._tiny("BlipForImageTextRetrieval", texts)

    @torch.inference_mode()
    def embed_pictures(self, patches: Tensor) -> Tensor:
        """Unit vectors (pictures, size)."""
        return functional.normalize(self.model.vision_proj(patches[:, 0]), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (texts, size)."""
        read = self.model.text_encoder(**self._words(texts)).last_hidden_state
        return functional.normalize(self.model.text_proj(read[:, 0]), dim=-1)

    @torch.inference_mode()
    def probability(self, patches: Tensor, texts: Sequence[str]) -> Tensor:
        """For each row (rows, length, width) and the text beside it, the probability that they belong together."""
        seen = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        read = self.model.text_encoder(
            **self._words(texts), encoder_hidden_states=patches, encoder_attention_mask=seen
        ).last_hidden_state
        return self.model.itm_head(read[:, 0]).float().softmax(-1)[:, 1]


class BlipAnswerer(BlipMode):
    """Answers to questions about pictures."""

    @classmethod
    def load(cls, name: str, **hub: Any) -> BlipAnswerer:
        return cls._load(name, "BlipForQuestionAnswering", ANSWERER, **hub)

    @classmethod
    def tiny(cls, texts: Iterable[str] = ("a red circle", "two dogs play", "what is it ?")) -> BlipAnswerer:
        return cls._tiny("BlipForQuestionAnswering", texts)

    @torch.inference_mode()
    def answer(self, patches: Tensor, question: str, *, num_beams: int, max_new_tokens: int) -> list[tuple[str, float]]:
        """An answer to one question about each row, and how sure the model is of it.

        The geometric mean of the probabilities of its tokens, its end included.
        """
        words = {name: value.expand(len(patches), -1) for name, value in self._words([question]).items()}
        seen = torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device)
        asked = self.model.text_encoder(
            **words, encoder_hidden_states=patches, encoder_attention_mask=seen
        ).last_hidden_state
        text = self.model.config.text_config
        start = torch.full((len(patches), 1), self.model.decoder_start_token_id, device=self.device)
        ids = self.model.text_decoder.generate(
            input_ids=start,
            encoder_hidden_states=asked,
            encoder_attention_mask=words["attention_mask"],
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            num_beams=num_beams,
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        logits = self.model.text_decoder(
            input_ids=ids[:, :-1], encoder_hidden_states=asked, encoder_attention_mask=words["attention_mask"]
        ).logits
        each = logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        ended = (ids[:, 1:] == text.sep_token_id).int()
        inside = (ended.cumsum(1) - ended == 0).float()
        sure = ((each * inside).sum(1) / inside.sum(1)).exp()
        texts = [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids[:, 1:].tolist()]
        return list(zip(texts, sure.tolist(), strict=True))
