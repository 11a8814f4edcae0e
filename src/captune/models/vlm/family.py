"""Vision-language models: any checkpoint of `AutoModelForImageTextToText` in the format of `transformers`.

A caption is the answer to a user's message about an image, in the checkpoint's own chat template. The vision part and
the projector make a sequence of features of each image, in its own aspect; the language model reads it in the place of
the image's token. All captions of an image are branches of one row behind it, where the attention of the family
allows that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.decoding.encoding import DESCRIBE
from captune.decoding.rows import CachedDecoder
from captune.models.backbone import CAPTIONING, Backbone, Checkpoint, PixelSettings, Task
from captune.models.from_scratch import chosen_size, learn_tokenizer
from captune.models.layers.losses import TeacherForced, TokenLosses, losses_of
from captune.models.loading.pretrained import load_processor as load_image_processor
from captune.models.loading.pretrained import pretrained
from captune.models.vlm.chat import ChatCodec, ChatTemplate, turn_end
from captune.models.vlm.decoder import PrefixDecoder
from captune.models.vlm.dropout import restore_dropout, set_dropout
from captune.models.vlm.from_scratch import SIZES, new_model
from captune.models.vlm.image_tokens import count_tokens, limit_by_default, limit_tokens, most_tokens
from captune.models.vlm.images import EncodedImages, encode_images, keywords, prepare
from captune.models.vlm.kinds import check_kind
from captune.models.vlm.number_types import check_number_type, unquantized
from captune.models.vlm.patches import multiply_patches
from captune.models.vlm.prefixes import PREFIXES
from captune.models.vlm.processor import load_processor
from captune.models.vlm.rows import (
    Row,
    additive,
    branch_layout,
    grouped_rows,
    image_blocks,
    plain_layout,
    windowed_masks,
)
from captune.models.vlm.stored import of_rows, to_row
from captune.models.weights import FP32, Placing, load_weights

GENERATION = {"max_new_tokens": 256, "num_beams": 1}
# Sizes of images whose tokens are remembered.
KNOWN_SIZES = 1000
# Language models that take a mask of four dimensions as it is: captions of an image can be branches of one row.
BRANCHING = frozenset((
    "llama", "mistral", "qwen2", "qwen3", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text",
    "gemma", "glm4v_text", "aria_text",
))  # fmt: skip
# Those that take a mask for each kind of layer, of which some read a window of tokens.
WINDOWED = frozenset(("gemma3_text",))
VISION = (
    "vision_tower", "vision_model", "visual", "image_tower", "vision_encoder",
    "audio_tower", "embed_audio",  # Gemma hears as well, Janus draws
    "vqmodel", "generation_embeddings", "generation_aligner", "generation_head",
)  # fmt: skip
BRIDGE = (
    "multi_modal_projector", "connector", "merger", "deepstack_merger_list", "embed_vision", "image_newline",
    "aligner", "projector", "vision_projection", "visual_embeddings_table",
)  # fmt: skip


@dataclass
class Vlm(Backbone):
    """Any `AutoModelForImageTextToText` with its processor: captions answer a message in its chat template."""

    family: ClassVar[str] = "vlm"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)
    kind: ClassVar[str] = "AutoModelForImageTextToText"
    task: ClassVar[Task] = replace(CAPTIONING, tag="image-text-to-text")
    placed: ClassVar[bool] = True
    quantizes: ClassVar[bool] = True
    spreads: ClassVar[bool] = True
    adapts_half: ClassVar[bool] = True
    no_attention_maps: ClassVar[str] = "Its language model reads an image as tokens of its own."
    other_runtimes: ClassVar[str] = (
        "A folder of it is one of transformers: vLLM serves it, and convert_hf_to_gguf.py of llama.cpp makes a GGUF of "
        "many kinds."
    )
    frozen_by_default: ClassVar[tuple[str, ...]] = ("vision", "bridge")
    adapted_by_default: ClassVar[tuple[str, ...]] = ("text",)
    encoding_parts: ClassVar[tuple[str, ...]] = ("vision", "bridge")
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", 507_000_000, "apache-2.0"),
        Checkpoint("Qwen/Qwen2.5-VL-3B-Instruct", 3_750_000_000, "qwen-research"),
        Checkpoint("llava-hf/llava-1.5-7b-hf", 7_060_000_000, "llama2"),
    )

    @classmethod
    def load(cls, folder: str | Path, *, image_size: int | None = None, placing: Placing = FP32, **hub: Any) -> Vlm:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        if image_size is not None:
            raise UsageError("A vision-language model takes images in their own sizes.", "Leave out --image-size.")
        source = {name: value for name, value in hub.items() if name not in ("quantization_config", "dtype")}
        config = pretrained(AutoConfig, folder, **source)
        check_number_type(config, placing.dtype)
        processor = load_processor(folder, **source)
        kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        check_kind(kind, processor)
        if "quantization_config" in hub:
            hub["quantization_config"].llm_int8_skip_modules = unquantized(kind, config, part_of)
        model = load_weights(kind, folder, placing, **hub)
        return cls.of_processor(model, processor, cls.read_card(folder))

    @classmethod
    def of_processor(cls, model: Any, processor: Any, card: Mapping[str, Any] | None = None) -> Vlm:
        """A backbone of a model and its processor; raises `CaptuneError` for a model that it cannot run."""
        saved = card or {}
        check_kind(type(model), processor)
        fixed = PREFIXES.get(model.config.model_type)
        if "family" not in saved:  # published weights: one of ours has what it was trained with
            limit_by_default(processor)
        restore_dropout(model.get_decoder(), model.config.get_text_config())
        multiply_patches(model)
        return cls(
            model,
            processor.tokenizer,
            PixelSettings(0, mean=(0.0,) * 3, std=(1.0,) * 3),
            prompt=saved.get("prompt", DESCRIBE if fixed is None else fixed.default),
            generation=saved.get("generation", GENERATION),
            processor=processor,
        )

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Vlm:
        """In the layout of InternVL, with a prompt of nothing but the image."""
        spec = chosen_size("VLM", SIZES, size, image_size)
        model, processor = new_model(spec, learn_tokenizer(texts, vocab_size))
        return cls.of_processor(model, processor, {"prompt": "", "generation": {}})

    # -- text ----------------------------------------------------------------------

    @cached_property
    def template(self) -> ChatTemplate:
        """How messages are written for this model."""
        text = prepare(self.processor, Image.new("RGB", (64, 64))).text
        written = PREFIXES.get(self.model.config.model_type, ChatTemplate)
        return written(self.processor, text.replace(text.strip(), self.processor.image_token))

    @property
    def codec(self) -> ChatCodec:
        return ChatCodec(
            **vars(super().codec),
            template=self.template,
            system_prompt=self.generation.get("system_prompt") or "",
            prefill=self.generation.get("prefill") or "",
        )

    def tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def with_image(self, prefix: Sequence[int], image: str) -> list[int]:
        """The tokens before a caption, those of an image in the place of its token."""
        at = list(prefix).index(self.tokenizer.convert_tokens_to_ids(self.processor.image_token))
        return [*prefix[:at], *self.tokenize(image), *prefix[at + 1 :]]

    @cached_property
    def eos_token_id(self) -> int:
        special = self.tokenizer.all_special_ids
        return turn_end(self.template, self.tokenize, special, self.tokenizer.eos_token_id)

    @property
    def bos_token_id(self) -> int:
        return self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eos_token_id

    @property
    def pad_token_id(self) -> int:
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_token_id

    @property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """What stands for an image, a video or a sound: none of them can be in a caption."""
        known = self.processor
        every = (*known.image_token_ids, *known.video_token_ids, *known.audio_token_ids)
        return tuple(sorted({token for token in every if token is not None}))

    @property
    def text_config(self) -> Any:
        """The configuration of the language model."""
        return self.model.config.get_text_config()

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt and a caption beside those of the largest image."""
        return int(self.text_config.max_position_embeddings) - self.most_image_tokens

    @cached_property
    def most_image_tokens(self) -> int:
        """Tokens of the largest image."""
        return most_tokens(self.processor)

    def limit_image_tokens(self, most: int) -> None:
        limit_tokens(self.processor, most)
        for known in ("most_image_tokens", "_image_tokens"):
            vars(self).pop(known, None)

    @cached_property
    def _image_tokens(self) -> dict[tuple[int, int], int]:
        return {}

    def image_tokens(self, width: int, height: int) -> int:
        known = self._image_tokens
        if (width, height) not in known:
            if len(known) >= KNOWN_SIZES:
                known.clear()
            known[width, height] = count_tokens(self.processor, Image.new("RGB", (width, height)))
        return known[width, height]

    # -- images --------------------------------------------------------------------

    def image_features(self, images: Any) -> Any:
        if np.asarray(images[0]).dtype == np.uint16:
            rows = [one if isinstance(one, Tensor) else torch.from_numpy(one) for one in images]
            return of_rows([row.to(self.device) for row in rows], self.compute_dtype)
        levels = [np.asarray(image) for image in images]
        return self.encode([Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in levels])

    def encode(self, images: Any) -> Any:
        """RGB images, each as the checkpoint's own image processor prepares it; without gradients where none learns."""
        parts = self.parts()
        learns = any(parameter.requires_grad for part in self.encoding_parts for parameter in parts[part])
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return encode_images(self.model, self.processor, images)

    def stored_features(self, memory: EncodedImages) -> list[np.ndarray]:
        return [to_row(memory[[number]]) for number in range(len(memory))]

    @property
    def feature_settings(self) -> str:
        return str(self.processor.image_processor.to_json_string()) + self.processor.to_json_string()

    def text_inputs(self, tokens: Tensor, images: EncodedImages, given: Sequence[int] | None = None) -> dict[str, Any]:
        """Keywords of the model for rows of tokens, one a row of images; `given` (None: all) come before a caption."""
        inputs: dict[str, Any] = {name: torch.cat(values) for name, values in images.inputs.items()}
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in keywords(self.model.forward):
                inputs[name] = self._token_types(tokens, given).to(tokens.device)
        return {**inputs, "mm_encoder_outputs": images.joined()}

    def _token_types(self, tokens: Tensor, given: Sequence[int] | None) -> Tensor:
        """Where images are; of kinds that read all before a caption in both directions: where the caption is."""
        if not self.reads_both_ways:
            return torch.tensor(self.processor.create_mm_token_type_ids(tokens.tolist()))
        before = torch.tensor([tokens.shape[1]] * len(tokens) if given is None else given)
        return (torch.arange(tokens.shape[1]) >= before[:, None]).long()

    @property
    def reads_both_ways(self) -> bool:
        """Whether tokens before a caption attend to those behind them as well."""
        return self.model.config.model_type in PREFIXES

    # -- losses and search -----------------------------------------------------------

    @property
    def branches(self) -> bool:
        """Whether captions of an image can be branches of one row."""
        kind = self.text_config.model_type
        return kind in WINDOWED or (kind in BRANCHING and not self._window)

    @property
    def _window(self) -> int:
        """How many tokens some layers read; 0 where each reads all."""
        config = self.text_config
        return (getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)) or 0

    def token_losses(
        self,
        memory: Any,
        tokens: Tensor,
        lengths: Tensor,
        owner: Tensor,
        given: Tensor,
        *,
        label_smoothing: float = 0.0,
        recompute: bool = False,
    ) -> TokenLosses:
        rows = grouped_rows(tokens.tolist(), lengths.tolist(), owner.tolist(), given.tolist(), branches=self.branches)
        images = memory[[row.image for row in rows]]
        prefixes = [self.with_image(row.prefix, text) for row, text in zip(rows, images.texts, strict=True)]
        ids = pad_sequence(
            [torch.tensor(prefix + row.behind) for prefix, row in zip(prefixes, rows, strict=True)],
            batch_first=True,
            padding_value=self.pad_token_id,
        ).to(tokens.device)
        layout = self._layout(prefixes, rows, ids, images)
        if recompute and self.model.training:
            self.model.gradient_checkpointing_enable()
        supervised = [
            (caption, number, place, label)
            for number, (prefix, row) in enumerate(zip(prefixes, rows, strict=True))
            for place, label, caption in row.supervised(len(prefix))
        ]
        supervised.sort(key=itemgetter(0))
        columns = torch.tensor(supervised, dtype=torch.long, device=ids.device).reshape(-1, 4)
        caption, number, place, label = columns.unbind(1)
        inputs = {**layout, **self.text_inputs(ids, images, [len(prefix) for prefix in prefixes])}
        if self.branches:  # captions of an image share a place
            hidden = self.model.model(input_ids=ids, use_cache=False, **inputs).last_hidden_state
            # Layers may lie on several devices.
            logits = self.model.get_output_embeddings()(hidden.to(ids.device)[number, place]).to(ids.device)
        else:  # some kinds do more than multiply behind their last layer
            with_logits = torch.zeros_like(ids, dtype=torch.bool)
            with_logits[number, place] = True
            logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=with_logits, **inputs).logits
        return losses_of(logits, label, caption, label_smoothing)

    def _layout(self, prefixes: list[list[int]], rows: list[Row], ids: Tensor, images: EncodedImages) -> dict[str, Any]:
        width, dtype = ids.shape[1], self.compute_dtype
        if not self.branches:
            return {name: value.to(ids.device) for name, value in plain_layout(prefixes, rows, width).items()}
        found = branch_layout(prefixes, self.positions(prefixes, images), rows, width, both_ways=self.reads_both_ways)
        visible, positions = (value.to(ids.device) for value in found)
        mask: Any = additive(visible, dtype)
        if self.text_config.model_type in WINDOWED:
            blocks = image_blocks(self._token_types(ids, None).to(ids.device))
            mask = windowed_masks(visible, positions, blocks, self._window, dtype)
        return {"attention_mask": mask, "position_ids": positions}

    def positions(self, prefixes: list[list[int]], images: EncodedImages) -> list[Tensor]:
        """Positions of the tokens of each prefix: (tokens,), or (3, tokens) where a family counts in three axes."""
        index = getattr(self.model.model, "get_rope_index", None)
        if index is None:
            first = int(self.reads_both_ways)  # such kinds count from 1
            return [torch.arange(first, first + len(prefix)) for prefix in prefixes]
        found = []
        for number, prefix in enumerate(prefixes):
            ids = torch.tensor([prefix], device=images.device)
            inputs = self.text_inputs(ids, images[[number]])
            known = {name: value for name, value in inputs.items() if name in keywords(index)}
            found.append(index(ids, attention_mask=torch.ones_like(ids), **known)[0][:, 0].cpu())
        return found

    @property
    def searched_by(self) -> str:
        return "captune" if self.own_search and self.branches and not self._window else "transformers"

    def cached_decoder(self, memory: Any) -> CachedDecoder | None:
        return PrefixDecoder(self, memory) if self.branches and not self._window else None

    def search(self, memory: Any, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        rows = [torch.tensor(self.with_image(prefix, text)) for text in memory.texts]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_token_id, padding_side="left")
        ids = ids.to(memory.device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left").to(
            ids.device
        )
        found = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **self.text_inputs(ids, memory),
            **self.generate_kwargs(options, temperature),
        )[:, ids.shape[1] :]
        before = torch.tensor([list(prefix)], device=found.device).expand(len(found), -1)
        return torch.cat([before, found], 1)

    def teacher_forced(self, memory: Any, tokens: Sequence[int], prompt_length: int) -> TeacherForced | None:
        prefix = self.with_image(tokens[:prompt_length], memory.texts[0])
        ids = torch.tensor([[*prefix, *tokens[prompt_length:]]], device=memory.device)
        mask = torch.ones_like(ids)
        inputs = self.text_inputs(ids, memory, [len(prefix)])
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **inputs).logits
        return TeacherForced(logits[0, len(prefix) - 1 :].float(), None)

    # -- the model ---------------------------------------------------------------------

    def part_of(self, name: str) -> str:
        return part_of(name)

    def check_number_type(self, dtype: torch.dtype) -> None:
        check_number_type(self.model.config, dtype)

    def shardable_parts(self) -> dict[str, nn.Module]:
        """The language model; the vision part runs once or once an image, as shapes of images differ."""
        return {"text": self.model.get_decoder()}

    @property
    def vision_hidden_size(self) -> int:
        vision = self.model.config.vision_config
        return int(getattr(vision, "hidden_size", 0))

    def set_dropout(self, probability: float) -> None:
        set_dropout(self.model.get_decoder(), self.text_config, probability)

    def _save_model(self, folder: Path, **weights: Any) -> None:
        self.set_generation_config(self.model.generation_config)
        self.model.save_pretrained(folder, **weights)
        self._save_processor(folder)

    def _save_processor(self, folder: Path) -> None:
        self.processor.save_pretrained(folder)

    def read_settings(self, folder: Path) -> None:
        super().read_settings(folder)
        self.processor.image_processor = load_image_processor(folder)
        for known in ("template", "most_image_tokens", "_image_tokens"):
            vars(self).pop(known, None)


def part_of(name: str) -> str:
    """The part of a parameter, by the names that families of `transformers` give their modules."""
    modules = name.split(".")
    is_bridge, is_vision = (any(one in modules for one in names) for names in (BRIDGE, VISION))
    return "bridge" if is_bridge else "vision" if is_vision else "text"
