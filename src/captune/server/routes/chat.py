"""OpenAI's chat completions, so that its clients caption pictures too."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from captune.core.options import GenerationOptions
from captune.server.bodies import read_body
from captune.server.openapi import body
from captune.server.problems import Problem
from captune.server.routes.captions import state
from captune.server.schemas import (
    EXAMPLE_IMAGE,
    MAX_TEXT_LENGTH,
    WORK_PROBLEMS,
    ChatAnswer,
    ChatMessage,
    ChatRequest,
    Choice,
    Usage,
)

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


@router.post(
    "/v1/chat/completions",
    summary="Caption a picture, as OpenAI's clients ask",
    response_model=ChatAnswer,
    responses=WORK_PROBLEMS,
    openapi_extra=body(ChatRequest, EXAMPLE, forms=False),
)
async def chat(request: Request) -> Any:
    """One picture as a data URL; its caption whole, or piece by piece with `stream`."""
    service, context = state(request)
    asked = await read_body(request, ChatRequest)
    picture, words = image_and_prompt(asked)
    given = asked.given()
    if asked.stream:
        given = {"num_beams": 1, **given}  # beams know their caption only at its end
    model, worker = await service.model(asked.model, "ask" if words else "caption", context)
    options = service.search(worker, given, words or None, shorten=True)
    language = service.language(asked.language)
    several = max(options.num_captions, options.variations) > 1
    if asked.stream and several:
        raise Problem(422, "A stream has one caption.", "Ask for one (n), or without stream.")
    pixels = await service.pixels(picture, worker)
    head: dict[str, Any] = {"id": f"chatcmpl-{context.id}", "created": int(time.time()), "model": model.name}
    if not asked.stream:
        found = await worker.caption(pixels, options, language)
        choices = [
            Choice(
                index=n,
                message=ChatMessage(content=caption.text),
                finish_reason=_finish_reason(found.tokens[n], options),
            )
            for n, caption in enumerate(found.captions)
        ]
        return ChatAnswer(**head, choices=choices, usage=_usage(found.prompt_tokens, sum(found.tokens)))
    tokens: list[int] = []
    speech = worker.speak(pixels, options, lambda *counted: tokens.extend(counted), language)
    pieces = await context.stack.enter_async_context(aclosing(speech))
    # With the first piece at hand, what goes wrong before it still has a status of its own.
    first = await anext(pieces, "")
    counted = tokens if asked.stream_options and asked.stream_options.include_usage else None
    return StreamingResponse(
        _events(head, first, pieces, counted),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def image_and_prompt(asked: ChatRequest) -> tuple[str | bytes, str]:
    """The picture and the words of the user's last message; raises `Problem` where there is not one picture."""
    last = next((message for message in reversed(asked.messages) if message.role == "user"), None)
    parts = last.content if last is not None and isinstance(last.content, list) else []
    pictures = [part.image_url.url for part in parts if part.type == "image_url" and part.image_url is not None]
    if len(pictures) != 1:
        raise Problem(
            422,
            f"The last message of the user has {len(pictures) or 'no'} pictures.",
            'One is needed: {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}',
        )
    words = " ".join(part.text.strip() for part in parts if part.type == "text" and part.text).strip()
    if len(words) > MAX_TEXT_LENGTH:
        raise Problem(
            422,
            f"The last message of the user has {len(words):,} characters of text; {MAX_TEXT_LENGTH:,} are allowed.",
            "It is the prompt of the model: a question, or the words that the caption continues.",
        )
    return pictures[0], words


def _finish_reason(tokens: int, options: GenerationOptions) -> Any:
    return "length" if tokens >= options.max_new_tokens else "stop"


def _usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


async def _events(
    head: dict[str, Any], first: str, rest: AsyncIterator[str], counted: list[int] | None
) -> AsyncIterator[str]:
    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        said = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(said, ensure_ascii=False)}\n\n"

    def delta(end: str | None = None, **said: str) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": said, "finish_reason": end, "logprobs": None}]

    yield event(delta(role="assistant", content=first))
    try:
        async for piece in rest:
            if piece:
                yield event(delta(content=piece))
    except Exception as error:  # noqa: BLE001 - the status has been sent; the client learns it here
        problem = Problem.of(error)
        yield f"data: {json.dumps({'error': problem.body()})}\n\n"
        return
    yield event(delta(end="stop"))
    if counted:
        yield event([], usage=_usage(*counted).model_dump())
    yield "data: [DONE]\n\n"
