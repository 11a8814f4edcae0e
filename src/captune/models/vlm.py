"""Vision-language models: any checkpoint of `AutoModelForImageTextToText` in the format of `transformers`.

A caption is the answer to a user's message about an image, in the checkpoint's own chat template. The vision part and
the projector make a sequence of features of each image, in its own aspect; the language model reads it in the place of
the image's token. All captions of an image are branches of one row behind it, where the attention of the family
allows that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.decoding.rows import CachedDecoder
from captune.models.backbone import Backbone, Checkpoint, PixelSettings
from captune.models.chat import ChatCodec, ChatTemplate, load_processor, turn_end, without_thinking
from captune.models.from_scratch import Size, chosen_size, layers, learn_tokenizer
from captune.models.layers.losses import TeacherForced, TokenLosses, losses_of
from captune.models.loading.pretrained import pretrained
from captune.models.weights import FP32, Placing, load_weights

PROMPT = "Describe this image in one sentence."
GENERATION = {"max_new_tokens": 256, "num_beams": 1}
# Language models that take a mask of four dimensions as it is: captions of an image can be branches of one row.
BRANCHING = frozenset(("llama", "mistral", "qwen2", "qwen3", "qwen2_5_vl_text", "qwen3_vl_text", "qwen2_vl_text"))
VISION = ("vision_tower", "vision_model", "visual", "image_tower", "vision_encoder")
BRIDGE = ("multi_modal_projector", "connector", "merger", "deepstack_merger_list", "embed_vision", "image_newline")


SIZES = {"tiny": Size(32, 8, (32, 2, 2), (48, 2, 2), 0.0), "small": Size(128, 16, (256, 4, 4), (256, 4, 4), 0.1)}
IMAGE = "<image>"
# The message of a model from scratch: the image, and what a prompt says.
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% if message['role'] == 'user' %}[CLS]{% else %}[SEP]{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class EncodedImages:
    """Images as a language model reads them; each value has an entry for every image.

    `outputs` are those of `get_image_features`, `texts` what stands for an image in a prompt, and `inputs` what else
    the language model is told of it (such as the grid of its patches).
    """

    outputs: tuple[Any, ...]
    texts: tuple[str, ...]
    inputs: Mapping[str, tuple[Tensor, ...]]

    def __len__(self) -> int:
        return len(self.outputs)

    def __getitem__(self, chosen: Sequence[int] | Tensor | slice) -> EncodedImages:
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else [int(number) for number in chosen]
        return EncodedImages(
            tuple(self.outputs[n] for n in numbers),
            tuple(self.texts[n] for n in numbers),
            {name: tuple(values[n] for n in numbers) for name, values in self.inputs.items()},
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, tokens of the longest, width of a token."""
        rows = [_rows_of(output.pooler_output) for output in self.outputs]
        return len(self), max(rows), _first_tensor(self.outputs[0].pooler_output).shape[-1]

    @property
    def device(self) -> torch.device:
        return _first_tensor(self.outputs[0].pooler_output).device

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def to(self, dtype: torch.dtype) -> EncodedImages:
        """Themselves: the language model turns features into its own type."""
        return self

    def detach(self) -> EncodedImages:
        """The same without gradients."""
        return EncodedImages(tuple(_changed(output, _detached) for output in self.outputs), self.texts, self.inputs)

    def joined(self) -> dict[str, Any]:
        """As `mm_encoder_outputs` of the model."""
        first = self.outputs[0]
        values = {"pooler_output": _cat([output.pooler_output for output in self.outputs])}
        layers = getattr(first, "deepstack_features", None)
        if layers is not None:
            values["deepstack_features"] = [
                _cat([output.deepstack_features[layer] for output in self.outputs]) for layer in range(len(layers))
            ]
        return {"image": type(first)(**values)}


def _first_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else _first_tensor(value[0])


def _rows_of(features: Any) -> int:
    """How many tokens there are in features: a tensor (…, tokens, width), or a list of such."""
    return features[..., 0].numel() if isinstance(features, Tensor) else sum(_rows_of(one) for one in features)


def _cat(parts: Sequence[Any]) -> Any:
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else [one for part in parts for one in part]


def _changed(output: Any, change: Callable[[Any], Any]) -> Any:
    """An output whose features, over images and over layers and images, are changed."""
    layers = getattr(output, "deepstack_features", None)
    deep = {} if layers is None else {"deepstack_features": [change(layer) for layer in layers]}
    return type(output)(pooler_output=change(output.pooler_output), **deep)


