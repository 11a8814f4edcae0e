"""Kinds of models without a chat template, whose authors wrote every prompt in one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from captune.core.errors import UsageError
from captune.models.vlm.chat import ChatTemplate


@dataclass(frozen=True)
class PaliGemmaPrompt(ChatTemplate):
    """PaliGemma's way: the image, the token that begins, the prompt, a new line; the caption follows.

    Beyer et al. 2024, *PaliGemma: A versatile 3B VLM for transfer*. All before the caption is read in both directions.
    """

    default: ClassVar[str] = "caption en"

    def render(self, prompt: str, answer: str | None = None, system: str = "") -> str:
        if system:
            raise UsageError("PaliGemma has no system message.", "Put it into the prompt: --prompt.")
        words = self.processor.tokenizer
        before = f"{self.image}{words.bos_token}{self.plain(prompt)}\n"
        return before if answer is None else f"{before}{self.plain(answer)}{words.eos_token}"


# By kind of model.
PREFIXES: dict[str, type[PaliGemmaPrompt]] = {"paligemma": PaliGemmaPrompt}
