"""What requests and responses of the REST API hold."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from captune.captions.quality import RULES
from captune.core.options import MOST_NEW_TOKENS, FilterOptions, GenerationOptions, SearchOptions, WordingOptions
from captune.server.problems import ProblemBody

EXAMPLE_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGM4YaOCFTEMLQkA8p0vAYjJh6kAAAAASUVORK5CYII="
# Characters of a prompt, a question or a text.
MAX_TEXT_LENGTH = 4000
# Characters of words that are looked for, and images of an answer.
MAX_WORDS, MAX_FOUND = 2000, 1000


def _check_image(value: Any) -> str | bytes:
    if not isinstance(value, (str, bytes)) or not value:
        raise ValueError("expected base64, a data URL, or an uploaded file")
    return value


Image = Annotated[
    Any,
    BeforeValidator(_check_image),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "description": "The file as base64 or as a data URL; in multipart/form-data the file itself. An http(s) "
            "address where the server allows it.",
            "examples": [EXAMPLE_IMAGE],
        }
    ),
]
OptionalImage = Annotated[
    Any,
    BeforeValidator(lambda value: None if value is None else _check_image(value)),
    WithJsonSchema({"type": "string", "minLength": 1, "examples": [EXAMPLE_IMAGE]}),
]
# A client's upper bound: more than captune writes is no error, nothing is longer than the bound.
MaxTokens = Annotated[int, Field(ge=1), AfterValidator(lambda tokens: min(tokens, MOST_NEW_TOKENS))]
Model = Annotated[
    str | None, Field(description="A model by its name in /v1/models; default: the first for the task.", max_length=500)
]


class GenerationRequest(GenerationOptions):
    """Options of the search; one that is not set is as saved with the model, else captune's default."""

    max_new_tokens: MaxTokens = Field(
        GenerationOptions.model_fields["max_new_tokens"].default,
        description=f"{GenerationOptions.model_fields['max_new_tokens'].description} Above {MOST_NEW_TOKENS}: "
        f"{MOST_NEW_TOKENS}.",
    )
    model: Model = None
    language: Annotated[
        str | None, Field(description="Language of the captions, one of those that the server offers.", max_length=20)
    ] = None

    def generation_options(self) -> dict[str, Any]:
        """The options of this request alone."""
        return {name: getattr(self, name) for name in GenerationOptions.model_fields if name in self.model_fields_set}


class _WordedRequest(GenerationRequest, WordingOptions):
    """Options of the search and of what is made of its captions; one that is not set is as the server was started."""

    def wording(self) -> dict[str, Any]:
        """The options of this request about a caption's text alone."""
        return {name: getattr(self, name) for name in WordingOptions.model_fields if name in self.model_fields_set}


class CaptionRequest(_WordedRequest):
    """An image to caption, with options of the search."""

    image: Image
    explain: bool = Field(False, description="Add an attention map and likely alternatives for each word.")


class BatchRequest(_WordedRequest):
    """Images to caption, with the same options for all."""

    images: Annotated[list[Image], Field(min_length=1)]


class AskRequest(GenerationRequest):
    """A question about an image."""

    image: Image
    question: str = Field(
        description="The question.", min_length=1, max_length=MAX_TEXT_LENGTH, examples=["What colour is it?"]
    )


class MatchRequest(BaseModel):
    """Texts that may fit an image."""

    model_config = ConfigDict(extra="forbid")

    image: Image
    texts: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]], Field(min_length=1, max_length=64)
    ]
    model: Model = None


class Alternative(BaseModel):
    """A piece of text that could stand where a word begins, and its probability."""

    text: str
    probability: float


class WordAttention(BaseModel):
    """A word and its attention map: `map` (rows, columns) sums to 1.

    `on_picture` is the share of its attention that fell on the image.
    """

    word: str
    confidence: float
    on_picture: float
    alternatives: list[Alternative]
    map: list[list[float]]


