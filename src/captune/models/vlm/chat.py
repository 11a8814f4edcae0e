"""Prompts as messages of a chat: a checkpoint's own template, and its processor without what videos need."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.decoding.encoding import Encoded, FollowUp, TextCodec, Turn, with_prompt
from captune.decoding.thinking import ANSWERS, THINKS, without_thinking


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

    def render(self, prompt: str, answer: str | None = None, system: str = "") -> str:
        """The text up to the answer, or with an answer the whole; raises `CaptuneError` where no image is in it."""
        earlier = prompt.earlier if isinstance(prompt, FollowUp) else ()
        turns = [*earlier, Turn("user", prompt)]
        messages = [_message(turn.role, {"type": "text", "text": self.plain(turn.text)}) for turn in turns]
        messages[0]["content"].insert(0, {"type": "image"})
        if system:
            messages.insert(0, _message("system", {"type": "text", "text": self.plain(system)}))
        if answer is not None:
            messages.append(_message("assistant", {"type": "text", "text": self.plain(answer)}))
        thinking = {"enable_thinking": False} if "enable_thinking" in str(self.processor.chat_template) else {}
        text = self._applied(messages, add_generation_prompt=answer is None, **thinking)
        if text.count(self.image_token) != 1:
            raise CaptuneError(
                f"The model's chat template has {text.count(self.image_token)} places for an image where 1 is needed "
                f"({self.image_token}).",
                "Take a checkpoint that was trained on images, with the template of its authors.",
            )
        if system and self.plain(system) not in text:
            raise UsageError(
                "The model's chat template leaves a system message out.", "Put it into the prompt: --prompt."
            )
        return text.replace(self.image_token, self.image)

    def _applied(self, messages: list[dict[str, Any]], **settings: Any) -> str:
        from jinja2.exceptions import TemplateError

        try:
            return str(self.processor.apply_chat_template(messages, tokenize=False, **settings))
        except TemplateError as error:
            advice = "Put it into the prompt: --prompt." if messages[0]["role"] == "system" else "Take a newer one."
            raise CaptuneError(f"The model's chat template refuses the message: {error}", advice) from error

    def plain(self, text: str) -> str:
        """Words of a person, in which special tokens are no tokens."""
        tokenizer = self.processor.tokenizer
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        for token in (self.image_token, *tokenizer.all_special_tokens, *added):
            text = text.replace(token, " ".join(token))
        return text


def _message(role: str, *content: dict[str, str]) -> dict[str, Any]:
    return {"role": role, "content": list(content)}


@dataclass(frozen=True)
class ChatCodec(TextCodec):
    """A codec whose prompt is a user's message: captions are the answer to it, and begin with the `prefill`."""

    template: ChatTemplate = field(kw_only=True)
    system_prompt: str = field(default="", kw_only=True)
    prefill: str = field(default="", kw_only=True)

    @property
    def answers(self) -> bool:
        return True

    def under(self, options: GenerationOptions) -> Self:
        if options.prompt_in_caption:
            raise UsageError(
                "Captions of this model answer their prompt: they do not continue it, as --prompt-in-caption needs.",
                "To begin every caption with the same words, use --prefill 'A photo of'.",
            )
        system, prefill = options.system_prompt, options.prefill
        return replace(
            self,
            system_prompt=self.system_prompt if system is None else system,
            prefill=self.prefill if prefill is None else prefill,
        )

    def start(self, prompt: str) -> list[int]:
        """The tokens before a caption: messages, and the words that it begins with."""
        return self.encode(self._before(prompt))

    def _before(self, prompt: str) -> str:
        text = self.template.render(prompt, system=self.system_prompt)
        return text + self.template.plain(self.prefill.strip())

    def text(self, tokens: Sequence[int], prompt: str | None, options: GenerationOptions) -> str:
        """A caption's text, with the words that it begins with and without thoughts before it."""
        codec = self.under(options)
        prefill = codec.prefill.strip()
        text = with_prompt(prefill, self.encode(prefill), tokens, self.decode) if prefill else self.decode(tokens)
        message = codec.template.render(self.prompt if prompt is None else prompt, system=codec.system_prompt)
        return without_thinking(THINKS + text if message.rfind(THINKS) > message.rfind(ANSWERS) else text)

    def reference(self, reference: str, prompt: str, max_tokens: int) -> Encoded:
        """The message, at most `max_tokens` tokens of the reference, the end of the turn.

        A prefill stands before the reference unless the reference begins with it. Raises `CaptuneError` where
        the template writes the message of a conversation with an answer in another way.
        """
        prefill, reference = self.prefill.strip(), reference.strip()
        answer = reference if reference.startswith(prefill) else f"{prefill} {reference}"
        before, whole = self._before(prompt), self.template.render(prompt, answer, self.system_prompt)
        if not whole.startswith(before):
            raise CaptuneError(
                "The model's chat template writes a message in another way once it is answered: nothing could be "
                "learned of it.",
                "Take a checkpoint with another template.",
            )
        prefix, tokens = self.encode(before), self.encode(whole)
        rest = tokens[len(prefix) :] if tokens[: len(prefix)] == prefix else self.encode(whole[len(before) :])
        caption = rest[: rest.index(self.eos_token_id)] if self.eos_token_id in rest else rest
        room = max(0, min(max_tokens, self.max_length - len(prefix) - 1))
        return Encoded((*prefix, *caption[:room], self.eos_token_id), len(prefix), len(caption) > room)


def turn_end(template: ChatTemplate, encode: Callable[[str], list[int]], special: Sequence[int], default: int) -> int:
    """The token that ends an answer: the first special one behind it, as the template writes an answer."""
    marker = "captune"
    text = template.render("", marker)
    behind = encode(text[text.rindex(marker) + len(marker) :])
    return next((token for token in behind if token in special), default)
