"""What requests and responses of OpenAI's chat completions hold."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from captune.core.config import OF_SAMPLING
from captune.core.options import GenerationOptions
from captune.server.schemas import MAX_TEXT_LENGTH, GenerationRequest, Image, MaxTokens, Model


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


class ChatRequest(BaseModel):
    """OpenAI's chat completion with one image, in the last message of the user.

    Its text, if any, is the prompt: a question for a model that answers, else the beginning of the caption.
    Options of /v1/caption may stand beside OpenAI's; other fields are ignored.
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
    language: str | None = Field(None, description="As in /v1/caption.", max_length=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def generation_options(self) -> dict[str, Any]:
        """The options of this request alone; raises `ValidationError`."""
        values = {n: value for n, value in (self.model_extra or {}).items() if n in GenerationOptions.model_fields}
        openai = {
            "num_captions": self.n,
            "max_new_tokens": self.max_completion_tokens or self.max_tokens,
            "sample_seed": self.seed,
            "top_p": self.top_p,
        }
        # A null is as good as nothing, and a top_p of 0 means nothing.
        values = {n: v for n, v in (*values.items(), *openai.items()) if v is not None and (n, v) != ("top_p", 0)}
        if self.temperature == 0:
            values = {"sample": False, **{n: value for n, value in values.items() if n not in OF_SAMPLING}}
        elif self.temperature or values.get("top_p", 1) < 1:
            # OpenAI's defaults beside a temperature: everything may be drawn, and nothing is searched for.
            drawn = {"temperature": self.temperature} if self.temperature else {}
            values = {"sample": True, "num_beams": 1, "top_k": 0, **values, **drawn}
        elif values.get("top_p") == 1:
            del values["top_p"]  # clients send it where they mean nothing by it
        return GenerationRequest.model_validate(values).generation_options()


class ChatMessage(BaseModel):
    """A caption as a message."""

    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    """A caption; `finish_reason` is `length` where it has `max_tokens` tokens."""

    index: int
    message: ChatMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


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