class Explanation(BaseModel):
    """Heat maps of a caption's words: rows and columns divide `box` (left, top, right, bottom) of the upright image.

    `size` (width, height) is that of the image, in pixels; `grid` are rows and columns.
    """

    about: str
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    grid: tuple[int, int]
    words: list[WordAttention]


class CaptionItem(BaseModel):
    """A caption and how sure the model is of it: the geometric mean of its tokens' probabilities, 0-1."""

    text: str = Field(examples=["a red circle left of a blue square"])
    confidence: float | None = Field(
        None, examples=[0.83], description="Left out where a model behind another server tells no probabilities."
    )
    original: str | None = Field(None, description="The model's own caption, where it was translated.")
    cut: bool | None = Field(None, description="True where the caption had no end within its most tokens.")
    flags: dict[str, str] | None = Field(
        None,
        description=f"What is odd about it, by name ({', '.join(RULES)}), with a few words on each.",
        examples=[{"repeats": "a red circle"}],
    )
    explained: Explanation | None = None


class CaptionAnswer(BaseModel):
    """Captions of an image, the best first."""

    model: str
    captions: list[CaptionItem]


class BatchItem(BaseModel):
    """Captions of an image, or why there are none."""

    captions: list[CaptionItem] | None = None
    error: ProblemBody | None = None


class BatchAnswer(BaseModel):
    """A result for each image, in their order."""

    model: str
    results: list[BatchItem]


class AskAnswer(BaseModel):
    """Answers to a question, the best first."""

    model: str
    answers: list[CaptionItem]


class TextMatch(BaseModel):
    """How likely a text is true of the image, and the cosine of their vectors."""

    text: str
    probability: float | None = Field(description="Of this text by itself, 0–1; none of a CLIP.")
    similarity: float
    share: float | None = Field(None, description="Of a CLIP: this text's part of the 1 that all texts share.")
    cut: bool = Field(False, description="The model read only the beginning of the text.")


class MatchAnswer(BaseModel):
    """A match for each text, in their order."""

    model: str
    matches: list[TextMatch]


class SearchRequest(SearchOptions, FilterOptions):
    """Words, or an image, and conditions; without any of them it is all images by their paths."""

    words: str = Field(
        "",
        description='Words of captions, or with `mode` what images show. "two dogs": together; dog*: a beginning.',
        max_length=MAX_WORDS,
        examples=["two dogs"],
    )
    like: OptionalImage = Field(
        None,
        description="An image that those which are looked for resemble: the file as base64 or as a data URL; in "
        "multipart/form-data the file itself. An http(s) address where the server allows it.",
    )
    limit: int = Field(SearchOptions.model_fields["limit"].default, description="Most images.", ge=1, le=MAX_FOUND)


class FoundItem(BaseModel):
    """An image of the library, with the caption that it was found by, or its first one."""

    path: str = Field(description="Within the library's folder.", examples=["2024/beach/photo.jpg"])
    caption: str = Field(description="Empty where it has none.")
    score: float = Field(description="Compares images of one answer alone.")
    similarity: float | None = Field(description="Cosine of its vector and that of the query; null: found by words.")
    status: str = Field(description="draft, approved, rejected; empty without a caption.")
    written_by: str = Field(description="person or model.")
    model: str
    confidence: float | None
    language: str | None = Field(description="As it was noted when the caption was written; null: it was not.")
    flags: list[str]


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


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its documentation."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    values = {
        400: "The body is cut off or no JSON.",
        401: "The key is missing or not known.",
        404: "There is no such model, none for this, or no library.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is of a type that is not known.",
        422: "A field, an image or the size of the job is not allowed.",
        429: "Too busy, or too many requests; try again after `Retry-After` seconds.",
        503: "The server is stopping, or the model cannot be loaded.",
        504: "There was no answer in time.",
    }
    return {status: {"description": values[status], "content": content} for status in statuses}


WORK_PROBLEMS = problems(400, 401, 404, 408, 413, 415, 422, 429, 503, 504)
READ_PROBLEMS = problems(401, 429)
