"""Florence-2: a DaViT, a projector, and a BART whose encoder reads image and prompt and whose decoder writes.

Xiao et al. 2023, *Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks*; weights and layers are
`transformers.Florence2ForConditionalGeneration`, as in the repositories of `florence-community`. A prompt is a task
(`<CAPTION>`), in whose place the encoder reads the instruction that it was trained with, or free text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from captune.core.errors import UsageError, did_you_mean
from captune.core.options import GenerationOptions
from captune.decoding.encoding import Encoded, TextCodec
from captune.models.backbone import OPEN_IMAGE, Backbone, Checkpoint
from captune.models.from_scratch import SPECIAL, learn_tokenizer
from captune.models.layers.losses import TeacherForced, TokenLosses, padded_losses
from captune.models.loading.errors import own_format_error
from captune.models.loading.pretrained import PROCESSOR, read_file
from captune.models.weights import FP32, Placing

CAPTION = "<CAPTION>"
# What the published models search with.
GENERATION = {"num_beams": 3, "no_repeat_ngram_size": 3, "max_new_tokens": 256}
IMAGE = "<image>"
# Pixels of a side that become one place, in the tiny model.
STRIDE = 8


@dataclass(frozen=True)
class TaskCodec(TextCodec):
    """A codec whose encoder reads the prompt, and whose references stand alone; `processor` knows the tasks."""

    processor: Any = field(kw_only=True)

    def under(self, options: GenerationOptions) -> Self:
        if options.prompt_in_caption:
            raise UsageError(
                "Captions of Florence-2 answer their prompt: they do not continue it, as --prompt-in-caption needs.",
                "Leave it out.",
            )
        return super().under(options)

    def start(self, prompt: str) -> list[int]:
        return super().start(instruction(self.processor, prompt))

    def reference(self, reference: str, prompt: str, max_tokens: int) -> Encoded:
        prefix = self.start(prompt)
        room = min(max_tokens, self.max_length - len(prefix) - 1)
        return Encoded((*prefix, *self.encode(reference)[:room], self.eos_token_id), len(prefix))


def instruction(processor: Any, prompt: str) -> str:
    """What the encoder reads for a prompt; raises `UsageError` for a task that writes no text, or is not all of it."""
    alone, with_input = processor.task_prompts_without_inputs, processor.task_prompts_with_input
    answers = processor.tasks_answer_post_processing_type
    task = next((name for name in answers if name in prompt), None)
    if task is None:
        return prompt
    texts = [name for name, answer in answers.items() if answer == "pure_text"]
    if task not in texts:
        raise UsageError(
            f"Florence-2 answers the task {task} with places in the image, not with a caption.",
            f"Tasks that write text: {', '.join(texts)}.",
        )
    if task in with_input:
        return str(with_input[task].format(input=prompt.replace(task, "").strip()))
    if prompt.strip() != task:
        raise UsageError(
            f"For Florence-2 a task is the whole prompt, and there is more in '{prompt}' than {task}.",
            f"Give --prompt '{task}', or words without a task; for questions --prompt '{{question}}'.",
        )
    return str(alone[task])


class Florence2(Backbone):
    """`Florence2ForConditionalGeneration` with its tokenizer and image processor: the prompt is a task, or words."""

    family: ClassVar[str] = "florence-2"
    kind: ClassVar[str] = "Florence2ForConditionalGeneration"
    sizes: ClassVar[tuple[str, ...]] = ("tiny",)
    placed: ClassVar[bool] = True
    no_attention_maps: ClassVar[str] = "Florence-2's encoder reads image and prompt before the first word."
    text_modules: ClassVar[tuple[str, ...]] = ("model.language_model",)
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("florence-community/Florence-2-base", 232_000_000, "mit"),
        Checkpoint("florence-community/Florence-2-large", 771_000_000, "mit"),
    )

    @classmethod
    def from_components(cls, model: Any, tokenizer: Any, processor: Any, card: Mapping[str, Any] | None = None) -> Self:
        text, search = model.config.text_config, model.generation_config
        search.forced_bos_token_id, search.decoder_start_token_id = text.bos_token_id, text.decoder_start_token_id
        search.forced_eos_token_id = None  # a caption that was cut has no end
        processor.image_seq_length = image_tokens(model.config, processor.size["height"])
        return super().from_components(
            model, tokenizer, processor, card or {"prompt": CAPTION, "generation": GENERATION}
        )

    @classmethod
    def load(cls, folder: str | Path, *, image_size: int | None = None, placing: Placing = FP32, **hub: Any) -> Self:
        vision = read_file(str(folder), "config.json", hub).get("vision_config") or {}
        if vision.get("model_type") == "davit":
            raise own_format_error(folder, "florence2")
        found = super().load(folder, image_size=image_size, placing=placing, **hub)
        # How the answers of other tasks are read; captune writes captions, and saves it as it was.
        found.processor.post_processor_config = read_file(str(folder), PROCESSOR, hub).get("post_processor_config")
        return found

    @classmethod
    def new(
        cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000
    ) -> Florence2:
        from transformers import CLIPImageProcessorPil, Florence2Config, Florence2ForConditionalGeneration
        from transformers import PreTrainedTokenizerFast as Tokenizer

        if size not in cls.sizes:
            raise UsageError(f"There is no Florence-2 size '{size}'.", did_you_mean(size, cls.sizes))
        side = image_size or 32
        if side % STRIDE:
            raise UsageError(
                f"An image of {side} pixels is no whole number of {STRIDE}.", "Choose another --image-size."
            )
        learned = learn_tokenizer(texts, vocab_size).backend_tokenizer
        tokenizer = Tokenizer(
            tokenizer_object=learned,
            **SPECIAL,
            bos_token="[CLS]",
            eos_token="[SEP]",
            extra_special_tokens={"image_token": IMAGE},
            clean_up_tokenization_spaces=False,
        )
        ids = tokenizer.get_vocab()
        bart = {"d_model": 48, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        bart |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 160}
        ends = {"bos_token_id": ids["[CLS]"], "eos_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
        config = Florence2Config(
            vision_config={
                "depths": (1, 1),
                "patch_size": (7, 3),
                "patch_stride": (4, 2),
                "patch_padding": (3, 1),
                "patch_prenorm": (False, True),
                "embed_dim": (16, 32),
                "num_heads": (2, 2),
                "num_groups": (2, 2),
                "window_size": 4,
                "drop_path_rate": 0.0,
                "projection_dim": 48,
                "initializer_range": 0.1,
            },
            text_config={
                "model_type": "bart",
                **bart,
                **ends,
                "vocab_size": len(tokenizer),
                "dropout": 0.0,
                "decoder_start_token_id": ids["[SEP]"],
                "forced_bos_token_id": ids["[CLS]"],
                "forced_eos_token_id": None,
            },
            image_token_id=ids[IMAGE],
            **ends,
        )
        images = CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)
        card = {"prompt": "", "generation": {}}
        return cls.from_components(Florence2ForConditionalGeneration(config), tokenizer, images, card)

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        return f"""import torch
from PIL import Image, ImageOps
from transformers import AutoProcessor, Florence2ForConditionalGeneration

