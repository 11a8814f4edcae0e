"""BLIP for questions: a text encoder reads the question beside the picture, a decoder writes the answer.

Li et al. 2022, *BLIP: Bootstrapping Language-Image Pre-training*; the weights and layers are
`transformers.BlipForQuestionAnswering`. The prompt is the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captune.core.options import GenerationOptions
from captune.models.attention import CaptionGrid
from captune.models.backbone import Backbone, Checkpoint
from captune.models.blip import SIZES, blip_config, clear_positions, resize_vision
from captune.models.blip_text import decode_grouped
from captune.models.eye import blip_eye
from captune.models.losses import TokenLosses, token_losses
from captune.models.positions import resize_processor
from captune.models.vocabulary import learn_tokenizer


class BlipVqa(Backbone):
    """`BlipForQuestionAnswering` with its tokenizer and pixels: its captions answer the prompt."""

    family: ClassVar[str] = "blip-vqa"
    sizes: ClassVar[tuple[str, ...]] = tuple(SIZES)
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("Salesforce/blip-vqa-base", 385_000_000, "bsd-3-clause"),
        Checkpoint("Salesforce/blip-vqa-capfilt-large", 385_000_000, "bsd-3-clause"),
    )

    @classmethod
    def load(cls, folder: str | Path, *, image_size: int | None = None, **hub: Any) -> BlipVqa:
        from transformers import AutoTokenizer, BlipForQuestionAnswering
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        model: Any = BlipForQuestionAnswering.from_pretrained(str(folder), dtype=torch.float32, **hub)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **hub)
        processor = BlipImageProcessorPil.from_pretrained(str(folder), **hub)
        if image_size is not None and image_size != int(model.config.vision_config.image_size):
            resize_vision(model, image_size)
        resize_processor(processor, int(model.config.vision_config.image_size))
        return cls.assembled(model, tokenizer, processor, cls.read_card(folder))

    @classmethod
    def new(cls, size: str, texts: Iterable[str], *, image_size: int | None = None, vocab_size: int = 8000) -> BlipVqa:
        from transformers import BlipForQuestionAnswering
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        tokenizer = learn_tokenizer(texts, vocab_size)
        config = blip_config(size, tokenizer, image_size)
        model = BlipForQuestionAnswering(config)
        clear_positions(model)
        side = config.vision_config.image_size
        return cls.assembled(model, tokenizer, BlipImageProcessorPil(size={"height": side, "width": side}))

    def parts(self) -> dict[str, list[nn.Parameter]]:
        parts: dict[str, list[nn.Parameter]] = {"vision": [], "bridge": [], "text": []}
        for name, parameter in self.model.named_parameters():
            sees = "text_encoder." in name and ".crossattention." in name
            parts["vision" if "vision_model." in name else "bridge" if sees else "text"].append(parameter)
        return parts

    def layered_parts(self) -> dict[str, nn.Module]:
        return {"vision": self.model.vision_model}

    def encode(self, pixel_values: Tensor) -> Tensor:
        vision = self.model.vision_model
        found = self.seen_by(vision, pixel_values, lambda: blip_eye(vision, self.running_dtype))
        return vision(pixel_values=pixel_values).last_hidden_state if found is None else found

    def read(self, memory: Tensor, questions: Tensor) -> Tensor:
        """Pictures (rows, places, width) with questions (rows, steps) about them, read: (rows, steps + 2, width).

        All questions have as many tokens: `transformers` (5.23) does not mask padding in BLIP's cross-attention.
        """
        ids = nn.functional.pad(questions, (1, 1))
        ids[:, 0], ids[:, -1] = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        return self.model.text_encoder(
            input_ids=ids, attention_mask=torch.ones_like(ids), encoder_hidden_states=memory
        ).last_hidden_state

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
        parts = []
        idle = (lengths == given).long()  # nothing of it is supervised: it reads the start alone
        for before in given.unique().tolist():
            rows = (given == before).nonzero()[:, 0]
            # Answers to one question about one picture share what the encoder made of both.
            asked, which = torch.cat([owner[:, None], tokens[:, 1:before]], 1)[rows].unique(dim=0, return_inverse=True)
            order = which.argsort(stable=True)
            rows, which = rows[order], which[order]
            states = self.read(memory[asked[:, 0]], asked[:, 1:])
            answers = nn.functional.pad(torch.cat([tokens[rows, :1], tokens[rows, before:]], 1), (0, 1), value=self.pad)
            grid = CaptionGrid(lengths[rows] - before + idle[rows], which, len(asked))
            decoder = self.model.text_decoder
            hidden = decode_grouped(decoder, states, answers, grid, recompute=recompute)
            found = token_losses(decoder.cls, hidden, answers, grid, 1 + idle[rows], label_smoothing)
            parts.append((rows[found.caption], found))
        caption = torch.cat([rows for rows, _ in parts])
        order = caption.argsort(stable=True)
        nll, objective = (torch.cat([getattr(f, name) for _, f in parts])[order] for name in ("nll", "objective"))
        return TokenLosses(nll, objective, caption[order])

    def search(self, memory: Tensor, prefix: Sequence[int], options: GenerationOptions, temperature: float) -> Tensor:
        given = torch.tensor([list(prefix)], device=memory.device).repeat(len(memory), 1)
        states = self.read(memory, given[:, 1:])
        found = self.model.text_decoder.generate(
            input_ids=given[:, :1],
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=states.device),
            **self.asked_of_transformers(options, temperature),
        )
        return torch.cat([given.repeat_interleave(len(found) // len(memory), 0), found[:, 1:]], 1)

    @property
    def width(self) -> int:
        return self.model.config.vision_config.hidden_size

    @property
    def start(self) -> int:
        return self.model.decoder_start_token_id

    @property
    def end(self) -> int:
        return self.model.config.text_config.sep_token_id

    @property
    def pad(self) -> int:
        return self.model.config.text_config.pad_token_id

    @property
    def longest(self) -> int:
        return self.model.config.text_config.max_position_embeddings - 2

    def set_dropout(self, probability: float) -> None:
        config = self.model.config.text_config
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = probability
        for part in (self.model.text_encoder, self.model.text_decoder):
            for module in part.modules():
                if isinstance(module, nn.Dropout):
                    module.p = probability

    def _save_model(self, folder: Path) -> None:
        from transformers import BlipProcessor

        self.set_generation_config(self.model.generation_config)
        self.model.save_pretrained(folder)
        BlipProcessor(self.processor, self.tokenizer).save_pretrained(folder)
