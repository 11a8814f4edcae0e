"""CLIP and GPT-2 with cross-attention, or any other `transformers.VisionEncoderDecoderModel`.

The weights and layers are those of `transformers`' `GPT2LMHeadModel`; see `blip_text` for the grouping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.models.backbone import OPEN_IMAGE, Backbone, Checkpoint, PixelSettings
from captune.models.decoder import Decoder
from captune.models.from_scratch import Size, chosen_size, layers, learn_tokenizer
from captune.models.layers.attention import CaptionGrid, attend
from captune.models.layers.fused import ACTIVATIONS, FusedLinear, FusedSequential, LayerNorm
from captune.models.layers.losses import (
    TeacherForced,
    TokenLosses,
    averaged,
    eager_attention,
    padded_losses,
    token_losses,
)
from captune.models.layers.text_decoder import CrossAttention, DecoderLayer, TextDecoder, call_layer
from captune.models.layers.vision_encoder import clip_vision_encoder, resize_clip, resize_processor, set_grid_positions
from captune.models.loading.pretrained import load_processor, load_tokenizer, pretrained
from captune.models.weights import drop_unused_quantization


def is_plain_gpt2(decoder: Any) -> bool:
    """Whether a decoder is a GPT-2 with cross-attention and none of the rarer ways to scale attention."""
    config = decoder.config
    return (
        config.model_type == "gpt2"
        and config.add_cross_attention
        and config.activation_function in ACTIVATIONS
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.reorder_and_upcast_attn
    )


def decode_grouped(
    decoder: Any, memory: Tensor, tokens: Tensor, grid: CaptionGrid, *, recompute: bool = False
) -> Tensor:
    """Hidden states (rows, hidden size) of every row of the grid, over memory (images, patches, hidden size)."""
    body = decoder.transformer
    hidden = body.drop(body.wte(grid.pack(tokens)) + body.wpe(grid.positions))
    for block in body.h:
        hidden = call_layer(_block, block, hidden, memory, grid, recompute=recompute and decoder.training)
    return body.ln_f(hidden)


def _block(block: Any, hidden: Tensor, memory: Tensor, grid: CaptionGrid) -> Tensor:
    own, cross = block.attn, block.crossattention
    heads, dropout = own.num_heads, own.attn_dropout.p if own.training else 0.0
    query, key, value = (
        grid.per_caption(part, heads) for part in own.c_attn(block.ln_1(hidden)).split(own.split_size, -1)
    )
    attended = attend(query, key, value, causal=True, dropout=dropout)
    hidden = hidden + own.resid_dropout(own.c_proj(grid.from_captions(attended)))

    shape = (*memory.shape[:2], heads, -1)
    key, value = (part.view(shape).transpose(1, 2) for part in cross.c_attn(memory).split(cross.split_size, -1))
    query = grid.per_image(cross.q_attn(block.ln_cross_attn(hidden)), heads)
    attended = attend(query, key, value, dropout=dropout)
    hidden = hidden + cross.resid_dropout(cross.c_proj(grid.from_images(attended)))
    return hidden + block.mlp(block.ln_2(hidden))


def gpt2_decoder(decoder: Any, bridge: Any, dtype: torch.dtype) -> TextDecoder:
    """The same layers for generation; `bridge` is the projection of the memory, or None."""
    body, config = decoder.transformer, decoder.config
    return TextDecoder(
        token_embeddings=body.wte.weight,
        position_embeddings=body.wpe.weight,
        layers=[_fused_layer(block, config.activation_function, dtype) for block in body.h],
        num_heads=config.num_attention_heads,
        head=FusedLinear(decoder.lm_head, dtype=dtype),
        dtype=dtype,
        pre_norm=True,
        final_norm=LayerNorm(body.ln_f, dtype),
        bridge=FusedLinear(bridge, dtype=dtype) if bridge is not None else None,
    )


def _fused_layer(block: Any, activation: str, dtype: torch.dtype) -> DecoderLayer:
    own, cross = block.attn, block.crossattention
    return DecoderLayer(
        attention_norm=LayerNorm(block.ln_1, dtype),
        qkv=FusedLinear(own.c_attn, dtype=dtype),
        attention_out=FusedLinear(own.c_proj, dtype=dtype),
        cross=CrossAttention(
            norm=LayerNorm(block.ln_cross_attn, dtype),
            query=FusedLinear(cross.q_attn, dtype=dtype),
            key_value=FusedLinear(cross.c_attn, dtype=dtype),
            out=FusedLinear(cross.c_proj, dtype=dtype),
        ),
        mlp_norm=LayerNorm(block.ln_2, dtype),
        mlp=FusedSequential(
            FusedLinear(block.mlp.c_fc, dtype=dtype, activation=activation), FusedLinear(block.mlp.c_proj, dtype=dtype)
        ),
    )


SIZES = {
    "tiny": Size(32, 8, (32, 2, 2), (48, 2, 2), 0.0),
    "small": Size(128, 16, (256, 4, 4), (256, 4, 4), 0.1),
    "base": Size(224, 32, (768, 12, 12), (768, 12, 12), 0.1),
}
# Of these, checkpoints hold a text side as well; only the vision side is loaded.
VISION_CLASSES = {
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}


class ClipGpt2(Backbone):
    """A vision encoder and a GPT-2 that attends to it; a projection between them where their widths differ.

    Other decoders of a `VisionEncoderDecoderModel` work too, by `transformers`' own forward
    pass and search, which are slower.
    """

    family: ClassVar[str] = "clip-gpt2"
    kind: ClassVar[str] = "VisionEncoderDecoderModel"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)
    placed: ClassVar[bool] = True
    text_modules: ClassVar[tuple[str, ...]] = ("decoder",)
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("nlpconnect/vit-gpt2-image-captioning", 239_000_000, "apache-2.0"),
    )

    @classmethod
    def pair(
        cls,
        vision_part: tuple[str, dict[str, Any]],
        text_part: tuple[str, dict[str, Any]],
        *,
        image_size: int | None = None,
    ) -> ClipGpt2:
        """A vision checkpoint (CLIP, SigLIP, ViT, DINOv2 …) and a GPT-2, joined by new cross-attention.

        Each is a folder or Hub id, and the keywords of `from_pretrained` for it.
        """
        import transformers
        from transformers import AutoConfig, AutoModelForCausalLM

        (vision, of_vision), (text, of_text) = vision_part, text_part
        seeing = pretrained(AutoConfig, vision, **of_vision).model_type
        loader: Any = getattr(transformers, VISION_CLASSES.get(seeing, "AutoModel"))
        # ViT and DINOv2 would bring a pooler that nothing uses.
        less = {"add_pooling_layer": False} if seeing == "vit" else {}
        encoder = pretrained(loader, vision, dtype=torch.float32, **less, **of_vision)
        config: Any = pretrained(AutoConfig, text, **of_text)
        drop_unused_quantization(config, text, **of_text)
        config.add_cross_attention = config.is_decoder = True
        decoder = pretrained(AutoModelForCausalLM, text, config=config, dtype=torch.float32, **of_text)
        tokenizer = load_tokenizer(text, **of_text)
        if tokenizer.eos_token_id is None:
            raise CaptuneError(f"The tokenizer of {text} has no token that ends a text.", "Choose another text model.")
        model: Any = transformers.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        _set_tokens(model, start, tokenizer.eos_token_id, tokenizer.pad_token_id)
        processor = load_processor(vision, **of_vision)
        cls.resize(model, processor, image_size)
        return cls.from_components(model, tokenizer, processor)

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> ClipGpt2:
        from transformers import (
            CLIPVisionConfig,
            CLIPVisionModel,
            GPT2Config,
            GPT2LMHeadModel,
            VisionEncoderDecoderModel,
        )
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        spec = chosen_size("CLIP+GPT-2", SIZES, size, image_size)
        side, patch, vision, text = spec.side, spec.patch, spec.vision, spec.text
        tokenizer = learn_tokenizer(texts, vocab_size)
        ids = tokenizer.get_vocab()
        encoder = CLIPVisionModel(CLIPVisionConfig(**layers(vision), image_size=side, patch_size=patch))
        set_grid_positions(encoder.embeddings.position_embedding.weight.data, side // patch)
        config: Any = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=128,
            n_embd=text[0],
            n_layer=text[1],
            n_head=text[2],
            resid_pdrop=spec.dropout,
            embd_pdrop=spec.dropout,
            attn_pdrop=spec.dropout,
            bos_token_id=ids["[DEC]"],
            eos_token_id=ids["[SEP]"],
            add_cross_attention=True,
        )
        config.is_decoder = True
        model = VisionEncoderDecoderModel(encoder=encoder, decoder=GPT2LMHeadModel(config))
        _set_tokens(model, ids["[DEC]"], ids["[SEP]"], ids["[PAD]"])
        square = {"height": side, "width": side}
        processor = CLIPImageProcessorPil(size=square, do_center_crop=False)
        return cls.from_components(model, tokenizer, processor)

    @classmethod
    def resize(cls, model: Any, processor: Any, image_size: int | None) -> None:
        if image_size in (None, PixelSettings.of(processor).size):
            return
        vision = model.encoder
        if vision.config.model_type != "clip_vision_model":
            raise UsageError(
                f"The image size of a vision part of the kind {vision.config.model_type} cannot be changed.",
                "Leave out --image-size.",
            )
        resize_clip(getattr(vision, "vision_model", vision).embeddings, image_size)
        vision.config.image_size = model.config.encoder.image_size = image_size
        resize_processor(processor, image_size)

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

processor = AutoImageProcessor.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = VisionEncoderDecoderModel.from_pretrained("{repo}")
{OPEN_IMAGE}
pixels = processor(image, return_tensors="pt").pixel_values
start = model.generation_config.decoder_start_token_id
given = torch.tensor([[start, *tokenizer({prompt!r}, add_special_tokens=False).input_ids]])
found = model.generate(pixel_values=pixels, decoder_input_ids=given, {search})
print(tokenizer.decode(found[0, given.shape[1] :], skip_special_tokens=True).strip())"""

    def part_of(self, name: str) -> str:
        if any(module in name for module in ("enc_to_dec_proj.", ".crossattention.", ".ln_cross_attn.")):
            return "bridge"
        return "vision" if name.startswith("encoder.") else "text"

    def shardable_parts(self) -> dict[str, nn.Module]:
        return {"vision": self.model.encoder, "text": self.model.decoder}

    def encode(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.encoder
        if vision.config.model_type != "clip_vision_model":
            return vision(pixel_values=pixel_values).last_hidden_state
        body = getattr(vision, "vision_model", vision)
        return self.fused_features(
            vision, pixel_values, lambda: clip_vision_encoder(body, vision.config, self.compute_dtype, post_norm=False)
        )

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
        decoder = self.model.decoder
        memory = memory if self._bridge is None else self._bridge(memory)
        if is_plain_gpt2(decoder):
            grid = CaptionGrid(lengths - 1, owner, memory.shape[0])
            hidden = decode_grouped(decoder, memory, tokens, grid, recompute=recompute)
            return token_losses(decoder.lm_head, hidden, tokens, grid, given, label_smoothing)
        steps = torch.arange(tokens.shape[1] - 1, device=tokens.device)
        logits = decoder(
            input_ids=tokens[:, :-1],
            attention_mask=(steps < lengths[:, None] - 1).long(),
            encoder_hidden_states=memory[owner],
            use_cache=False,
        ).logits
        return padded_losses(logits, tokens, lengths, given, label_smoothing)

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        return self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            decoder_input_ids=torch.tensor([list(prefix)], device=memory.device).repeat(memory.shape[0], 1),
            **self.generate_kwargs(options, temperature),
        )

    def text_decoder(self) -> Decoder | None:
        decoder, bridge = self.model.decoder, self._bridge
        if not is_plain_gpt2(decoder):
            return None
        module = decoder if bridge is None else nn.ModuleList([decoder, bridge])
        return self.fused("text", module, lambda: gpt2_decoder(decoder, bridge, self.compute_dtype))

    def teacher_forced(self, memory: Tensor, tokens: Sequence[int], prompt_length: int) -> TeacherForced | None:
        if is_plain_gpt2(self.model.decoder):
            return super().teacher_forced(memory, tokens, prompt_length)
        with eager_attention(self.model.decoder):
            found = self.model.decoder(
                input_ids=torch.tensor([list(tokens)], device=memory.device),
                encoder_hidden_states=memory if self._bridge is None else self._bridge(memory),
                use_cache=False,
                output_attentions=True,
            )
        attentions = [layer for layer in found.get("cross_attentions") or () if layer is not None]
        return TeacherForced(found.logits[0].float(), averaged(attentions)[0] if attentions else None)

    @property
    def _bridge(self) -> Any:
        """The projection from the vision part's width to the text part's, where they differ."""
        return getattr(self.model, "enc_to_dec_proj", None)

    @property
    def vision_hidden_size(self) -> int:
        return self.model.config.encoder.hidden_size

    @property
    def bos_token_id(self) -> int:
        return self._token("decoder_start_token_id", "bos_token_id")

    @property
    def eos_token_id(self) -> int:
        return self._token("eos_token_id")

    @property
    def pad_token_id(self) -> int:
        return self._token("pad_token_id", "eos_token_id")

    def _token(self, *names: str) -> int:
        """The first of these tokens that the model, its generation or its decoder's configuration states."""
        for name in names:
            for config in (self.model.config, self.model.generation_config, self.model.config.decoder, self.tokenizer):
                found = getattr(config, name, None)
                if found is not None:
                    return int(found[0] if isinstance(found, list) else found)
        raise CaptuneError(f"The model does not say its {names[0]}.", "Add it to the model's config.json.")

    def _save_model(self, folder: Path, **weights: Any) -> None:
        self.set_generation_config(self.model.generation_config)
        self.model.generation_config.decoder_start_token_id = self.bos_token_id
        state = weights.pop("state_dict", None) or self.model.state_dict()
        self.model.save_pretrained(folder, state_dict=_named(state, self.model.encoder.config), **weights)
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def _named(state: Mapping[str, Tensor], seeing: Any) -> dict[str, Tensor]:
    """Weights by the names that every `transformers` reads: 5.x leaves a part out of those of CLIP and SigLIP.

    4.x would take them for missing, and draw others at random.
    """
    if seeing.model_type not in VISION_CLASSES:
        return dict(state)
    old, new = "encoder.", "encoder.vision_model."
    return {
        name.replace(old, new, 1) if name.startswith(old) and not name.startswith(new) else name: value
        for name, value in state.items()
    }


def _set_tokens(model: Any, start: int, end: int, pad: int) -> None:
    """Say which tokens begin, end and fill a caption, wherever `transformers` may look."""
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = start, end, pad
