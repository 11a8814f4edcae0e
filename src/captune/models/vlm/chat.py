"""Prompts as messages of a chat: a checkpoint's own template, and its processor without what videos need."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from captune.core.errors import CaptuneError
from captune.decoding.encoding import Encoded, TextCodec

# What a model wrote for itself before its answer.
THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class ChatTemplate:
    """How a user's message about one image, and the answer to it, are written as text.

    `image` stands for an image in it: the processor's image token, with the white space that belongs around it.
    """

    processor: Any
    image: str

    @property
    def image_token(self) -> str:
        """The token in whose place an image's features are read."""
        return str(self.processor.image_token)

    def render(self, prompt: str, answer: str | None = None) -> str:
        """The text up to the answer, or with an answer the whole; raises `CaptuneError` where no image is in it."""
        messages = [_message("user", {"type": "image"}, {"type": "text", "text": self._plain(prompt)})]
        if answer is not None:
            messages.append(_message("assistant", {"type": "text", "text": self._plain(answer)}))
        thinking = {"enable_thinking": False} if "enable_thinking" in str(self.processor.chat_template) else {}
        text = self.processor.apply_chat_template(
            messages, add_generation_prompt=answer is None, tokenize=False, **thinking
        )
        if text.count(self.image_token) != 1:
            raise CaptuneError(
                f"The model's chat template has {text.count(self.image_token)} places for an image where 1 is needed "
                f"({self.image_token}).",
                "Take a checkpoint that was trained on images, with the template of its authors.",
            )
        return str(text).replace(self.image_token, self.image)

    def _plain(self, text: str) -> str:
        """Words of a person, in which special tokens are no tokens."""
        for token in (self.image_token, *self.processor.tokenizer.all_special_tokens):
            text = text.replace(token, " ".join(token))
        return text


def _message(role: str, *content: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


@dataclass(frozen=True)
class ChatCodec(TextCodec):
    """A codec whose prompt is a user's message: captions are the answer to it."""

    template: ChatTemplate = field(kw_only=True)

    def start(self, prompt: str) -> list[int]:
        return self.encode(self.template.render(prompt))

    def reference(self, reference: str, prompt: str, max_tokens: int) -> Encoded:
        """The message, at most `max_tokens` tokens of the reference, the end of the turn.

        Raises `CaptuneError` where the template writes the message of a conversation with an answer in another way.
        """
        prefix = self.start(prompt)
        before, whole = self.template.render(prompt), self.template.render(prompt, reference)
        if not whole.startswith(before):
            raise CaptuneError(
                "The model's chat template writes a message in another way once it is answered: nothing could be "
                "learned of it.",
                "Take a checkpoint with another template.",
            )
        tokens = self.encode(whole)
        rest = tokens[len(prefix) :] if tokens[: len(prefix)] == prefix else self.encode(whole[len(before) :])
        answer = rest[: rest.index(self.eos_token_id)] if self.eos_token_id in rest else rest
        room = min(max_tokens, self.max_length - len(prefix) - 1)
        return Encoded((*prefix, *answer[:room], self.eos_token_id), len(prefix))


def without_thinking(text: str) -> str:
    """A caption without what the model wrote for itself before it."""
    return THINKING.sub("", text).strip()


def turn_end(template: ChatTemplate, encode: Callable[[str], list[int]], special: Sequence[int], default: int) -> int:
    """The token that ends an answer: the first special one behind it, as the template writes an answer."""
    marker = "captune"
    text = template.render("", marker)
    behind = encode(text[text.rindex(marker) + len(marker) :])
    return next((token for token in behind if token in special), default)
