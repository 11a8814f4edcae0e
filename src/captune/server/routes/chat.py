"""OpenAI's chat completions, so that its clients caption images too."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from captune.server.bodies import RequestBody
from captune.server.chat_schemas import ChatAnswer, ChatMessage, ChatRequest, Choice, Usage
from captune.server.model_worker import CaptionWork
from captune.server.problems import Problem
from captune.server.schemas import EXAMPLE_IMAGE, MAX_TEXT_LENGTH, WORK_PROBLEMS
from captune.server.service import TheContext, TheService

router = APIRouter(tags=["chat"])
EXAMPLE = {
    "model": "captioner",
    "messages": [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{EXAMPLE_IMAGE}"}}],
        }
    ],
    "max_tokens": 30,
}


CHAT = RequestBody(ChatRequest, EXAMPLE, forms=False)


@router.post(
    "/v1/chat/completions",
    summary="Caption an image, as OpenAI's clients ask",
    response_model=ChatAnswer,
    responses=WORK_PROBLEMS,
)
async def chat(request: Annotated[ChatRequest, Depends(CHAT)], service: TheService, context: TheContext) -> Any:
    """One image as a data URL; its caption whole, or piece by piece with `stream`."""
    image, prompt = image_and_prompt(request)
    values = request.generation_options()
    if request.stream:
        values = {"num_beams": 1, **values}  # beams know their caption only at its end
    model, worker = await service.acquire_model(request.model, "ask" if prompt else "caption", context)
    system = system_prompt(request)
    if system and worker.captioner.model.codec.answers:
        values = {"system_prompt": system, **values}
    options = service.generation_options(worker, values, prompt or None, shorten=True)
    language = service.language(request.language)
    if request.stream and max(options.num_captions, options.variations) > 1:
        raise Problem(422, "A stream has one caption.", "Ask for one (n), or without stream.")
    pixels, _ = await service.pixels(image, worker, context)
    head: dict[str, Any] = {"id": f"chatcmpl-{context.id}", "created": int(time.time()), "model": model.name}
    if not request.stream:
        result = await worker.submit(CaptionWork(pixels, options, language))
        choices = [
            Choice(
                index=n, message=ChatMessage(content=caption.text), finish_reason="length" if caption.cut else "stop"
            )
            for n, caption in enumerate(result.captions)
        ]
        return ChatAnswer(**head, choices=choices, usage=_usage(result.prompt_tokens, sum(result.tokens)))
    usage: list[int] = []
    texts = await context.stack.enter_async_context(aclosing(worker.stream(pixels, options, language, usage)))
    # With the first text at hand, an error before it still has a status of its own.
    first = await anext(texts, "")
    shown = bool(request.stream_options and request.stream_options.include_usage)
    return StreamingResponse(
        _events(head, first, texts, usage, options.max_new_tokens, show_usage=shown),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def image_and_prompt(request: ChatRequest) -> tuple[str | bytes, str]:
    """The image and the text of the user's last message; raises `Problem` where there is not one image."""
    last = next((message for message in reversed(request.messages) if message.role == "user"), None)
    parts = last.content if last is not None and isinstance(last.content, list) else []
    images = [part.image_url.url for part in parts if part.type == "image_url" and part.image_url is not None]
    if len(images) != 1:
        raise Problem(
            422,
            f"The last message of the user has {len(images) or 'no'} images.",
            'One is needed: {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}',
        )
    prompt = " ".join(part.text.strip() for part in parts if part.type == "text" and part.text).strip()
    if len(prompt) > MAX_TEXT_LENGTH:
        raise Problem(
            422,
            f"The last message of the user has {len(prompt):,} characters of text; {MAX_TEXT_LENGTH:,} are allowed.",
            "It is the prompt of the model: a question, or the beginning of the caption.",
        )
    return images[0], prompt


def system_prompt(request: ChatRequest) -> str:
    """The text of the system's messages; other messages than these and the last of the user are not read."""
    texts = [
        message.content
        if isinstance(message.content, str)
        else " ".join(part.text for part in message.content or () if part.text)
        for message in request.messages
        if message.role in ("system", "developer")
    ]
    return "\n".join(text.strip() for text in texts)


def _usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


async def _events(
    head: dict[str, Any], first: str, rest: AsyncIterator[str], usage: list[int], longest: int, *, show_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events: a chunk for each text, then perhaps `usage`, which is filled when `rest` ends.

    `longest` is how many tokens the caption may have.
    """

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def delta(end: str | None = None, **content: str) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": content, "finish_reason": end, "logprobs": None}]

    yield event(delta(role="assistant", content=first))
    try:
        async for text in rest:
            if text:
                yield event(delta(content=text))
    except Exception as error:  # noqa: BLE001 - the status has been sent; the client learns it here
        problem = Problem.of(error)
        yield f"data: {json.dumps({'error': problem.body()})}\n\n"
        return
    yield event(delta(end="length" if usage[1:] and usage[1] >= longest else "stop"))
    if show_usage and usage:
        yield event([], usage=_usage(*usage).model_dump())
    yield "data: [DONE]\n\n"
