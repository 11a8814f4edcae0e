"""Prompts, references and captions as the tokens of a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from captune.captions.prompts.template import DESCRIBE as DESCRIBE
from captune.captions.prompts.template import template_for
from captune.core.errors import UsageError
from captune.core.options import GenerationOptions


@dataclass(frozen=True)
class Turn:
    """A message of a conversation about an image, which the first of the user shows."""

    role: Literal["user", "assistant"]
    text: str


class FollowUp(str):
    """A prompt that is the last message of a conversation, with the `earlier` turns.

    Models with a chat template read all of it; those that continue their prompt the last message alone.
    """

    earlier: tuple[Turn, ...]

    def __new__(cls, text: str, earlier: Sequence[Turn]) -> Self:
        made = super().__new__(cls, text)
        made.earlier = tuple(earlier)
        return made


@dataclass(frozen=True)
class Encoded:
    """A reference or prompt as the model reads it; the first `prompt_length` tokens are not supervised.

    `cut`: there was no room for all of the reference; it has its beginning, and the end token.
    """

    tokens: tuple[int, ...]
    prompt_length: int
    cut: bool = False


@dataclass(frozen=True)
class TextCodec:
    """How a model reads and writes text: `encode` adds no special tokens, `decode` leaves them out.

    `prompt` is the model's own; `max_length` counts all tokens that it can read.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    bos_token_id: int
    eos_token_id: int
    max_length: int
    prompt: str

    def start(self, prompt: str) -> list[int]:
        """The tokens before a caption: the start, and the prompt."""
        return [self.bos_token_id, *self.encode(prompt)]

    @property
    def answers(self) -> bool:
        """Whether a caption answers its prompt, a message of a chat, instead of continuing it."""
        return False

    def under(self, options: GenerationOptions) -> Self:
        """The same with the system prompt and the prefill of `options`; raises `UsageError` where it has no such."""
        if options.system_prompt or options.prefill:
            flag, instead = (
                ("--system-prompt", "--prompt 'a photo of'")
                if options.system_prompt
                else ("--prefill", f"--prompt '{options.prefill}' --prompt-in-caption")
            )
            raise UsageError(
                f"{flag} is for models with a chat template; captions of this one continue their prompt.",
                f"Use {instead}.",
            )
        return self

    def prefix(self, prompt: str | None, options: GenerationOptions) -> list[int]:
        """Start and prompt (None: the model's own) as tokens. Raises `UsageError` for what cannot be continued."""
        prompt = self.prompt if prompt is None else prompt
        codec = self.under(options)
        check_prompt(prompt, options)
        prefix = codec.start(prompt)
        check_length(len(prefix), self.max_length, options)
        return prefix

    def token_budget(self, prompt: str | None = None) -> int:
        """How many new tokens fit behind start and prompt (None: the model's own); 0 or less: none."""
        return self.max_length - len(self.start(self.prompt if prompt is None else prompt))

    def text(self, tokens: Sequence[int], prompt: str | None, options: GenerationOptions) -> str:
        """A caption's text; with `prompt_in_caption` it begins with the prompt (None: the model's own)."""
        if not options.prompt_in_caption:
            return self.decode(tokens)
        prompt = self.prompt if prompt is None else prompt
        return with_prompt(prompt, self.encode(prompt), tokens, self.decode)

    def reference(self, reference: str, prompt: str, max_tokens: int) -> Encoded:
        """Start, prompt, at most `max_tokens` tokens of the reference, end."""
        prompt_tokens = self.encode(prompt)
        tokens = self.encode(f"{prompt} {reference}" if prompt_tokens else reference)
        # In many vocabularies a word behind a space is another token. Where the prompt's own tokens change by what
        # follows, they stay as generation will write them.
        after = len(prompt_tokens)
        tokens = tokens[after:] if tokens[:after] == prompt_tokens else self.encode(reference)
        prefix = [self.bos_token_id, *prompt_tokens]
        room = max(0, min(max_tokens, self.max_length - len(prefix) - 1))
        return Encoded((*prefix, *tokens[:room], self.eos_token_id), len(prefix), len(tokens) > room)


def check_length(prefix: int, longest: int, options: GenerationOptions) -> None:
    """Raise `UsageError` where start and prompt (`prefix` tokens) leave too little of the `longest` text."""
    if prefix + options.max_new_tokens > longest:
        raise UsageError(
            f"The prompt ({prefix} tokens) and {options.max_new_tokens} new tokens exceed the {longest} tokens this "
            "model can read.",
            f"Set --max-new-tokens to {max(1, longest - prefix)} or less, or shorten the prompt.",
        )


def check_prompt(prompt: str, options: GenerationOptions) -> None:
    """Raise `UsageError` where captions are to begin with a prompt, and neither options nor model have one."""
    if options.prompt_in_caption and not prompt.strip():
        raise UsageError(
            "There is no prompt that captions could begin with: none is given, and the model has none of its own.",
            "Name one as well, for example --prompt 'a photo of', or turn it off: --no-prompt-in-caption.",
        )


def with_prompt(
    prompt: str, prompt_tokens: Sequence[int], tokens: Sequence[int], decode: Callable[[list[int]], str]
) -> str:
    """A prompt and the caption that continues it, joined as the tokenizer joins their tokens."""
    alone, whole = decode([*prompt_tokens]).strip(), decode([*prompt_tokens, *tokens]).strip()
    rest = whole[len(alone) :] if alone and whole.startswith(alone) else f" {decode([*tokens]).strip()}"
    return f"{prompt.rstrip()}{rest}".strip()


def prompt_for(model_prompt: str, question: str, prompt: str | None = None) -> str:
    """The model's prompt, or `prompt` instead, with a question at its `{question}`, else at its end.

    A question takes the place of a prompt that is just to describe the image. What else stands in braces is known of
    an image alone: it is left out.
    """
    return template_for(model_prompt, prompt, question).asking(question, {})
