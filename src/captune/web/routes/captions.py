"""Pictures in, captions out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from captune.core.records import Caption
from captune.web.answers import (
    WORK_PROBLEMS,
    AskAnswer,
    BatchAnswer,
    BatchItem,
    CaptionAnswer,
    CaptionSaid,
    Explanation,
    MatchAnswer,
    TextMatch,
)
from captune.web.asked import PIXEL, AskRequest, BatchRequest, CaptionRequest, MatchRequest
from captune.web.bodies import read_body
from captune.web.gate import Visit
from captune.web.hosted import Said
from captune.web.problems import Problem
from captune.web.routes.documented import body
from captune.web.service import Service, one_problem

router = APIRouter(tags=["captions"])


def said(captions: list[Caption]) -> list[CaptionSaid]:
    return [CaptionSaid(text=one.text, confidence=one.confidence, original=one.original) for one in captions]


@router.post(
    "/v1/caption",
    summary="Caption a picture",
    responses=WORK_PROBLEMS,
    response_model_exclude_none=True,
    openapi_extra=body(CaptionRequest, {"image": PIXEL, "num_beams": 5}),
)
async def caption(request: Request) -> CaptionAnswer:
    """One picture, as a file of a form or as base64 in JSON, with any options of the search."""
    service, visit = state(request)
    asked = await read_body(request, CaptionRequest)
    served, hosted = await service.model(asked.model, "caption", visit)
    options = service.search(hosted, asked.given())
    language = service.language(asked.language)
    pixels, size = await service.pixels_and_size(asked.image, hosted, size=asked.explain)
    found = await hosted.caption(pixels, options, language)
    captions = said(found.captions)
    if size is not None:
        told = await hosted.explain(pixels, size, found.captions, options)
        captions = [
            one.model_copy(update={"explained": Explanation.model_validate(maps)})
            for one, maps in zip(captions, told, strict=True)
        ]
    return CaptionAnswer(model=served.name, captions=captions)


@router.post(
    "/v1/captions:batch",
    summary="Caption several pictures",
    responses=WORK_PROBLEMS,
    response_model_exclude_none=True,
    openapi_extra=body(BatchRequest, {"images": [PIXEL, PIXEL], "max_new_tokens": 20}),
)
async def captions(request: Request) -> BatchAnswer:
    """Several pictures with the same options. One that cannot be read has its error; the others their captions."""
    service, visit = state(request)
    asked = await read_body(request, BatchRequest)
    count = len(asked.images)
    if count > service.options.max_pictures:
        raise Problem(422, f"{count} pictures; {service.options.max_pictures} are allowed.", "Send fewer at once.")
    if count > service.admission.places:
        raise Problem(422, f"{count} pictures; there are {service.admission.places} places.", "Send fewer at once.")
    service.admission.take(count - 1)
    visit.pictures = count
    served, hosted = await service.model(asked.model, "caption", visit)
    options, language = service.search(hosted, asked.given()), service.language(asked.language)

    async def one(picture: Any) -> Said:
        return await hosted.caption(await service.pixels(picture, hosted), options, language)

    found = await asyncio.gather(*map(one, asked.images), return_exceptions=True)
    results = []
    for each in found:
        if isinstance(each, Said):
            results.append(BatchItem(captions=said(each.captions)))
        elif isinstance(each, Exception):
            results.append(BatchItem.model_validate({"error": one_problem(each, visit.id)}))
        else:
            raise each
    return BatchAnswer(model=served.name, results=results)


@router.post(
    "/v1/ask",
    summary="Ask about a picture",
    responses=WORK_PROBLEMS,
    response_model_exclude_none=True,
    openapi_extra=body(AskRequest, {"image": PIXEL, "question": "What colour is it?"}),
)
async def ask(request: Request) -> AskAnswer:
    """A question about a picture, for any captioner: it reads the question as its prompt."""
    service, visit = state(request)
    asked = await read_body(request, AskRequest)
    if not asked.question.strip():
        raise Problem(422, "There is no question.", "For example: What colour is it?")
    served, hosted = await service.model(asked.model, "ask", visit)
    options = service.search(hosted, asked.given(), asked.question)
    language = service.language(asked.language)
    found = await hosted.caption(await service.pixels(asked.image, hosted), options, language)
    return AskAnswer(model=served.name, answers=said(found.captions))


@router.post(
    "/v1/match",
    summary="How well texts fit a picture",
    responses=WORK_PROBLEMS,
    openapi_extra=body(MatchRequest, {"image": PIXEL, "texts": ["a red circle", "two dogs"]}),
)
async def match(request: Request) -> MatchAnswer:
    """The probability that each text is true of a picture, by a matcher such as Salesforce/blip-itm-base-coco."""
    service, visit = state(request)
    asked = await read_body(request, MatchRequest)
    if not all(text.strip() for text in asked.texts):
        raise Problem(422, "One of the texts is empty.", "Give texts that say something.")
    served, hosted = await service.model(asked.model, "match", visit)
    found = await hosted.match(await service.pixels(asked.image, hosted), asked.texts)
    matches = [TextMatch(text=m.text, probability=m.probability, similarity=m.similarity) for m in found]
    return MatchAnswer(model=served.name, matches=matches)


def state(request: Request) -> tuple[Service, Visit]:
    """The server, and this visit to it."""
    return request.app.state.service, request.scope["captune.visit"]
