"""What requests and responses of OpenAI's chat completions hold."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from captune.core.config import OF_SAMPLING
from captune.core.options import GenerationOptions, WordingOptions
from captune.server.completions import ChatTurn
from captune.server.schemas import MAX_TEXT_LENGTH, GenerationRequest, Image, MaxTokens, Model

MAX_STOPS = 4
Stop = Annotated[str, Field(min_length=1, max_length=200)]


class ImageUrl(BaseModel):
    """An image as a data URL."""

    url: Image


class Part(BaseModel):
    """A part of a message: text or an image."""

    type: Literal["text", "image_url"]
    text: str | None = Field(None, max_length=MAX_TEXT_LENGTH)
    image_url: ImageUrl | None = None


class Message(BaseModel):
    """A message of a chat."""

    role: str = Field(max_length=50)
    content: str | Annotated[list[Part], Field(fail_fast=True)] | None = None


class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool = False


def search_values(
    extra: Mapping[str, Any],
    *,
    count: int | None = None,
    most_tokens: int | None = None,
    seed: int | None = None,
    top_p: float | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Options of the search by the names of chat APIs, and captune's own among `extra`; raises `ValidationError`."""
    values = {name: value for name, value in extra.items() if name in GenerationOptions.model_fields}
    chat = {"num_captions": count, "max_new_tokens": most_tokens, "sample_seed": seed, "top_p": top_p}
    # A null is as good as nothing, and a top_p of 0 means nothing.
    values = {n: v for n, v in (*values.items(), *chat.items()) if v is not None and (n, v) != ("top_p", 0)}
    if temperature == 0:
        values = {"sample": False, **{n: value for n, value in values.items() if n not in OF_SAMPLING}}
    elif temperature or values.get("top_p", 1) < 1:
        # These APIs' defaults beside a temperature: everything may be drawn, and nothing is searched for.
        drawn = {"temperature": temperature} if temperature else {}
        values = {"sample": True, "num_beams": 1, "top_k": 0, **values, **drawn}
    elif values.get("top_p") == 1:
        del values["top_p"]  # clients send it where they mean nothing by it
    return GenerationRequest.model_validate(values).generation_options()


class ChatRequest(BaseModel):
    """OpenAI's chat completion about one image, that of the user's last message that has one.

    The text of the user's last message, if any, is the prompt: a question for a model that answers, else the beginning
    of the caption. Options of /v1/caption may stand beside OpenAI's; other fields are ignored.
    """

    model_config = ConfigDict(extra="allow")

    model: Model = None
    messages: list[Message] = Field(min_length=1, max_length=1000)
    n: int | None = Field(None, ge=1, le=64, description="`num_captions`.")
    max_tokens: MaxTokens | None = Field(None, description="`max_new_tokens`.")
    max_completion_tokens: MaxTokens | None = Field(None, description="`max_new_tokens`.")
    temperature: float | None = Field(None, ge=0, le=2, description="Above 0 the caption is sampled; 0: not.")
    top_p: float | None = Field(None, ge=0, le=1, description="Below 1 the caption is sampled with this `top_p`.")
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="`sample_seed`.")
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="The caption ends before the first of these, up to 4."
    )
    logprobs: bool | None = Field(None, description="Add the log-probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="0: the search keeps no others than those chosen.")
    response_format: dict[str, Any] | None = Field(None, description="Text alone.")
    language: str | None = Field(None, description="As in /v1/caption.", max_length=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def generation_options(self) -> dict[str, Any]:
        """The options of this request alone; raises `ValidationError`."""
        return search_values(
            self.model_extra or {},
            count=self.n,
            most_tokens=self.max_completion_tokens or self.max_tokens,
            seed=self.seed,
            top_p=self.top_p,
            temperature=self.temperature,
        )

    def wording(self) -> dict[str, Any]:
        """The options of this request about a caption's text alone."""
        return {name: value for name, value in (self.model_extra or {}).items() if name in WordingOptions.model_fields}

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def turns(self) -> list[ChatTurn]:
        """The messages, with their texts and images."""
        found = []
        for message in self.messages:
            parts = message.content if isinstance(message.content, list) else []
            text = " ".join(part.text.strip() for part in parts if part.type == "text" and part.text)
            images = [part.image_url.url for part in parts if part.type == "image_url" and part.image_url is not None]
            found.append(ChatTurn(message.role, message.content if isinstance(message.content, str) else text, images))
        return found


class ChatMessage(BaseModel):
    """A caption as a message."""

    role: Literal["assistant"] = "assistant"
    content: str


class TokenLogprob(BaseModel):
    """A token, as text and as bytes (UTF-8), and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[dict[str, Any]] = Field(default=[], description="Always empty.")


class Logprobs(BaseModel):
    """The tokens of a caption as the model wrote it, before what is put around it; its end is left out."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """A caption; `finish_reason` is `length` where it had no end within `max_tokens` tokens."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    """Tokens of the prompt and of the captions."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """OpenAI's chat completion. With `stream` its pieces come as server-sent events instead."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
