"""BLIP: a vision transformer and a text decoder that attends to it.

The weights and layers are those of `transformers`' `BlipTextLMHeadModel`; only the
attention is laid out anew, so that an image's cross-attention keys and values are
computed once for all its captions and padding is never computed. In exact arithmetic the
result and the gradients are those of the plain forward pass.

Li et al. 2022, *BLIP: Bootstrapping Language-Image Pre-training*; the weights and layers
are `transformers.BlipForConditionalGeneration`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from captune.core.options import GenerationOptions
from captune.models.backbone import OPEN_IMAGE, Backbone, Checkpoint
from captune.models.decoder import Decoder
from captune.models.from_scratch import Size, chosen_size, layers, learn_tokenizer
from captune.models.layers.attention import CaptionGrid, attend
from captune.models.layers.fused import ACTIVATIONS, FusedLinear, FusedSequential, LayerNorm
from captune.models.layers.losses import TokenLosses, token_losses
from captune.models.layers.text_decoder import CrossAttention, DecoderLayer, TextDecoder, call_layer
from captune.models.layers.vision_encoder import (
    blip_vision_encoder,
    resize_processor,
    resized_positions,
    set_grid_positions,
)


def decode_grouped(
    decoder: Any, memory: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False
) -> Tensor:
    """Hidden states of every row of the grid.

    `memory` (images, patches, width), `tokens` (captions, steps) → (rows, hidden size).
    With `recompute`, activations are computed again in the backward pass instead of stored.
    """
    embeddings = decoder.bert.embeddings
    hidden = embeddings.word_embeddings(grid.pack(tokens)) + embeddings.position_embeddings(grid.positions)
    hidden = embeddings.dropout(embeddings.LayerNorm(hidden))
    for layer in decoder.bert.encoder.layer:
        hidden = call_layer(_layer, layer, hidden, memory, grid, recompute=recompute and decoder.training)
    return hidden


def _layer(layer: Any, hidden: Tensor, memory: Tensor, grid: CaptionGrid) -> Tensor:
    own, cross = layer.attention.self, layer.crossattention.self
    heads = own.num_attention_heads
    attended = attend(
        grid.per_caption(own.query(hidden), heads),
        grid.per_caption(own.key(hidden), heads),
        grid.per_caption(own.value(hidden), heads),
        causal=True,
        dropout=own.dropout.p if own.training else 0.0,
    )
    hidden = layer.attention.output(grid.from_captions(attended), hidden)

    shape = (*memory.shape[:2], heads, -1)
    attended = attend(
        grid.per_image(cross.query(hidden), heads),
        cross.key(memory).view(shape).transpose(1, 2),
        cross.value(memory).view(shape).transpose(1, 2),
        dropout=cross.dropout.p if cross.training else 0.0,
    )
    hidden = layer.crossattention.output(grid.from_images(attended), hidden)
    return layer.feed_forward_chunk(hidden)


def blip_decoder(decoder: Any, dtype: torch.dtype) -> TextDecoder | None:
    """The same layers for generation; None where their activation is not known here."""
    config, embeddings, head = decoder.config, decoder.bert.embeddings, decoder.cls.predictions
    if config.hidden_act not in ACTIVATIONS:
        return None
    transform = FusedLinear(head.transform.dense, dtype=dtype, activation=config.hidden_act)
    norm, output = LayerNorm(head.transform.LayerNorm, dtype), FusedLinear(head.decoder, dtype=dtype)
    return TextDecoder(
        token_embeddings=embeddings.word_embeddings.weight,
        position_embeddings=embeddings.position_embeddings.weight,
        embedding_norm=LayerNorm(embeddings.LayerNorm, dtype),
        layers=[_fused_layer(layer, config.hidden_act, dtype) for layer in decoder.bert.encoder.layer],
        num_heads=config.num_attention_heads,
        head=FusedSequential(transform, norm, output),
        dtype=dtype,
    )


def _fused_layer(layer: Any, activation: str, dtype: torch.dtype) -> DecoderLayer:
    own, cross = layer.attention, layer.crossattention
    return DecoderLayer(
        attention_norm=LayerNorm(own.output.LayerNorm, dtype),
        qkv=FusedLinear(own.self.query, own.self.key, own.self.value, dtype=dtype),
        attention_out=FusedLinear(own.output.dense, dtype=dtype),
        cross=CrossAttention(
            norm=LayerNorm(cross.output.LayerNorm, dtype),
            query=FusedLinear(cross.self.query, dtype=dtype),
            key_value=FusedLinear(cross.self.key, cross.self.value, dtype=dtype),
            out=FusedLinear(cross.output.dense, dtype=dtype),
        ),
        mlp_norm=LayerNorm(layer.output.LayerNorm, dtype),
        mlp=FusedSequential(
            FusedLinear(layer.intermediate.dense, dtype=dtype, activation=activation),
            FusedLinear(layer.output.dense, dtype=dtype),
        ),
    )


SIZES = {
    "tiny": Size(32, 8, (32, 2, 2), (32, 2, 2), 0.0),
    "demo": Size(48, 16, (128, 2, 4), (96, 2, 4), 0.0),
    "small": Size(128, 16, (256, 4, 4), (256, 4, 4), 0.1),
    "medium": Size(224, 16, (384, 8, 6), (384, 6, 6), 0.1),
    "base": Size(384, 16, (768, 12, 12), (768, 12, 12), 0.1),
    "large": Size(384, 16, (1024, 24, 16), (768, 12, 12), 0.1),
}
# The same values as the word embeddings, which 4.46 does not use for it by itself: it is saved as well, as published.
OUTPUT = "text_decoder.cls.predictions.decoder.weight"


class Blip(Backbone):
    """`BlipForConditionalGeneration` with its tokenizer and image processor."""

    family: ClassVar[str] = "blip"
    kind: ClassVar[str] = "BlipForConditionalGeneration"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)
    placed: ClassVar[bool] = True
    text_modules: ClassVar[tuple[str, ...]] = ("text_decoder",)
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("Salesforce/blip-image-captioning-base", 247_000_000, "bsd-3-clause"),
        Checkpoint("Salesforce/blip-image-captioning-large", 470_000_000, "bsd-3-clause"),
    )

    @classmethod
    def resize(cls, model: Any, processor: Any, image_size: int | None) -> None:
        config, embeddings = model.config.vision_config, model.vision_model.embeddings
        if image_size is not None and image_size != config.image_size:
            positions = resized_positions(embeddings.position_embedding.data[0], image_size, int(config.patch_size))
            embeddings.position_embedding = nn.Parameter(positions[None])
            embeddings.image_size = config.image_size = image_size
            embeddings.num_patches, embeddings.num_positions = len(positions) - 1, len(positions)
        resize_processor(processor, config.image_size)

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Self:
        import transformers
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        spec = chosen_size("BLIP", SIZES, size, image_size)
        tokenizer = learn_tokenizer(texts, vocab_size)
        ids = tokenizer.get_vocab()
        config = transformers.BlipConfig(
            vision_config={
                **layers(spec.vision),
                "image_size": spec.side,
                "patch_size": spec.patch,
                "initializer_range": 0.02,  # the library's default, 1e-10, hides the image from the text
            },
            text_config={
                **layers(spec.text),
                "encoder_hidden_size": spec.vision[0],
                "vocab_size": len(tokenizer),
                "max_position_embeddings": 128,
                "hidden_dropout_prob": spec.dropout,
                "attention_probs_dropout_prob": spec.dropout,
                "bos_token_id": ids["[DEC]"],
                "eos_token_id": ids["[SEP]"],
                "sep_token_id": ids["[SEP]"],
                "pad_token_id": ids["[PAD]"],
            },
            image_text_hidden_size=spec.text[0],
        )
        model = getattr(transformers, cls.kind)(config)
        set_grid_positions(model.vision_model.embeddings.position_embedding.data[0], spec.side // spec.patch)
        processor = BlipImageProcessorPil(size={"height": spec.side, "width": spec.side})
        return cls.from_components(model, tokenizer, processor)

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        text = f"text={prompt!r}, " if prompt else ""
        # The processor puts a token behind the prompt, which `generate` takes off again.
        shown = "found[0, inputs.input_ids.shape[1] - 1 :]" if prompt else "found[0]"
        return f"""from PIL import Image, ImageOps
