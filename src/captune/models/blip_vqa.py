"""BLIP for questions: a text encoder reads the question beside the image, a decoder writes the answer.

Li et al. 2022, *BLIP: Bootstrapping Language-Image Pre-training*; the weights and layers are
`transformers.BlipForQuestionAnswering`. The prompt is the question.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from captune.core.options import GenerationOptions
from captune.decoding.encoding import prompt_for
from captune.models.backbone import OPEN_IMAGE, Backbone, Checkpoint, Task
from captune.models.blip import Blip, decode_grouped
from captune.models.layers.attention import CaptionGrid
from captune.models.layers.losses import TeacherForced, TokenLosses, averaged, token_losses


class BlipVqa(Blip):
    """`BlipForQuestionAnswering` with its tokenizer and image processor: its captions answer the prompt."""

    family: ClassVar[str] = "blip-vqa"
    kind: ClassVar[str] = "BlipForQuestionAnswering"
    task: ClassVar[Task] = Task(
        "visual-question-answering",
        "Visual question answering",
        "A model that answers questions about images",
        'captune.ask("photo.jpg", "what is it?", model="{repo}")[0].answer',
    )
    text_modules: ClassVar[tuple[str, ...]] = ("text_encoder", "text_decoder")
    checkpoints: ClassVar[tuple[Checkpoint, ...]] = (
        Checkpoint("Salesforce/blip-vqa-base", 385_000_000, "bsd-3-clause"),
        Checkpoint("Salesforce/blip-vqa-capfilt-large", 385_000_000, "bsd-3-clause"),
    )

    text_decoder = Backbone.text_decoder  # it reads the question first

    @classmethod
    def transformers_code(cls, repo: str, prompt: str, search: str, *, encoder: bool = False) -> str:
        return f"""from PIL import Image, ImageOps
from transformers import BlipForQuestionAnswering, BlipProcessor

processor = BlipProcessor.from_pretrained("{repo}")
model = BlipForQuestionAnswering.from_pretrained("{repo}")
{OPEN_IMAGE}
inputs = processor(image, text={prompt_for(prompt, "what is it?")!r}, return_tensors="pt")
found = model.generate(**inputs, {search})
print(processor.decode(found[0], skip_special_tokens=True).strip())"""

    def part_of(self, name: str) -> str:
        part = super().part_of(name)
        return "text" if part == "bridge" and "text_encoder." not in name else part

    def shardable_parts(self) -> dict[str, nn.Module]:
        return {"vision": self.model.vision_model}

    def read(self, memory: Tensor, questions: Tensor, **keywords: Any) -> Any:
        """What the text encoder gives for images (rows, places, width) with questions (rows, steps) about them.

        Its `last_hidden_state` is (rows, steps + 2, width); `keywords` are further keywords of its forward pass.

        All questions have as many tokens: `transformers` (5.23) does not mask padding in BLIP's cross-attention.
        """
        ids = nn.functional.pad(questions, (1, 1))
        ids[:, 0], ids[:, -1] = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        return self.model.text_encoder(
            input_ids=ids, attention_mask=torch.ones_like(ids), encoder_hidden_states=memory, **keywords
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
        parts = []
        idle = (lengths == given).long()  # nothing of it is supervised: it reads the start alone
        for before in given.unique().tolist():
            rows = (given == before).nonzero()[:, 0]
            # Answers to one question about one image share what the encoder made of both.
            unique_questions, which = torch.cat([owner[:, None], tokens[:, 1:before]], 1)[rows].unique(
                dim=0, return_inverse=True
            )
            order = which.argsort(stable=True)
            rows, which = rows[order], which[order]
            states = self.read(memory[unique_questions[:, 0]], unique_questions[:, 1:]).last_hidden_state
            answers = nn.functional.pad(
                torch.cat([tokens[rows, :1], tokens[rows, before:]], 1), (0, 1), value=self.pad_token_id
            )
            grid = CaptionGrid(lengths[rows] - before + idle[rows], which, len(unique_questions))
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
        states = self.read(memory, given[:, 1:]).last_hidden_state
        found = self.model.text_decoder.generate(
            input_ids=given[:, :1],
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=states.device),
            **self.generate_kwargs(options, temperature),
        )
        return torch.cat([given.repeat_interleave(len(found) // len(memory), 0), found[:, 1:]], 1)

    def teacher_forced(self, memory: Tensor, tokens: Sequence[int], prompt_length: int) -> TeacherForced:
        """The answer attends to the question's tokens, which attend to the image: its attention goes through them."""
        question = torch.tensor([list(tokens[1:prompt_length])], dtype=torch.long, device=memory.device)
        read = self.read(memory, question, output_attentions=True)
        states = read.last_hidden_state
        answer = self.model.text_decoder(
            input_ids=torch.tensor([[tokens[0], *tokens[prompt_length:]]], device=memory.device),
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=memory.device),
            use_cache=False,
            output_attentions=True,
        )
        through = averaged(answer.cross_attentions) @ averaged(read.cross_attentions)
        return TeacherForced(answer.logits[0].float(), through[0])

    @property
    def max_length(self) -> int:
        return super().max_length - 2
