"""What the routes answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from captune.web.problems import ProblemBody


class Alternative(BaseModel):
    """A piece of text that could stand where a word begins, and its probability."""

    text: str
    probability: float


class WordLooked(BaseModel):
    """A word, and where the model looked for it: `map` (rows, columns) sums to 1.

    `on_picture` is the share of its attention that fell on the picture.
    """

    word: str
    confidence: float
    on_picture: float
    alternatives: list[Alternative]
    map: list[list[float]]


class Explanation(BaseModel):
    """Heat maps of a caption's words: rows and columns divide `box` (left, top, right, bottom) of the upright picture.

    `size` (width, height) is that of the picture, in pixels; `grid` are rows and columns.
    """

    about: str
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    grid: tuple[int, int]
    words: list[WordLooked]


class CaptionSaid(BaseModel):
    """A caption and how sure the model is of it: the geometric mean of its tokens' probabilities, 0-1."""

    text: str = Field(examples=["a red circle left of a blue square"])
    confidence: float = Field(examples=[0.83])
    original: str | None = Field(None, description="What the model said, where that was translated.")
    explained: Explanation | None = None


class CaptionAnswer(BaseModel):
    """Captions of a picture, the best first."""

    model: str
    captions: list[CaptionSaid]


class BatchItem(BaseModel):
    """Captions of a picture, or why there are none."""

    captions: list[CaptionSaid] | None = None
    error: ProblemBody | None = None


class BatchAnswer(BaseModel):
    """A result for each picture, in their order."""

    model: str
    results: list[BatchItem]


class AskAnswer(BaseModel):
    """Answers to a question, the best first."""

    model: str
    answers: list[CaptionSaid]


class TextMatch(BaseModel):
    """The probability that a text is true of the picture, and the cosine of their vectors."""

    text: str
    probability: float
    similarity: float


class MatchAnswer(BaseModel):
    """A match for each text, in their order."""

    model: str
    matches: list[TextMatch]


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "captune"
    family: str = Field(description="Its family; `matcher` for those of /v1/match.")
    loaded: bool = Field(description="Whether it is in memory now.")


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Health(BaseModel):
    """Whether the server is there."""

    status: str


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


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its documentation."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    said = {
        400: "The body is cut off or no JSON.",
        401: "The key is missing or not known.",
        404: "There is no such model, or none for this.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is of a type that is not known.",
        422: "A field, a picture or the size of the job is not allowed.",
        429: "Too busy, or too many requests; `Retry-After` says when to come again.",
        503: "The server is stopping, or the model cannot be loaded.",
        504: "There was no answer in time.",
    }
    return {status: {"description": said[status], "content": content} for status in statuses}


WORK_PROBLEMS = problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504)
LOOK_PROBLEMS = problems(401, 429)
