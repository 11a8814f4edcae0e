"""Prompts as messages of a chat: a checkpoint's own template, and its processor without what videos need."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils.hub import PushToHubMixin

from captune.core.errors import CaptuneError
from captune.decoding.encoding import Encoded, TextCodec
from captune.models.loading.pretrained import PROCESSOR, pretrained, read_file

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


def load_processor(source: str | Path, **hub: Any) -> Any:
    """A checkpoint's processor, with the image processor for Pillow.

    Raises `CaptuneError` for a kind of model whose images only torchvision prepares.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = pretrained(AutoConfig, source, **hub)
    kind = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None:
        raise CaptuneError(
            f"{source} is of the kind '{config.model_type}', for which transformers has no processor.",
            "Models that caption here: captune models.",
        )
    saved = read_file(str(source), PROCESSOR, hub)
    saved.setdefault("video_processor", read_file(str(source), "video_preprocessor_config.json", hub))
    try:
        images = pretrained(AutoImageProcessor, source, backend="pil", **hub)
    except (ImportError, ValueError) as error:
        raise CaptuneError(
            f"Images for models of the kind '{config.model_type}' are prepared by torchvision alone: {error}",
            "Serve it with vLLM or llama.cpp; captune prepares images with Pillow.",
        ) from error
    values, _ = kind.get_processor_dict(str(source), **hub)
    return build_processor(kind, images, pretrained(AutoTokenizer, source, **hub), {**saved, **values})


def build_processor(kind: Any, images: Any, tokenizer: Any, values: dict[str, Any]) -> Any:
    """A processor of the class `kind` of its parts and its saved `values`.

    `transformers` builds a processor for videos as well, which needs torchvision: of that the settings alone are kept.
    """
    parts = kind.get_attributes()
    named = inspect.signature(kind.__init__).parameters
    chosen = {name: value for name, value in values.items() if name in named and name not in parts}
    if "video_processor" not in parts:
        return kind(image_processor=images, tokenizer=tokenizer, **chosen)
    videos = VideoSettings(values.get("video_processor") or {})
    return _accepting(kind)(image_processor=images, tokenizer=tokenizer, video_processor=videos, **chosen)


class VideoSettings(PushToHubMixin):
    """The saved settings of a processor for videos, which is not built."""

    _auto_class = None

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        """Them, as they were."""
        return dict(self.values)


def _accepting(kind: Any) -> Any:
    """The class, by the same name, with settings in place of the processor for videos."""

    def check(self: Any, name: str, part: Any) -> Any:
        return type(part) if isinstance(part, VideoSettings) else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