from transformers import BlipForConditionalGeneration, BlipProcessor

processor = BlipProcessor.from_pretrained("{repo}")
model = BlipForConditionalGeneration.from_pretrained("{repo}")
{OPEN_IMAGE}
inputs = processor(image, {text}return_tensors="pt")
found = model.generate(**inputs, {search})
print(processor.decode({shown}, skip_special_tokens=True).strip())"""

    def part_of(self, name: str) -> str:
        return "vision" if name.startswith("vision_model.") else "bridge" if ".crossattention." in name else "text"

    def shardable_parts(self) -> dict[str, nn.Module]:
        return {"vision": self.model.vision_model, "text": self.model.text_decoder}

    def encode(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.vision_model
        return self.fused_features(vision, pixel_values, lambda: blip_vision_encoder(vision, self.compute_dtype))

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
        return token_losses(decoder.cls, hidden, tokens, grid, given, label_smoothing)

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        return self.model.text_decoder.generate(
            input_ids=torch.tensor([list(prefix)], device=memory.device).repeat(memory.shape[0], 1),
            encoder_hidden_states=memory,
            encoder_attention_mask=torch.ones(memory.shape[:2], dtype=torch.long, device=memory.device),
            **self.generate_kwargs(options, temperature),
        )

    def text_decoder(self) -> Decoder | None:
        decoder = self.model.text_decoder
        return self.fused("text", decoder, lambda: blip_decoder(decoder, self.compute_dtype))

    @property
    def eos_token_id(self) -> int:
        return self.text_config.sep_token_id

    def _save_model(self, folder: Path, **weights: Any) -> None:
        from transformers import BlipProcessor

        self.set_generation_config(self.model.generation_config)
        state = dict(weights.pop("state_dict", None) or self.model.state_dict())
        if OUTPUT in state:
            state[OUTPUT] = state[OUTPUT].clone()
        self.model.save_pretrained(folder, state_dict=state, **weights)
        BlipProcessor(self.processor, self.tokenizer).save_pretrained(folder)
