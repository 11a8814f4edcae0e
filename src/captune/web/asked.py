"""What requests may say: the options of `captune caption`, and what stands beside them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from captune.core.options import MOST_NEW_TOKENS, GenerationOptions
from captune.core.sampling import OF_SAMPLING

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGM4YaOCFTEMLQkA8p0vAYjJh6kAAAAASUVORK5CYII="
# Characters of a prompt, a question or a text.
MOST_WORDS = 4000
_FLAG = re.compile(r"--([a-z][a-z-]+)")


def _picture(given: Any) -> str | bytes:
    if not isinstance(given, (str, bytes)) or not given:
        raise ValueError("expected base64, a data URL, or an uploaded file")
    return given


Picture = Annotated[
    Any,
    BeforeValidator(_picture),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "description": "The file as base64 or as a data URL; in multipart/form-data the file itself. An http(s) "
            "address where the server allows it.",
            "examples": [PIXEL],
        }
    ),
]
# A client's upper bound: more than captune writes is no error, nothing is longer than the bound.
MostTokens = Annotated[int, Field(ge=1), AfterValidator(lambda tokens: min(tokens, MOST_NEW_TOKENS))]
Model = Annotated[
    str | None, Field(description="A model by its name in /v1/models; default: the first for the task.", max_length=500)
]


def in_words_of_requests(schema: Any) -> Any:
    """A JSON schema whose descriptions name `sample`, not `--sample`."""
    if isinstance(schema, dict):
        return {
            name: _FLAG.sub(lambda flag: f"`{flag[1].replace('-', '_')}`", value)
            if name == "description" and isinstance(value, str)
            else in_words_of_requests(value)
            for name, value in schema.items()
        }
    return [in_words_of_requests(one) for one in schema] if isinstance(schema, list) else schema


class _Searched(GenerationOptions):
    """Options of the search; what is not given is as the model was saved, else captune's default."""

    max_new_tokens: MostTokens = Field(
        GenerationOptions.model_fields["max_new_tokens"].default,
        description=f"{GenerationOptions.model_fields['max_new_tokens'].description} Above {MOST_NEW_TOKENS}: "
        f"{MOST_NEW_TOKENS}.",
    )
    model: Model = None
    language: Annotated[
        str | None, Field(description="Language of the captions, one of those that the server offers.", max_length=20)
    ] = None

    def given(self) -> dict[str, Any]:
        """The options that were given."""
        return {name: getattr(self, name) for name in GenerationOptions.model_fields if name in self.model_fields_set}


class CaptionRequest(_Searched):
    """A picture to caption, with options of the search."""

    image: Picture
    explain: bool = Field(False, description="Say where the model looked for each word, and what else was likely.")


class BatchRequest(_Searched):
    """Pictures to caption, with the same options for all."""

    images: Annotated[list[Picture], Field(min_length=1)]


class AskRequest(_Searched):
    """A question about a picture."""

    image: Picture
    question: str = Field(
        description="The question.", min_length=1, max_length=MOST_WORDS, examples=["What colour is it?"]
    )


class MatchRequest(BaseModel):
    """Texts that may fit a picture."""

    model_config = ConfigDict(extra="forbid")

    image: Picture
    texts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MOST_WORDS)]], Field(min_length=1, max_length=64)
    ]
    model: Model = None


class ImageUrl(BaseModel):
    """A picture as a data URL."""

    url: Picture


class Part(BaseModel):
    """A part of a message: words or a picture."""

    type: Literal["text", "image_url"]
    text: str | None = Field(None, max_length=MOST_WORDS)
    image_url: ImageUrl | None = None


class Message(BaseModel):
    """A message of a chat."""

    role: str = Field(max_length=50)
    content: str | Annotated[list[Part], Field(fail_fast=True)] | None = None


class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """OpenAI's chat completion with one picture, in the last message of the user.

    Its text, if any, is the prompt: a question where the model answers, else words that the caption continues.
    Options of /v1/caption may stand beside OpenAI's; other fields are ignored.
    """

    model_config = ConfigDict(extra="allow")

    model: Model = None
    messages: list[Message] = Field(min_length=1, max_length=1000)
    n: int | None = Field(None, ge=1, le=64, description="`num_captions`.")
    max_tokens: MostTokens | None = Field(None, description="`max_new_tokens`.")
    max_completion_tokens: MostTokens | None = Field(None, description="`max_new_tokens`.")
    temperature: float | None = Field(None, ge=0, le=2, description="Above 0 the caption is drawn by chance; 0: not.")
    top_p: float | None = Field(
        None, ge=0, le=1, description="Below 1 the caption is drawn by chance, as `top_p` says."
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="`sample_seed`.")
    language: str | None = Field(None, description="As in /v1/caption.", max_length=20)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def given(self) -> dict[str, Any]:
        """The options of the search that were given; raises `ValidationError`."""
        said = {n: value for n, value in (self.model_extra or {}).items() if n in GenerationOptions.model_fields}
        named = {
            "num_captions": self.n,
            "max_new_tokens": self.max_completion_tokens or self.max_tokens,
            "sample_seed": self.seed,
            "top_p": self.top_p,
        }
        # A null is as good as nothing, and a top_p of 0 means nothing.
        said = {n: v for n, v in (*said.items(), *named.items()) if v is not None and (n, v) != ("top_p", 0)}
        if self.temperature == 0:
            said = {"sample": False, **{n: value for n, value in said.items() if n not in OF_SAMPLING}}
        elif self.temperature or said.get("top_p", 1) < 1:
            # OpenAI's defaults beside a temperature: everything may be drawn, and nothing is searched for.
            drawn = {"temperature": self.temperature} if self.temperature else {}
            said = {"sample": True, "num_beams": 1, "top_k": 0, **said, **drawn}
        elif said.get("top_p") == 1:
            del said["top_p"]  # clients send it where they mean nothing by it
        return _Searched.model_validate(said).given()