processor = AutoProcessor.from_pretrained("{repo}")
model = Florence2ForConditionalGeneration.from_pretrained("{repo}")
{OPEN_IMAGE}
inputs = processor(text={prompt!r}, images=image, return_tensors="pt")
text = model.config.text_config
found = model.generate(
    **inputs, decoder_input_ids=torch.tensor([[text.decoder_start_token_id, text.bos_token_id]]), {search},
)
print(processor.tokenizer.decode(found[0], skip_special_tokens=True).strip())"""

    def part_of(self, name: str) -> str:
        names = name.split(".")
        return "vision" if "vision_tower" in names else "bridge" if "multi_modal_projector" in names else "text"

    def shardable_parts(self) -> dict[str, nn.Module]:
        return {"vision": self.model.model.vision_tower, "text": self.model.model.language_model}

    # -- text ------------------------------------------------------------------------

    @property
    def codec(self) -> TaskCodec:
        return TaskCodec(**vars(super().codec), processor=self._whole_processor())

    def _whole_processor(self) -> Any:
        from transformers import Florence2Processor

        config = getattr(self.processor, "post_processor_config", None)
        return Florence2Processor(self.processor, self.tokenizer, post_processor_config=config)

    @property
    def suppressed_tokens(self) -> tuple[int, ...]:
        return (self.model.config.image_token_id,)

    @property
    def vision_hidden_size(self) -> int:
        return int(self.model.config.vision_config.embed_dim[-1])

    @property
    def max_length(self) -> int:
        """The encoder reads the image, a start, the prompt and an end."""
        return int(self.text_config.max_position_embeddings) - self.processor.image_seq_length - 1

    # -- images ----------------------------------------------------------------------

    def encode(self, pixel_values: Tensor) -> Tensor:
        tower = self.model.model.vision_tower
        weight = next(tower.parameters())
        return tower(pixel_values.to(weight.dtype)).last_hidden_state.flatten(2).transpose(1, 2)

    def _projected(self, memory: Tensor) -> Tensor:
        """The memory of square images as the encoder reads it: (images, places + 1, width)."""
        projector = self.model.model.multi_modal_projector
        side = isqrt(memory.shape[1])
        grid = memory.transpose(1, 2).unflatten(2, (side, side))
        return projector(grid.to(projector.image_projection.weight.dtype))

    def _read(self, projected: Tensor, prompts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Images with prompts (rows, steps) of `lengths` (rows,), read; and which places (rows, places) are real."""
        prompts = torch.nn.functional.pad(prompts, (1, 1), value=self.pad_token_id)
        prompts[:, 0] = self.bos_token_id
        places = torch.arange(prompts.shape[1], device=prompts.device)
        prompts = prompts.where(places != lengths[:, None] + 1, self.eos_token_id)
        words = self.model.get_input_embeddings()(prompts)
        mask = (places < lengths[:, None] + 2).long()
        mask = torch.cat([mask.new_ones(projected.shape[:2]), mask], 1)
        read = self.model.model.language_model.encoder(
            inputs_embeds=torch.cat([projected.to(words.dtype), words], 1), attention_mask=mask
        )
        return read.last_hidden_state, mask

    # -- losses and search -----------------------------------------------------------

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
        if recompute and self.model.training:
            self.model.gradient_checkpointing_enable()
        before, lengths = given - 1, lengths - given + 1
        places = torch.arange(int(before.max()), device=tokens.device)
        prompts = tokens[:, 1 : int(given.max())].where(places < before[:, None], self.pad_token_id)
        # Captions of one image behind one prompt share what the encoder made of both.
        rows = torch.cat([owner[:, None], before[:, None], prompts], 1)
        rows, which = rows.unique(dim=0, return_inverse=True)
        encoded, mask = self._read(self._projected(memory)[rows[:, 0]], rows[:, 2:], rows[:, 1])
        # Where nothing is supervised the decoder still reads the start.
        steps = torch.arange(max(2, int(lengths.max())), device=tokens.device)
        at = (before[:, None] + steps).clamp(max=tokens.shape[1] - 1)
        captions = torch.cat([tokens[:, :1], tokens.gather(1, at)[:, 1:]], 1)
        captions = captions.where(steps < lengths[:, None], self.pad_token_id)
        logits = self._logits(captions[:, :-1], encoded[which], mask[which])
        return padded_losses(logits, captions, lengths, torch.ones_like(given), label_smoothing)

    def _logits(self, captions: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
        """Scores (captions, steps, vocabulary) behind each token of captions that begin with `bos_token_id`."""
        starts = captions.new_full((len(captions), 1), self.text_config.decoder_start_token_id)
        hidden = self.model.model.language_model.decoder(
            input_ids=torch.cat([starts, captions], 1),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return self.model.lm_head(hidden[:, 1:].contiguous())

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        given = torch.tensor([list(prefix)], device=memory.device).repeat(len(memory), 1)
        read, mask = self._read(self._projected(memory), given[:, 1:], given.new_full((len(given),), len(prefix) - 1))
        starts = given.new_tensor([[self.text_config.decoder_start_token_id, self.bos_token_id]])
        found = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=read),
            attention_mask=mask,
            decoder_input_ids=starts.repeat(len(given), 1),
            **self.generate_kwargs(options, temperature),
        )
        each = len(found) // len(memory)
        return torch.cat([given.repeat_interleave(each, 0), found[:, 2:]], 1)

    def teacher_forced(self, memory: Tensor, tokens: Sequence[int], prompt_length: int) -> TeacherForced:
        """Without attention: the encoder reads the image before the first token."""
        read = torch.tensor([list(tokens)], device=memory.device)
        encoded, mask = self._read(
            self._projected(memory), read[:, 1:prompt_length], read.new_tensor([prompt_length - 1])
        )
        captions = torch.cat([read[:, :1], read[:, prompt_length:]], 1)
        return TeacherForced(self._logits(captions, encoded, mask)[0].float(), None)

    def _save_model(self, folder: Path, **weights: Any) -> None:
        self.set_generation_config(self.model.generation_config)
        self.model.save_pretrained(folder, **weights)
        self._whole_processor().save_pretrained(folder)


def image_tokens(config: Any, side: int) -> int:
    """How many places the encoder reads of an image of `side` pixels: one for its mean, and its grid."""
    vision = config.vision_config
    for patch, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        side = (side + 2 * padding - patch) // stride + 1
    return side * side + 1