def _one(features: Any, number: int) -> Any:
    return features[number : number + 1]


def _detached(features: Any) -> Any:
    return features.detach() if isinstance(features, Tensor) else [_detached(one) for one in features]


@dataclass
class Vlm(Backbone):
    """Any `AutoModelForImageTextToText` with its processor: captions answer a message in its chat template."""

    family: ClassVar[str] = "vlm"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)
    kind: ClassVar[str] = "AutoModelForImageTextToText"
    placed: ClassVar[bool] = True
    no_attention_maps: ClassVar[str] = "its language model reads an image as tokens of its own"
    frozen_by_default: ClassVar[tuple[str, ...]] = ("vision", "bridge")
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
        processor = load_processor(folder, **hub)
        kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(pretrained(AutoConfig, folder, **hub))]
        model = load_weights(kind, folder, placing, **hub)
        return cls.of_processor(model, processor, cls.read_card(folder))

    @classmethod
    def of_processor(cls, model: Any, processor: Any, card: Mapping[str, Any] | None = None) -> Vlm:
        """A backbone of a model and its processor; raises `CaptuneError` for a model that it cannot run."""
        saved = card or {}
        if not hasattr(model, "get_image_features") or "mm_encoder_outputs" not in _keywords(model.forward):
            raise CaptuneError(
                f"A {type(model).__name__} does not take images that were encoded before.",
                "Serve it with vLLM or llama.cpp, or take a model of another kind: captune models.",
            )
        if not processor.chat_template:
            raise CaptuneError(
                "The model has no chat template: how its authors asked it about images is not known.",
                "Take a checkpoint with one (chat_template.jinja), such as an instruction-tuned one of its family.",
            )
        return cls(
            model,
            processor.tokenizer,
            PixelSettings(0, mean=(0.0,) * 3, std=(1.0,) * 3),
            prompt=saved.get("prompt", PROMPT),
            generation=saved.get("generation", GENERATION),
            processor=processor,
        )

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> Vlm:
        """In the layout of LLaVA: a SigLIP, a projector of two layers and a Llama, trained on nothing yet."""
        return cls.of_size(chosen_size("VLM", SIZES, size, image_size), learn_tokenizer(texts, vocab_size))

    @classmethod
    def of_size(cls, spec: Size, tokenizer: Any, *, max_length: int = 512, vocab_size: int = 0) -> Vlm:
        """Such a model by its shapes, with a tokenizer as `learn_tokenizer` makes it.

        `vocab_size` makes room for more tokens than it has.
        """
        from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessorPil

        tokenizer.backend_tokenizer.post_processor = None
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
        ids = tokenizer.get_vocab()
        config = LlavaConfig(
            vision_config={
                "model_type": "siglip_vision_model",
                **layers(spec.vision),
                "image_size": spec.side,
                "patch_size": spec.patch,
                "vision_use_head": False,
            },
            text_config={
                "model_type": "llama",
                **layers(spec.text),
                "vocab_size": max(vocab_size, len(tokenizer)),
                "max_position_embeddings": max_length,
                "attention_dropout": spec.dropout,
                "bos_token_id": ids["[CLS]"],
                "eos_token_id": ids["[SEP]"],
                "pad_token_id": ids["[PAD]"],
            },
            image_token_index=ids[IMAGE],
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_seq_length=(spec.side // spec.patch) ** 2,
        )
        processor = LlavaProcessor(
            SiglipImageProcessorPil(size={"height": spec.side, "width": spec.side}),
            tokenizer,
            patch_size=spec.patch,
            vision_feature_select_strategy="full",
            chat_template=TEMPLATE,
        )
        return cls.of_processor(LlavaForConditionalGeneration(config), processor, {"prompt": "", "generation": {}})

    # -- text ----------------------------------------------------------------------

    @cached_property
    def template(self) -> ChatTemplate:
        """How messages are written for this model."""
        text = self._prepared(Image.new("RGB", (64, 64)))[1]
        return ChatTemplate(self.processor, text.replace(text.strip(), self.processor.image_token))

    @property
    def codec(self) -> ChatCodec:
        return ChatCodec(
            self.tokenize,
            self.decode,
            self.bos_token_id,
            self.eos_token_id,
            self.max_length,
            self.prompt,
            template=self.template,
        )

    def tokenize(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        return without_thinking(super().decode(tokens))

    def _prefix(self, prefix: Sequence[int], image: str) -> list[int]:
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
        return tuple(token for token in self.processor.image_token_ids if token is not None)

    @property
    def text_config(self) -> Any:
        """The configuration of the language model."""
        return self.model.config.get_text_config()

    @property
    def max_length(self) -> int:
        return int(self.text_config.max_position_embeddings)

    # -- images --------------------------------------------------------------------

    def image_features(self, images: Any) -> Any:
        levels = [np.asarray(image) for image in images]
        return self.encode([Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in levels])

    def encode(self, images: Any) -> Any:
        """RGB images, each as the checkpoint's own image processor prepares it."""
        features, forward = _keywords(self.model.get_image_features), _keywords(self.model.forward)
        texts = []
        dtype = next(self.model.parameters()).dtype
        prepared = []
        for image in images:
            tensors, text = self._prepared(image)
            prepared.append({name: v.to(dtype) if v.is_floating_point() else v for name, v in tensors.items()})
            texts.append(text.strip())
        pixels = [{name: value for name, value in one.items() if name in features} for one in prepared]
        others = [name for name in prepared[0] if name in forward and not name.startswith("pixel_")]
        inputs = {name: tuple(one[name] for one in prepared) for name in others}
        return EncodedImages(tuple(self._encode_prepared(pixels)), tuple(texts), inputs)

    def _prepared(self, image: Any) -> tuple[dict[str, Tensor], str]:
        """What the image processor makes of an image, and the text that stands for it."""
        settings = self.processor._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, return_tensors="pt")[
            "images_kwargs"
        ]
        processed, (text,) = self.processor._process_images([[image]], **settings)
        tensors = {name: value.to(self.device) for name, value in processed.items() if isinstance(value, Tensor)}
        return tensors, text

    def _encode_prepared(self, images: list[dict[str, Tensor]]) -> list[Any]:
        """Outputs of the vision part and the projector for each image; of all at once where their tensors fit."""
        trailing = {tuple((name, value.shape[1:]) for name, value in image.items()) for image in images}
        if len(images) > 1 and len(trailing) == 1:
            joined = {name: torch.cat([image[name] for image in images]) for name in images[0]}
            found = self.model.get_image_features(**joined, return_dict=True)
            if len(found.pooler_output) == len(images):
                return [_changed(found, partial(_one, number=number)) for number in range(len(images))]
        return [self.model.get_image_features(**image, return_dict=True) for image in images]

    def _text_inputs(self, tokens: Tensor, images: EncodedImages) -> dict[str, Any]:
        """Keywords of the model for rows of tokens, one a row of images."""
        keywords = {name: torch.cat(values) for name, values in images.inputs.items()}
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in _keywords(self.model.forward):
                types = self.processor.create_mm_token_type_ids(tokens.tolist())
                keywords[name] = torch.tensor(types, device=tokens.device)
        return {**keywords, "mm_encoder_outputs": images.joined()}

    # -- losses and search -----------------------------------------------------------

    @property
    def branches(self) -> bool:
        """Whether captions of an image can be branches of one row."""
        config = self.text_config
        windows = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
        return config.model_type in BRANCHING and not windows

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
        rows = self._rows(tokens.tolist(), lengths.tolist(), owner.tolist(), given.tolist())
        images = memory[[row.image for row in rows]]
        prefixes = [self._prefix(row.prefix, text) for row, text in zip(rows, images.texts, strict=True)]
        ids = pad_sequence(
            [torch.tensor(prefix + row.behind) for prefix, row in zip(prefixes, rows, strict=True)],
            batch_first=True,
            padding_value=self.pad_token_id,
        ).to(tokens.device)
        layout = self._layout(prefixes, rows, ids, images) if self.branches else _plain_layout(prefixes, rows, ids)
        if recompute and self.model.training:
            self.model.gradient_checkpointing_enable()
        outputs = self.model.model(input_ids=ids, use_cache=False, **layout, **self._text_inputs(ids, images))
        hidden = outputs.last_hidden_state
        supervised = [
            (caption, number, place, label)
            for number, (prefix, row) in enumerate(zip(prefixes, rows, strict=True))
            for place, label, caption in row.supervised(len(prefix))
        ]
        supervised.sort(key=itemgetter(0))
        columns = torch.tensor(supervised, dtype=torch.long, device=ids.device).reshape(-1, 4)
        caption, number, place, label = columns.unbind(1)
        logits = self.model.get_output_embeddings()(hidden[number, place])
        return losses_of(logits, label, caption, label_smoothing)

    def _rows(self, tokens: list[list[int]], lengths: list[int], owner: list[int], given: list[int]) -> list[_Row]:
        """Captions in rows: all of an image behind one prompt in one row, or a row each."""
        rows: dict[Any, _Row] = {}
        for caption, (text, length, image, before) in enumerate(zip(tokens, lengths, owner, given, strict=True)):
            prefix = tuple(text[:before])
            key = (image, prefix) if self.branches else caption
            row = rows.setdefault(key, _Row(image, prefix, [], []))
            row.captions.append(caption)
            row.branches.append(text[before:length])
        return list(rows.values())

    def _layout(
        self, prefixes: list[list[int]], rows: list[_Row], ids: Tensor, images: EncodedImages
    ) -> dict[str, Tensor]:
        """Mask (rows, 1, tokens, tokens) and positions in which a branch reads its prefix and itself."""
        count, width = ids.shape
        visible = _diagonal(width).repeat(count, 1, 1)
        starts = self._positions(prefixes, images)
        positions = torch.zeros(*starts[0].shape[:-1], count, width, dtype=torch.long)
        for number, (prefix, row) in enumerate(zip(prefixes, rows, strict=True)):
            at = len(prefix)
            visible[number, :at, :at] = torch.ones(at, at).tril().bool()
            positions[..., number, :at] = starts[number]
            following = int(starts[number].max()) + 1
            for branch in row.branches:
                end = at + len(branch)
                visible[number, at:end, : len(prefix)] = True
                visible[number, at:end, at:end] = torch.ones(len(branch), len(branch)).tril().bool()
                positions[..., number, at:end] = torch.arange(following, following + len(branch))
                at = end
        dtype = self.compute_dtype
        mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]
        return {"attention_mask": mask.to(ids.device), "position_ids": positions.to(ids.device)}

    def _positions(self, prefixes: list[list[int]], images: EncodedImages) -> list[Tensor]:
        """Positions of the tokens of each prefix: (tokens,), or (3, tokens) where a family counts in three axes."""
        index = getattr(self.model.model, "get_rope_index", None)
        if index is None:
            return [torch.arange(len(prefix)) for prefix in prefixes]
        found = []
        for number, prefix in enumerate(prefixes):
            ids = torch.tensor([prefix], device=images.device)
            inputs = self._text_inputs(ids, images[[number]])
            known = {name: value for name, value in inputs.items() if name in _keywords(index)}
            found.append(index(ids, attention_mask=torch.ones_like(ids), **known)[0][:, 0].cpu())
        return found

    @property
    def searched_by(self) -> str:
        return "captune" if self.own_search and self.branches else "transformers"

    def cached_decoder(self, memory: Any) -> CachedDecoder | None:
        return _PrefixDecoder(self, memory) if self.branches else None

    def search(self, memory: Any, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        rows = [torch.tensor(self._prefix(prefix, text)) for text in memory.texts]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad_token_id, padding_side="left")
        ids = ids.to(memory.device)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left").to(
            ids.device
        )
        found = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **self._text_inputs(ids, memory),
            **self.generate_kwargs(options, temperature),
        )[:, ids.shape[1] :]
        before = torch.tensor([list(prefix)], device=found.device).expand(len(found), -1)
        return torch.cat([before, found], 1)

    def teacher_forced(self, memory: Any, tokens: Sequence[int], prompt_length: int) -> TeacherForced | None:
        prefix = self._prefix(tokens[:prompt_length], memory.texts[0])
        ids = torch.tensor([[*prefix, *tokens[prompt_length:]]], device=memory.device)
        mask = torch.ones_like(ids)
        logits = self.model(
            input_ids=ids, attention_mask=mask, use_cache=False, **self._text_inputs(ids, memory)
        ).logits
        return TeacherForced(logits[0, len(prefix) - 1 :].float(), None)

    # -- the model ---------------------------------------------------------------------

    def part_of(self, name: str) -> str:
        modules = name.split(".")
        is_bridge, is_vision = (any(one in modules for one in names) for names in (BRIDGE, VISION))
        return "bridge" if is_bridge else "vision" if is_vision else "text"

    @property
    def vision_hidden_size(self) -> int:
        vision = self.model.config.vision_config
        return int(getattr(vision, "hidden_size", 0))

    def set_dropout(self, probability: float) -> None:
        self.text_config.attention_dropout = probability
        for module in self.model.modules():
            if hasattr(module, "attention_dropout") and getattr(module, "config", None) is self.text_config:
                module.attention_dropout = probability

    def _save_model(self, folder: Path, **weights: Any) -> None:
        self.set_generation_config(self.model.generation_config)
        self.model.save_pretrained(folder, **weights)
        self.processor.save_pretrained(folder)


