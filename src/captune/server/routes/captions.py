"""Captions, answers and matches for images."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends

from captune.captions.quality import flags_of
from captune.captions.row import known
from captune.captions.wording import worded
from captune.core.options import WordingOptions
from captune.core.records import Caption
from captune.server.bodies import RequestBody
from captune.server.model_worker import CaptionResult, CaptionWork, ExplainWork, MatchWork
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
from captune.server.service import TheContext, TheService, image_problem

router = APIRouter(tags=["captions"])
CAPTION = RequestBody(CaptionRequest, {"image": EXAMPLE_IMAGE, "num_beams": 5})
BATCH = RequestBody(BatchRequest, {"images": [EXAMPLE_IMAGE, EXAMPLE_IMAGE], "max_new_tokens": 20})
ASK = RequestBody(AskRequest, {"image": EXAMPLE_IMAGE, "question": "What colour is it?"})
MATCH = RequestBody(MatchRequest, {"image": EXAMPLE_IMAGE, "texts": ["a red circle", "two dogs"]})


def caption_items(
    captions: list[Caption], wording: WordingOptions, language: str | None, prompt: str | None
) -> list[CaptionItem]:
    """Captions as the answer has them; flags are about them as the model wrote them, in answer to `prompt` if any."""
    return [
        CaptionItem(
            text=worded(one, wording).text,
            confidence=known(one.confidence),
            original=one.original,
            cut=one.cut or None,
            flags=flags_of(one, language, prompt) or None,
        )
        for one in captions
    ]


@router.post("/v1/caption", summary="Caption an image", responses=WORK_PROBLEMS, response_model_exclude_none=True)
async def caption(
    request: Annotated[CaptionRequest, Depends(CAPTION)], service: TheService, context: TheContext
) -> CaptionAnswer:
    """One image, as a file of a form or as base64 in JSON, with any options of the search."""
    model, worker = await service.acquire_model(request.model, "caption", context)
    options = service.generation_options(worker, request.generation_options())
    language, wording = service.language(request.language), service.wording(request.wording())
    prompts = service.prompts(worker, request.generation_options(), options)
    decoded = await service.image(request.image, worker, context, size=request.explain, fields=prompts.fields)
    pixels, size, options = decoded.pixels, decoded.size, prompts.options_for(decoded.known)
    result = await worker.submit(CaptionWork(pixels, options, language))
    items = caption_items(result.captions, wording, language, worker.answered(options))
    if size is not None:
        explained = await worker.submit(ExplainWork(pixels, size, result.captions, options))
        for item, attention in zip(items, explained, strict=True):
            item.explained = Explanation.model_validate(attention)
    return CaptionAnswer(model=model.name, captions=items)


@router.post(
    "/v1/captions:batch", summary="Caption several images", responses=WORK_PROBLEMS, response_model_exclude_none=True
)
async def captions(
    request: Annotated[BatchRequest, Depends(BATCH)], service: TheService, context: TheContext
) -> BatchAnswer:
    """Several images with the same options. One that cannot be read has its error; the others their captions."""
    count, limits, queue = len(request.images), service.options, service.admission.max_images
    if count > limits.max_images:
        raise Problem(422, f"{count} images; {limits.max_images} are allowed.", "Send fewer at once.")
    if count > queue:
        raise Problem(422, f"{count} images; the queue holds {queue}.", "Send fewer at once.")
    service.admission.acquire(count - 1)
    context.images = count
    model, worker = await service.acquire_model(request.model, "caption", context)
    options = service.generation_options(worker, request.generation_options())
    language, wording = service.language(request.language), service.wording(request.wording())

    prompts = service.prompts(worker, request.generation_options(), options)

    async def one(image: str | bytes) -> CaptionResult:
        decoded = await service.image(image, worker, context, fields=prompts.fields)
        return await worker.submit(CaptionWork(decoded.pixels, prompts.options_for(decoded.known), language))

    results = await asyncio.gather(*map(one, request.images), return_exceptions=True)
    items = []
    for result in results:
        if isinstance(result, CaptionResult):
            found = caption_items(result.captions, wording, language, worker.answered(options))
            items.append(BatchItem(captions=found))
        elif isinstance(result, Exception):
            items.append(BatchItem.model_validate({"error": image_problem(result, context.id)}))
        else:
            raise result
    return BatchAnswer(model=model.name, results=items)


@router.post("/v1/ask", summary="Ask about an image", responses=WORK_PROBLEMS, response_model_exclude_none=True)
async def ask(request: Annotated[AskRequest, Depends(ASK)], service: TheService, context: TheContext) -> AskAnswer:
    """A question about an image, for any captioner: it reads the question as its prompt."""
    if not request.question.strip():
        raise Problem(422, "There is no question.", "For example: What colour is it?")
    model, worker = await service.acquire_model(request.model, "ask", context)
    options = service.generation_options(worker, request.generation_options(), request.question)
    language = service.language(request.language)
    prompts = service.prompts(worker, request.generation_options(), options)
    decoded = await service.image(request.image, worker, context, fields=prompts.fields)
    options = prompts.options_for(decoded.known, request.question.strip())
    result = await worker.submit(CaptionWork(decoded.pixels, options, language))
    answers = caption_items(result.captions, WordingOptions(), language, worker.answered(options))
    return AskAnswer(model=model.name, answers=answers)


@router.post("/v1/match", summary="How well texts fit an image", responses=WORK_PROBLEMS)
async def match(
    request: Annotated[MatchRequest, Depends(MATCH)], service: TheService, context: TheContext
) -> MatchAnswer:
    """The probability that each text is true of an image, by a matcher: BLIP's, a SigLIP, a CLIP (shares alone)."""
    if not all(text.strip() for text in request.texts):
        raise Problem(422, "One of the texts is empty.", "Give each text at least one word.")
    model, worker = await service.acquire_model(request.model, "match", context)
    pixels, _ = await service.pixels(request.image, worker, context)
    matches = await worker.submit(MatchWork(pixels, request.texts))
    items = [
        TextMatch(text=one.text, probability=one.probability, similarity=one.similarity, share=one.share, cut=one.cut)
        for one in matches
    ]
    return MatchAnswer(model=model.name, matches=items)
