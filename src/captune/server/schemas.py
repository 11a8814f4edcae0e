"""What requests and responses hold, and how the schema of `/openapi.json` is made of them."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from captune.core.config import OF_SAMPLING
from captune.core.options import MOST_NEW_TOKENS, GenerationOptions
from captune.server.bodies import MULTIPART, RequestBody
from captune.server.middleware import PUBLIC_PATHS
from captune.server.problems import Problem, ProblemBody

SCHEMA_PATH = "/openapi.json"
_IMAGE_FIELDS = ("image", "images")
_REFERENCE = "#/components/schemas/{model}"


def add_schema(app: FastAPI) -> None:
    """Add the bodies that routes read (`RequestBody`) and the key to the application's schema, and serve it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            bodies = _bodies(app)
            known = schema.setdefault("components", {})
            known["schemas"] = dict(sorted({**known.get("schemas", {}), **_components(bodies.values())}.items()))
            known["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, methods in schema["paths"].items():
                for method, operation in methods.items():
                    if (path, method) in bodies:
                        operation["requestBody"] = _described(bodies[path, method])
                        operation["responses"] = operation.pop("responses")  # behind the body
                    operation["security"] = [] if path in PUBLIC_PATHS else [{"key": []}, {}]
            app.openapi_schema = schema
        return app.openapi_schema

    @cache
    def rendered(root: str) -> bytes:
        servers = {"servers": [{"url": root}]} if root else {}
        return bytes(JSONResponse({**app.openapi(), **servers}).body)

    @app.get(SCHEMA_PATH, include_in_schema=False)
    async def schema(request: Request) -> Response:
        return Response(rendered(_root(request)), media_type="application/json")

    app.openapi = openapi  # type: ignore[method-assign]


def _bodies(app: FastAPI) -> dict[tuple[str, str], RequestBody[Any]]:
    """The bodies of routes by path and method."""
    return {
        (route.path, method.lower()): dependency.call
        for route in _api_routes(app.routes)
        for dependency in route.dependant.dependencies
        if isinstance(dependency.call, RequestBody)
        for method in route.methods or ()
    }


def _api_routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif isinstance(router := getattr(route, "original_router", None), APIRouter):  # how newer FastAPI includes one
            yield from _api_routes(router.routes)


def _described(body: RequestBody[Any]) -> dict[str, Any]:
    name = body.schema.__name__
    reference = {"schema": {"$ref": _REFERENCE.format(model=name)}}
    content: dict[str, Any] = {"application/json": {**reference, "example": body.example}}
    if body.forms:
        content[MULTIPART] = {"schema": {"$ref": _REFERENCE.format(model=f"{name}Form")}}
    return {"content": content, "required": True}


def _components(bodies: Iterable[RequestBody[Any]]) -> dict[str, Any]:
    """The schemas of all bodies and errors; of bodies that may be forms a second one, whose images are files."""
    bodies = list(bodies)
    kinds: dict[type[BaseModel], None] = dict.fromkeys([*(body.schema for body in bodies), ProblemBody])
    _, definitions = models_json_schema([(kind, "validation") for kind in kinds], ref_template=_REFERENCE)
    schemas: dict[str, Any] = with_field_names(definitions["$defs"])
    for body in bodies:
        if not body.forms:
            continue
        name = f"{body.schema.__name__}Form"
        form = {**schemas[body.schema.__name__], "title": name}
        form["properties"] = {field: dict(value) for field, value in form["properties"].items()}
        for field in _IMAGE_FIELDS:
            if field in form["properties"]:
                file = {"type": "string", "format": "binary"}
                several = get_origin(body.schema.model_fields[field].annotation) is list
                form["properties"][field] = {"type": "array", "items": file, "minItems": 1} if several else file
        schemas[name] = form
    return schemas


PAGE, FILES = "/docs", "/docs/files"
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"
_PIECE = 1 << 16


def add_docs_page(app: FastAPI) -> None:
    """Serve the page and its files."""

    @app.get(FILES + "/{name}", include_in_schema=False)
    async def file(name: str) -> StreamingResponse:
        if name not in (_SCRIPT, _STYLE, _ICON):
            raise Problem(404, "Not Found")
        content = _content(name)
        headers = {"Content-Length": str(len(content)), "Cache-Control": "max-age=3600"}
        return StreamingResponse(_pieces(content), headers=headers, media_type=guess_type(name)[0])

    @app.get(PAGE, include_in_schema=False)
    async def explore(request: Request) -> HTMLResponse:
        root = _root(request)
        files = root + FILES
        return get_swagger_ui_html(
            openapi_url=root + SCHEMA_PATH,
            title=app.title,
            swagger_ui_parameters={"validatorUrl": None},  # it would ask another server
            swagger_js_url=f"{files}/{_SCRIPT}",
            swagger_css_url=f"{files}/{_STYLE}",
            swagger_favicon_url=f"{files}/{_ICON}",
        )


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


@cache
def _content(name: str) -> bytes:
    """A file in memory: opened for each client, slow clients would use up all file descriptors."""
    return (Path(fastapi_offline.__file__).parent / "static" / name).read_bytes()


async def _pieces(content: bytes) -> AsyncIterator[memoryview]:
    """Parts as large as a slow client may keep in memory."""
    whole = memoryview(content)
    for at in range(0, len(content), _PIECE):
        yield whole[at : at + _PIECE]


EXAMPLE_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGM4YaOCFTEMLQkA8p0vAYjJh6kAAAAASUVORK5CYII="
# Characters of a prompt, a question or a text.
MAX_TEXT_LENGTH = 4000
_FLAG = re.compile(r"--([a-z][a-z-]+)")


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
# A client's upper bound: more than captune writes is no error, nothing is longer than the bound.
MaxTokens = Annotated[int, Field(ge=1), AfterValidator(lambda tokens: min(tokens, MOST_NEW_TOKENS))]
Model = Annotated[
    str | None, Field(description="A model by its name in /v1/models; default: the first for the task.", max_length=500)
]


def with_field_names(schema: Any) -> Any:
    """A JSON schema whose descriptions name `sample`, not `--sample`."""
    if isinstance(schema, dict):
        return {
            name: _FLAG.sub(lambda flag: f"`{flag[1].replace('-', '_')}`", value)
            if name == "description" and isinstance(value, str)
            else with_field_names(value)
            for name, value in schema.items()
        }
    return [with_field_names(one) for one in schema] if isinstance(schema, list) else schema


class _GenerationRequest(GenerationOptions):
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


class CaptionRequest(_GenerationRequest):
    """An image to caption, with options of the search."""

    image: Image
    explain: bool = Field(False, description="Add an attention map and likely alternatives for each word.")


class BatchRequest(_GenerationRequest):
    """Images to caption, with the same options for all."""

    images: Annotated[list[Image], Field(min_length=1)]


class AskRequest(_GenerationRequest):
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
        return _GenerationRequest.model_validate(values).generation_options()


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
    """The probability that a text is true of the image, and the cosine of their vectors."""

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
    values = {
        400: "The body is cut off or no JSON.",
        401: "The key is missing or not known.",
        404: "There is no such model, or none for this.",
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