@dataclass(frozen=True)
class _Row:
    """A row of the language model: an image, the prompt, and the captions behind it."""

    image: int
    prefix: tuple[int, ...]
    captions: list[int]
    branches: list[list[int]]

    @property
    def behind(self) -> list[int]:
        """The tokens behind the prompt."""
        return [token for branch in self.branches for token in branch]

    def supervised(self, prefix_length: int) -> Iterable[tuple[int, int, int]]:
        """(place that reads, token that it is to choose, caption) of every token that has a loss."""
        at = prefix_length
        for caption, branch in zip(self.captions, self.branches, strict=True):
            for step, token in enumerate(branch):
                yield (prefix_length - 1 if step == 0 else at + step - 1), token, caption
            at += len(branch)


class _PrefixDecoder:
    """The language model behind the prefixes of a batch of images: a `captune.decoding.rows.CachedDecoder`.

    Prefixes are padded on the left. Captions of an image are query rows over one cache, as branches are in training.
    """

    def __init__(self, backbone: Vlm, images: EncodedImages) -> None:
        from transformers import DynamicCache

        self.backbone, self.images, self.cache = backbone, images, DynamicCache()

    def prefill(self, prompts: Tensor, rows: int, max_new_tokens: int) -> Tensor:
        backbone, images = self.backbone, self.images
        prefixes = [backbone._prefix(one, text) for one, text in zip(prompts.tolist(), images.texts, strict=True)]
        self.prompt_length, width = prompts.shape[1], max(map(len, prefixes))
        ids = torch.full((len(prefixes), width), backbone.pad_token_id)
        starts = backbone._positions(prefixes, images)
        positions = torch.zeros(*starts[0].shape[:-1], *ids.shape, dtype=torch.long)
        self.real = torch.zeros(ids.shape, dtype=torch.bool)
        for number, prefix in enumerate(prefixes):
            ids[number, width - len(prefix) :] = torch.tensor(prefix)
            self.real[number, width - len(prefix) :] = True
            positions[..., number, width - len(prefix) :] = starts[number]
        self.following = torch.tensor([int(one.max()) + 1 for one in starts])
        # A padding token attends to itself: a row without anything to attend to would be no number.
        visible = (self.real[:, None] & torch.ones(width, width).tril().bool()) | _diagonal(width)
        ids = ids.to(prompts.device)
        return self._logits(ids, positions, visible, last=True, **backbone._text_inputs(ids, images))

    def step(self, tokens: Tensor, position: int, visible: Tensor | None) -> Tensor:
        images, rows = tokens.shape
        at = (self.following + position - self.prompt_length)[:, None].expand(images, rows)
        positions = at if not self.three_axes else at.expand(3, images, rows)
        written = self.cache.get_seq_length() - self.real.shape[1] + rows
        behind = torch.ones(images, rows, written, dtype=torch.bool) if visible is None else visible.cpu()
        prefix = self.real[:, None].expand(images, rows, -1)
        return self._logits(tokens, positions, torch.cat([prefix, behind], 2))

    def _logits(self, ids: Tensor, positions: Tensor, visible: Tensor, *, last: bool = False, **inputs: Any) -> Tensor:
        """Scores (images, rows, vocabulary), fp32, of ids (images, rows); of the last row alone with `last`."""
        self.three_axes = positions.dim() == 3
        backbone, dtype = self.backbone, self.backbone.compute_dtype
        mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]
        hidden = backbone.model.model(
            input_ids=ids,
            attention_mask=mask.to(ids.device),
            position_ids=positions.to(ids.device),
            past_key_values=self.cache,
            use_cache=True,
            **inputs,
        ).last_hidden_state
        return backbone.model.get_output_embeddings()(hidden[:, -1:] if last else hidden).float()


def _diagonal(width: int) -> Tensor:
    """True (width, width) where a token meets itself."""
    return torch.ones(width, dtype=torch.bool).diag()


def _plain_layout(prefixes: list[list[int]], rows: list[_Row], ids: Tensor) -> dict[str, Tensor]:
    """The mask (rows, tokens) of rows with one caption each, padded on the right."""
    lengths = [len(prefix) + len(row.behind) for prefix, row in zip(prefixes, rows, strict=True)]
    return {"attention_mask": (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long().to(ids.device)}


def _keywords(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
