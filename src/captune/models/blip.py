"""BLIP: a vision transformer and a text decoder that attends to it.

Li et al. 2022, *BLIP: Bootstrapping Language-Image Pre-training*; the weights and layers
are `transformers.BlipForConditionalGeneration`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from captune.core.errors import UsageError, did_you_mean
from captune.core.options import GenerationOptions
from captune.models.attention import CaptionGrid
from captune.models.backbone import Backbone, PixelSettings, TokenLosses
from captune.models.blip_text import BlipStepper, decode_grouped
from captune.models.blip_vision import BlipEye
from captune.models.stepper import Stepper
from captune.models.vocabulary import learn_tokenizer

# size: image side, patch side, vision (width, layers, heads), text (width, layers, heads), dropout
SIZES: dict[str, tuple[int, int, tuple[int, int, int], tuple[int, int, int], float]] = {
    "tiny": (32, 8, (32, 2, 2), (32, 2, 2), 0.0),
    "demo": (48, 16, (128, 2, 4), (96, 2, 4), 0.0),
    "small": (128, 16, (256, 4, 4), (256, 4, 4), 0.1),
    "medium": (224, 16, (384, 8, 6), (384, 6, 6), 0.1),
    "base": (384, 16, (768, 12, 12), (768, 12, 12), 0.1),
    "large": (384, 16, (1024, 24, 16), (768, 12, 12), 0.1),
}


class Blip(Backbone):
    """`BlipForConditionalGeneration` with its tokenizer and pixels."""

    family: ClassVar[str] = "blip"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)

    @classmethod
    def load(cls, folder: str | Path, *, image_size: int | None = None, **hub: Any) -> Blip:
        from transformers import AutoTokenizer, BlipForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        model: Any = BlipForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32, **hub)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **hub)
        processor = BlipImageProcessorPil.from_pretrained(str(folder), **hub)
        card = cls.read_card(folder)
        size = int(model.config.vision_config.image_size)
        if image_size is not None and image_size != size:
            resize_positions(model, image_size)
            size = image_size
        pixels = PixelSettings(size, processor.image_mean, processor.image_std, int(processor.resample))
        return cls(model, tokenizer, pixels, prompt=card.get("prompt", ""), generation=card.get("generation", {}))

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Blip:
        from transformers import BlipConfig, BlipForConditionalGeneration
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        if size not in SIZES:
            raise UsageError(f"There is no BLIP size '{size}'.", did_you_mean(size, SIZES))
        side, patch, vision, text, dropout = SIZES[size]
        side = image_size or side
        if side % patch:
            raise UsageError(
                f"The image size {side} is not a multiple of the patch size {patch}.", "Choose one that is."
            )
        tokenizer = learn_tokenizer(texts, vocab_size)
        ids = tokenizer.get_vocab()
        config = BlipConfig(
            vision_config={
                **_layers(vision),
                "image_size": side,
                "patch_size": patch,
                "initializer_range": 0.02,  # the library's default, 1e-10, hides the picture from the text
            },
            text_config={
                **_layers(text),
                "encoder_hidden_size": vision[0],
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 128,
                "hidden_dropout_prob": dropout,
                "attention_probs_dropout_prob": dropout,
                "bos_token_id": ids["[DEC]"],
                "eos_token_id": ids["[SEP]"],
                "sep_token_id": ids["[SEP]"],
                "pad_token_id": ids["[PAD]"],
            },
            image_text_hidden_size=text[0],
        )
        model = BlipForConditionalGeneration(config)
        # From the library's 0.02, noise, where a patch lies is hidden for long, and learned late or never.
        positions = model.vision_model.embeddings.position_embedding
        positions.data.zero_()[0, 1:] = 0.4 * grid_positions(side // patch, vision[0])
        return cls(model, tokenizer, PixelSettings(side, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        parts: dict[str, list[nn.Parameter]] = {"vision": [], "bridge": [], "text": []}
        for name, parameter in self.model.named_parameters():
            part = "vision" if name.startswith("vision_model.") else "bridge" if ".crossattention." in name else "text"
            parts[part].append(parameter)
        return parts

    def encode(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.vision_model
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in vision.parameters())
        if learns or vision.config.hidden_act != "gelu":
            return vision(pixel_values=pixel_values).last_hidden_state
        dtype = self.running_dtype
        eye = self.kept("vision", vision, lambda: BlipEye(vision, dtype))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return eye(pixel_values)

    def token_losses(
        self,
        memory: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        owner: Tensor,
        given: Tensor,
        *,
        label_smoothing: float = 0.0,
        recompute: bool = False,
    ) -> TokenLosses:
        decoder = self.model.text_decoder
        grid = CaptionGrid(lengths - 1, owner, memory.shape[0])
        hidden = decode_grouped(decoder, memory, tokens, grid, recompute=recompute)
        labelled = grid.real & (grid.positions + 1 >= given[grid.caption_of_token])
        log_probs = functional.log_softmax(decoder.cls(hidden).float(), -1)
        nll = -log_probs.gather(1, grid.pack(tokens[:, 1:])[:, None])[:, 0]
        objective = nll
        if label_smoothing:
            objective = (1 - label_smoothing) * nll - label_smoothing * log_probs.mean(-1)
        return TokenLosses(nll[labelled], objective[labelled], grid.caption_of_token[labelled])

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        pictures = memory.shape[0]
        chosen: dict[str, Any] = {"do_sample": options.sample, "num_beams": options.num_beams}
        if options.sample:
            chosen |= {"temperature": temperature, "top_k": options.top_k, "top_p": options.top_p}
        if options.num_beams > 1:
            stops = {"on": True, "off": False}.get(options.early_stopping, options.early_stopping)
            chosen |= {"length_penalty": options.length_penalty, "early_stopping": stops}
        return self.model.text_decoder.generate(
            input_ids=torch.tensor([list(prefix)], device=memory.device).repeat(pictures, 1),
            encoder_hidden_states=memory,
            encoder_attention_mask=torch.ones(memory.shape[:2], dtype=torch.long, device=memory.device),
            eos_token_id=self.end,
            pad_token_id=self.pad,
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens or None,
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            num_return_sequences=options.num_captions,
            **chosen,
        )

    def stepper(self) -> Stepper | None:
        decoder, dtype = self.model.text_decoder, self.running_dtype
        if decoder.config.hidden_act != "gelu":
            return None
        return self.kept("text", decoder, lambda: BlipStepper(decoder, dtype))

    @property
    def width(self) -> int:
        return self.model.config.vision_config.hidden_size

    @property
    def start(self) -> int:
        return self.model.config.text_config.bos_token_id

    @property
    def end(self) -> int:
        return self.model.config.text_config.sep_token_id

    @property
    def pad(self) -> int:
        return self.model.config.text_config.pad_token_id

    @property
    def longest(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def set_dropout(self, probability: float) -> None:
        config = self.model.config.text_config
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = probability
        for module in self.model.text_decoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability

    def _save_model(self, folder: Path) -> None:
        from transformers import BlipProcessor
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        defaults = GenerationOptions(**self.generation)
        config = self.model.generation_config
        config.eos_token_id, config.pad_token_id = self.end, self.pad
        config.num_beams, config.max_new_tokens = defaults.num_beams, defaults.max_new_tokens
        config.no_repeat_ngram_size = defaults.no_repeat_ngram_size
        config.repetition_penalty = defaults.repetition_penalty
        if defaults.num_beams > 1:
            config.length_penalty = defaults.length_penalty
        self.model.save_pretrained(folder)
        side = {"height": self.pixels.size, "width": self.pixels.size}
        processor = BlipImageProcessorPil(
            size=side,
            image_mean=list(self.pixels.mean),
            image_std=list(self.pixels.std),
            resample=self.pixels.resample,
        )
        BlipProcessor(processor, self.tokenizer).save_pretrained(folder)


def _layers(shape: tuple[int, int, int]) -> dict[str, int]:
    width, layers, heads = shape
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def resize_positions(model: Any, image_size: int) -> None:
    """Interpolate the vision part's position embeddings (bicubic) for another image size, for good.

    Source: the original code's `interpolate_pos_embed`; the class token keeps its own.
    """
    config = model.config.vision_config
    patch = int(config.patch_size)
    if image_size % patch:
        raise UsageError(
            f"The image size {image_size} is not a multiple of the patch size {patch}.", "Choose one that is."
        )
    embeddings = model.vision_model.embeddings
    old = embeddings.position_embedding.data
    before, after = int((old.shape[1] - 1) ** 0.5), image_size // patch
    grid = old[:, 1:].reshape(1, before, before, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    positions = torch.cat([old[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    embeddings.position_embedding = nn.Parameter(positions)
    embeddings.image_size = image_size
    embeddings.num_patches, embeddings.num_positions = after**2, after**2 + 1
    config.image_size = image_size


def grid_positions(side: int, width: int) -> Tensor:
    """Sines and cosines of the row and of the column, [side², width], for the patches of a square picture.

    Source: Chen et al. 2021 (MoCo v3), Beyer et al. 2022 ("Better plain ViT baselines for ImageNet-1k"), who
    learn faster from them than from noise. `width` is a multiple of 4.
    """
    rate = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rate
    line = torch.cat([angles.sin(), angles.cos()], -1)
    return torch.cat([line[:, None].expand(side, side, -1), line[None].expand(side, side, -1)], -1).flatten(0, 1)
