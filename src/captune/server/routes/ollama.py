"""Ollama's API, so that programs which know a model there caption images here."""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse, StreamingResponse

from captune import __version__
from captune.server.bodies import RequestBody
from captune.server.completions import (
    STREAM_HEADERS,
    Completion,
    Delta,
    Event,
    Events,
    PromptRead,
    conversation_of,
    prepare_completion,
    until_text,
    with_begun,
)
from captune.server.middleware import RequestContext
from captune.server.model_pool import MATCHER, ServedModel
from captune.server.ollama_schemas import (
    GenerateRequest,
    ListedModel,
    ListedModels,
    ModelDetails,
    OllamaAnswer,
    OllamaChatRequest,
    OllamaOptions,
    ShownModel,
    ShowRequest,
    Version,
)
from captune.server.problems import Problem
from captune.server.schemas import EXAMPLE_IMAGE, READ_PROBLEMS, WORK_PROBLEMS
from captune.server.service import Service, TheContext, TheService

router = APIRouter(tags=["ollama"])
LATEST = ":latest"
ONE_IMAGE = 'One is needed, in base64: "images": ["iVBORw0KGgo…"]'
GENERATE = RequestBody(GenerateRequest, {"model": "captioner", "images": [EXAMPLE_IMAGE], "stream": False}, forms=False)
CHAT = RequestBody(
    OllamaChatRequest,
    {"model": "captioner", "messages": [{"role": "user", "content": "", "images": [EXAMPLE_IMAGE]}]},
    forms=False,
)
SHOW = RequestBody(ShowRequest, {"model": "captioner"}, forms=False)
# Of a line: what its text is in.
Shape = Callable[[str], dict[str, Any]]


@router.post(
    "/api/generate",
    summary="Caption an image, as Ollama's clients ask",
    response_model=OllamaAnswer,
    response_model_exclude_none=True,
    responses=WORK_PROBLEMS,
)
async def generate(
    request: Annotated[GenerateRequest, Depends(GENERATE)], service: TheService, context: TheContext
) -> Any:
    """One image in base64; its caption line by line (NDJSON), or whole with `stream` false."""
    return await _answer(request, service, context, lambda text: {"response": text})


@router.post(
    "/api/chat",
    summary="Talk about an image, as Ollama's clients do",
    response_model=OllamaAnswer,
    response_model_exclude_none=True,
    responses=WORK_PROBLEMS,
)
async def chat(request: Annotated[OllamaChatRequest, Depends(CHAT)], service: TheService, context: TheContext) -> Any:
    """Messages of which one has an image in base64; the answer line by line (NDJSON), or whole with `stream` false."""
    return await _answer(request, service, context, lambda text: {"message": {"role": "assistant", "content": text}})


@router.get("/api/tags", summary="Models, as Ollama's clients list them", responses=READ_PROBLEMS)
async def tags(service: TheService) -> ListedModels:
    """The captioners that are served; their names end with `:latest` where they have no tag."""
    return ListedModels(models=[_listed(model) for model in _captioners(service)])


@router.get("/api/ps", summary="Models in memory, as Ollama's clients list them", responses=READ_PROBLEMS)
async def loaded(service: TheService) -> ListedModels:
    """The captioners that are loaded now."""
    return ListedModels(models=[_listed(model) for model in _captioners(service) if model.worker is not None])


@router.post("/api/show", summary="A model, as Ollama's clients look at it", responses=WORK_PROBLEMS)
async def show(request: Annotated[ShowRequest, Depends(SHOW)], service: TheService) -> ShownModel:
    """What kind of model it is, and that it reads images."""
    name = _known(request.model or request.name or "", service)
    model = await service.pool.select(name, "caption")
    info = {"general.architecture": model.family, "general.basename": model.name}
    return ShownModel(details=_details(model), model_info=info, modified_at=_time(model.created))


@router.get("/api/version", summary="captune's version, as Ollama's clients ask", responses=READ_PROBLEMS)
async def version() -> Version:
    """The version of captune."""
    return Version(version=__version__)


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def running() -> PlainTextResponse:
    """That the server is there."""
    return PlainTextResponse("captune is running")


async def _answer(
    request: GenerateRequest | OllamaChatRequest, service: Service, context: RequestContext, shape: Shape
) -> Any:
    if request.format:
        raise Problem(422, "Captions are text: the format of an answer cannot be chosen.", "Leave format out.")
    name, options = _known(request.model, service), request.options or OllamaOptions.model_validate({})
    stream = request.stream is not False
    if request.is_empty:
        await service.acquire_model(name, "caption", context)
        return _line(request.model, shape(""), done=True, done_reason="load")
    completion = await prepare_completion(
        service,
        context,
        conversation_of(request.turns, ONE_IMAGE),
        options.generation_options() | {"num_captions": 1, "variations": 0},
        model=name,
        wording=options.wording(),
        stops=options.stops,
        stream=stream,
    )
    events = await context.stack.enter_async_context(aclosing(completion.events(stream=stream)))
    begun = await until_text(events)  # an error before it has a status of its own
    lines = _lines(request.model, completion, context, begun, events, shape)
    if stream:
        return StreamingResponse(_sent(lines), media_type="application/x-ndjson", headers=STREAM_HEADERS)
    found = [line async for line in lines]
    text = "".join(_text(line) for line in found)
    return found[-1] | shape(text)


async def _lines(
    name: str, completion: Completion, context: RequestContext, begun: Sequence[Event], events: Events, shape: Shape
) -> AsyncIterator[dict[str, Any]]:
    """A line for each text, then the last; raises what the work raises."""
    prompt = 0
    async for event in with_begun(begun, events):
        if isinstance(event, PromptRead):
            prompt = event.tokens
        elif isinstance(event, Delta):
            if event.text:
                yield _line(name, shape(event.text), done=False)
        else:
            yield _line(
                name,
                shape(""),
                done=True,
                done_reason=event.reason,
                total_duration=_nanoseconds(time.monotonic() - context.started),
                load_duration=_nanoseconds(completion.loading),
                prompt_eval_count=prompt,
                prompt_eval_duration=_nanoseconds(completion.reading),
                eval_count=event.tokens,
                eval_duration=_nanoseconds(completion.seconds),
            )


async def _sent(lines: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for line in lines:
            yield f"{json.dumps(line, ensure_ascii=False)}\n"
    except Exception as error:  # noqa: BLE001 - the status has been sent; the client learns it here
        yield f"{json.dumps({'error': Problem.of(error).text}, ensure_ascii=False)}\n"


def _line(name: str, text: dict[str, Any], *, done: bool, **more: Any) -> dict[str, Any]:
    return {"model": name, "created_at": _time(time.time()), **text, "done": done, **more}


def _text(line: dict[str, Any]) -> str:
    return str(line["response"] if "response" in line else line["message"]["content"])


def _known(name: str, service: Service) -> str:
    """The name of a model, where a client put `:latest` behind it."""
    return name if name in service.pool.models else name.removesuffix(LATEST)


def _captioners(service: Service) -> list[ServedModel]:
    return [model for model in service.pool.models.values() if model.family != MATCHER]


def _listed(model: ServedModel) -> ListedModel:
    name = model.name if ":" in model.name else model.name + LATEST
    return ListedModel(
        name=name,
        model=name,
        modified_at=_time(model.created),
        size=model.weights,
        digest=hashlib.sha256(f"{model.name}\n{model.source}".encode()).hexdigest(),
        details=_details(model),
    )


def _details(model: ServedModel) -> ModelDetails:
    return ModelDetails(family=model.family, families=[model.family])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
