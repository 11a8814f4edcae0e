"""Pictures in, captions out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from captune.core.records import Caption
from captune.server.bodies import read_body
from captune.server.middleware import RequestContext
from captune.server.model_worker import CaptionResult
from captune.server.openapi import body
from captune.server.problems import Problem
from captune.server.schemas import (
    EXAMPLE_IMAGE,
    WORK_PROBLEMS,
    AskAnswer,
    AskRequest,
    BatchAnswer,
    BatchItem,
    BatchRequest,
    CaptionAnswer,
    CaptionItem,
    CaptionRequest,
    Explanation,
    MatchAnswer,
    MatchRequest,
    TextMatch,
)
from captune.server.service import Service, image_problem

router = APIRouter(tags=["captions"])


def said(captions: list[Caption]) -> list[CaptionItem]:
    return [CaptionItem(text=one.text, confidence=one.confidence, original=one.original) for one in captions]


@router.post(
    "/v1/caption",
    summary="Caption a picture",
    responses=WORK_PROBLEMS,
    response_model_exclude_none=True,
    openapi_extra=body(CaptionRequest, {"image": EXAMPLE_IMAGE, "num_beams": 5}),
)
async def caption(request: Request) -> CaptionAnswer:
    """One picture, as a file of a form or as base64 in JSON, with any options of the search."""
    service, context = state(request)
    asked = await read_body(request, CaptionRequest)
    model, worker = await service.model(asked.model, "caption", context)
    options = service.search(worker, asked.given())
    language = service.language(asked.language)
    pixels, size = await service.pixels_and_size(asked.image, worker, size=asked.explain)
    found = await worker.caption(pixels, options, language)
    captions = said(found.captions)
    if size is not None:
        told = await worker.explain(pixels, size, found.captions, options)
        captions = [
            one.model_copy(update={"explained": Explanation.model_validate(maps)})
            for one, maps in zip(captions, told, strict=True)
        ]
    return CaptionAnswer(model=model.name, captions=captions)


@router.post(
    "/v1/captions:batch",
    summary="Caption several pictures",
    responses=WORK_PROBLEMS,
    response_model_exclude_none=True,
    openapi_extra=body(BatchRequest, {"images": [EXAMPLE_IMAGE, EXAMPLE_IMAGE], "max_new_tokens": 20}),
)
async def captions(request: Request) -> BatchAnswer:
    """Several pictures with the same options. One that cannot be read has its error; the others their captions."""
    service, context = state(request)
    asked = await read_body(request, BatchRequest)
    count = len(asked.images)
    if count > service.options.max_pictures:
        raise Problem(422, f"{count} pictures; {service.options.max_pictures} are allowed.", "Send fewer at once.")
    if count > service.admission.places:
        raise Problem(422, f"{count} pictures; there are {service.admission.places} places.", "Send fewer at once.")
    service.admission.take(count - 1)
    context.pictures = count
    model, worker = await service.model(asked.model, "caption", context)
    options, language = service.search(worker, asked.given()), service.language(asked.language)

    async def one(picture: Any) -> CaptionResult:
        return await worker.caption(await service.pixels(picture, worker), options, language)

    found = await asyncio.gather(*map(one, asked.images), return_exceptions=True)
    results = []
    for each in found:
        if isinstance(each, CaptionResult):
            results.append(BatchItem(captions=said(each.captions)))
        elif isinstance(each, Exception):
            results.append(BatchItem.model_validate({"error": image_problem(each, context.id)}))
        else:
            raise each
    return BatchAnswer(model=model.name, results=results)


@router.post(
    "/v1/ask",
    summary="Ask about a picture",
    responses=WORK_PROBLEMS,
    response_model_exclude_none=True,
    openapi_extra=body(AskRequest, {"image": EXAMPLE_IMAGE, "question": "What colour is it?"}),
)
async def ask(request: Request) -> AskAnswer:
    """A question about a picture, for any captioner: it reads the question as its prompt."""
    service, context = state(request)
    asked = await read_body(request, AskRequest)
    if not asked.question.strip():
        raise Problem(422, "There is no question.", "For example: What colour is it?")
    model, worker = await service.model(asked.model, "ask", context)
    options = service.search(worker, asked.given(), asked.question)
    language = service.language(asked.language)
    found = await worker.caption(await service.pixels(asked.image, worker), options, language)
    return AskAnswer(model=model.name, answers=said(found.captions))


@router.post(
    "/v1/match",
    summary="How well texts fit a picture",
    responses=WORK_PROBLEMS,
    openapi_extra=body(MatchRequest, {"image": EXAMPLE_IMAGE, "texts": ["a red circle", "two dogs"]}),
)
async def match(request: Request) -> MatchAnswer:
    """The probability that each text is true of a picture, by a matcher such as Salesforce/blip-itm-base-coco."""
    service, context = state(request)
    asked = await read_body(request, MatchRequest)
    if not all(text.strip() for text in asked.texts):
        raise Problem(422, "One of the texts is empty.", "Give texts that say something.")
    model, worker = await service.model(asked.model, "match", context)
    found = await worker.match(await service.pixels(asked.image, worker), asked.texts)
    matches = [TextMatch(text=m.text, probability=m.probability, similarity=m.similarity) for m in found]
    return MatchAnswer(model=model.name, matches=matches)


def state(request: Request) -> tuple[Service, RequestContext]:
    """The server, and this context to it."""
    return request.app.state.service, request.scope["captune.request"]
