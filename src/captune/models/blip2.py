"""BLIP-2: a vision transformer, a Q-Former that reads it by learned queries, and a language model that writes.

Li et al. 2023, *BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders
and Large Language Models*; weights and layers are `transformers.Blip2ForConditionalGeneration`.
The language model (OPT, Flan-T5) is `transformers`' own in training and in search.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from captune.core.errors import UsageError, did_you_mean
from captune.core.options import GenerationOptions
from captune.models.backbone import OPEN_IMAGE, Backbone, Checkpoint
from captune.models.from_scratch import learn_tokenizer
from captune.models.layers.losses import TeacherForced, TokenLosses, padded_losses
from captune.models.layers.vision_encoder import check_side
from captune.models.loading.pretrained import IMAGE, with_image_token

SIZES = ("tiny", "tiny-t5")


class Blip2(Backbone):
    """`Blip2ForConditionalGeneration` with its tokenizer and image processor.

    With OPT the prompt stands before the caption; with Flan-T5 its encoder reads the prompt,
    its decoder writes the caption. By default the Q-Former and its projection alone learn.
    """

    family: ClassVar[str] = "blip-2"
    kind: ClassVar[str] = "Blip2ForConditionalGeneration"
    sizes: ClassVar[tuple[str, ...]] = SIZES
    placed: ClassVar[bool] = True
    no_attention_maps: ClassVar[str] = "BLIP-2's Q-Former reads the image once, before the first word."
    text_modules: ClassVar[tuple[str, ...]] = ("language_model",)
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("Salesforce/blip2-opt-2.7b", 3_740_000_000, "mit"),
        Checkpoint("Salesforce/blip2-flan-t5-xl", 3_940_000_000, "mit"),
        Checkpoint("Salesforce/blip2-opt-6.7b", 7_750_000_000, "mit"),
        Checkpoint("Salesforce/blip2-flan-t5-xxl", 12_200_000_000, "mit"),
    )
    frozen_by_default: ClassVar[tuple[str, ...]] = ("vision", "text")
    quantizes: ClassVar[bool] = True
    apart: ClassVar[dict[str, tuple[str, ...]]] = {
        "vision": ("vision_model",),
        "bridge": ("query_tokens", "qformer", "language_projection"),
        "text": ("language_model",),
    }

    @classmethod
    def from_components(cls, model: Any, tokenizer: Any, processor: Any, card: Mapping[str, Any] | None = None) -> Self:
        with_image_token(model, tokenizer)
        return super().from_components(model, tokenizer, processor, card)

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Blip2:
        from transformers import Blip2Config, Blip2ForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        if size not in SIZES:
            raise UsageError(f"There is no BLIP-2 size '{size}'.", did_you_mean(size, SIZES))
        side = image_size or 32
        check_side(side, 8)
        tokenizer = learn_tokenizer(texts, vocab_size)
        tokenizer.add_tokens([IMAGE], special_tokens=True)
        ids = tokenizer.get_vocab()
        narrow = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        t5 = {
            "model_type": "t5",
            "d_model": 48,
            "d_kv": 16,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 2,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": ids["[PAD]"],
        }
        opt = {
            "model_type": "opt",
            "hidden_size": 48,
            "word_embed_proj_dim": 48,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 160,
            "dropout": 0.0,
        }
        tokens = {"bos_token_id": ids["[DEC]"], "eos_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
        text = {**(t5 if size == "tiny-t5" else opt), "vocab_size": len(tokenizer), **tokens}
        config = Blip2Config(
            vision_config={**narrow, "image_size": side, "patch_size": 8, "initializer_range": 0.02},
            qformer_config={
                **narrow,
                "encoder_hidden_size": 32,
                "cross_attention_frequency": 2,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            text_config=text,
            num_query_tokens=4,
            image_token_index=ids[IMAGE],
        )
        model: Any = Blip2ForConditionalGeneration(config)
        model.query_tokens.data.normal_(std=config.initializer_range)
        processor = BlipImageProcessorPil(size={"height": side, "width": side})
        return cls.from_components(model, tokenizer, processor)

    @property
    def _decoder_only(self) -> bool:
        """Whether the language model is a decoder alone, which continues after image and prompt."""
        return self.model.config.use_decoder_only_language_model

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        words = f"*tokenizer({prompt!r}, add_special_tokens=False).input_ids"
        read = f"{words}, text.eos_token_id" if encoder else f"text.bos_token_id, {words}"
        # With an encoder the first token is the one that the decoder starts from; 4.46 gives the new tokens behind one.
        behind = "1" if encoder else "given.shape[1] if found[0, 0] == given[0, 0] else 1"
        return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, Blip2ForConditionalGeneration

processor = AutoImageProcessor.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = Blip2ForConditionalGeneration.from_pretrained("{repo}")
text = model.config.text_config
{OPEN_IMAGE}
pixels = processor(image, return_tensors="pt").pixel_values
seen = [model.config.image_token_index] * model.config.num_query_tokens
given = torch.tensor([[*seen, {read}]])
found = model.generate(
    pixel_values=pixels, input_ids=given, attention_mask=torch.ones_like(given), eos_token_id=text.eos_token_id,
    pad_token_id=text.pad_token_id, {search},
)
behind = {behind}
print(tokenizer.decode(found[0, behind:], skip_special_tokens=True).strip())"""

    def part_of(self, name: str) -> str:
        module = name.removeprefix("base_model.model.").partition(".")[0]
        return {"vision_model": "vision", "language_model": "text"}.get(module, "bridge")

    def shardable_parts(self) -> dict[str, nn.Module]:
        model = self.model
        return {"vision": model.vision_model, "bridge": model.qformer, "text": model.language_model}

    def encode(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.vision_model
        return vision(pixel_values.to(vision.dtype)).last_hidden_state

    def _query_output(self, memory: Tensor) -> Tensor:
        """What the Q-Former makes of the memory: (images, queries, hidden size of the language model)."""
        queries = self.model.query_tokens.expand(memory.shape[0], -1, -1)
        image_mask = torch.ones(memory.shape[:2], dtype=torch.long, device=memory.device)
        # The parts may be of several types: what is frozen in 16 bits, what learns in 32.
        found = self.model.qformer(
            query_embeds=queries, encoder_hidden_states=memory.to(queries.dtype), encoder_attention_mask=image_mask
        ).last_hidden_state
        return self.model.language_projection(found.to(self.model.language_projection.weight.dtype))

    def _after_image(self, query_output: Tensor, tokens: Tensor) -> Tensor:
        """Embeddings of an image's queries, then of tokens (rows, steps)."""
        embedded = self.model.get_input_embeddings()(tokens)
        return torch.cat([query_output.to(embedded.dtype), embedded], 1)

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
        query_output, language = self._query_output(memory), self.model.language_model
        if recompute and self.model.training:
            language.gradient_checkpointing_enable()
        if self._decoder_only:
            embeddings = self._after_image(query_output[owner], tokens[:, :-1])
            places = torch.arange(embeddings.shape[1], device=tokens.device)
            attention_mask = (places < query_output.shape[1] + lengths[:, None] - 1).long()
            # Of the image's places no logits: they would be most of what a step holds.
            logits = language(
                inputs_embeds=embeddings,
                attention_mask=attention_mask,
                use_cache=False,
                logits_to_keep=tokens.shape[1] - 1,
            ).logits
            return padded_losses(logits, tokens, lengths, given, label_smoothing)
        before, lengths = given - 1, lengths - given + 1
        places = torch.arange(int(before.max()), device=tokens.device)
        prompts = tokens[:, 1 : int(given.max())].where(places < before[:, None], self.pad_token_id)
        # Captions of one image behind one prompt share what the encoder made of both.
        read = torch.cat([owner[:, None], before[:, None], prompts], 1)
        read, which = read.unique(dim=0, return_inverse=True)
        encoded, mask = self._read(query_output[read[:, 0]], read[:, 2:], read[:, 1])
        # Where nothing is supervised the decoder still reads the start.
        steps = torch.arange(max(2, int(lengths.max())), device=tokens.device)
        at = (before[:, None] + steps).clamp(max=tokens.shape[1] - 1)
        captions = torch.cat([tokens[:, :1], tokens.gather(1, at)[:, 1:]], 1).where(
            steps < lengths[:, None], self.pad_token_id
        )
        steps = steps[:-1]
        logits = language(
            encoder_outputs=(encoded[which],),
            attention_mask=mask[which],
            decoder_input_ids=captions[:, :-1],
            decoder_attention_mask=(steps < (lengths[:, None] - 1).clamp_min(1)).long(),
            use_cache=False,
        ).logits
        return padded_losses(logits, captions, lengths, torch.ones_like(given), label_smoothing)

    def _read(self, query_output: Tensor, prompts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Images with prompts (rows, steps) of `lengths` (rows,), read; and which places (rows, places) are real."""
        prompts = torch.nn.functional.pad(prompts, (0, 1), value=self.pad_token_id)
        places = torch.arange(prompts.shape[1], device=prompts.device)
        prompts = prompts.where(places != lengths[:, None], self.eos_token_id)
        embeddings = self._after_image(query_output, prompts)
        positions = torch.arange(embeddings.shape[1], device=prompts.device)
        mask = (positions < query_output.shape[1] + lengths[:, None] + 1).long()
        encoder = self.model.language_model.get_encoder()
        return encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state, mask

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        chosen = self.generate_kwargs(options, temperature)
        query_output, language = self._query_output(memory), self.model.language_model
        given = torch.tensor([list(prefix)], device=memory.device).repeat(memory.shape[0], 1)
        if self._decoder_only:
            images = given.new_full(query_output.shape[:2], self.model.config.image_token_id)
            found = language.generate(
                input_ids=torch.cat([images, given], 1),
                inputs_embeds=self._after_image(query_output, given),
                attention_mask=torch.ones(
                    len(memory), query_output.shape[1] + len(prefix), device=memory.device
                ).long(),
                **chosen,
            )
            return found[:, query_output.shape[1] :]
        read, mask = self._read(query_output, given[:, 1:], given.new_full((len(given),), len(prefix) - 1))
        found = language.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=read),
            attention_mask=mask,
            decoder_start_token_id=self.bos_token_id,
            **chosen,
        )
        each = len(found) // len(memory)
        return torch.cat([given.repeat_interleave(each, 0), found[:, 1:]], 1)

    def teacher_forced(self, memory: Tensor, tokens: Sequence[int], prompt_length: int) -> TeacherForced:
        """Without attention: the Q-Former reads the image once, before the first token."""
        query_output, language = self._query_output(memory), self.model.language_model
        read = torch.tensor([list(tokens)], device=memory.device)
        if self._decoder_only:
            logits = language(inputs_embeds=self._after_image(query_output, read), use_cache=False).logits
            return TeacherForced(logits[0, query_output.shape[1] :].float(), None)
        encoded, mask = self._read(query_output, read[:, 1:prompt_length], read.new_tensor([prompt_length - 1]))
        decoder_ids = torch.cat([read[:, :1], read[:, prompt_length:]], 1)
        logits = language(
            encoder_outputs=(encoded,), attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False
        ).logits
        return TeacherForced(logits[0].float(), None)

    @property
    def bos_token_id(self) -> int:
        text = self.text_config
        return text.bos_token_id if self._decoder_only else (text.decoder_start_token_id or text.pad_token_id)

    @property
    def max_length(self) -> int:
        text, queries = self.text_config, self.model.config.num_query_tokens
        return (text.max_position_embeddings if self._decoder_only else getattr(text, "n_positions", 512)) - queries

    def _save_model(self, folder: Path, **weights: Any) -> None:
        from transformers import Blip2Processor

        for part in (self.model, self.model.language_model):
            self.set_generation_config(part.generation_config)
        self.model.save_pretrained(folder, **weights)
        queries = self.model.config.num_query_tokens
        Blip2Processor(self.processor, self.tokenizer, num_query_tokens=queries).save_pretrained(folder)
