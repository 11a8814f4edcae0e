"""OpenAI's chat completions, so that its clients caption images too."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse

from captune.inference.pieces import Piece
from captune.server.bodies import RequestBody
from captune.server.chat_schemas import ChatAnswer, ChatMessage, ChatRequest, Choice, Logprobs, TokenLogprob, Usage
from captune.server.completions import (
    STREAM_HEADERS,
    Delta,
    Event,
    Events,
    PromptRead,
    conversation_of,
    prepare_completion,
    until_text,
    with_begun,
)
from captune.server.problems import Problem
from captune.server.schemas import EXAMPLE_IMAGE, WORK_PROBLEMS
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
    """One image as a data URL; its captions whole, or piece by piece with `stream`."""
    _check(request)
    stream = bool(request.stream)
    completion = await prepare_completion(
        service,
        context,
        conversation_of(request.turns),
        request.generation_options(),
        model=request.model,
        language=request.language,
        wording=request.wording(),
        stops=request.stops,
        stream=stream,
    )
    head: dict[str, Any] = {"id": f"chatcmpl-{context.id}", "created": int(time.time()), "model": completion.model.name}
    events = await context.stack.enter_async_context(aclosing(completion.events(stream=stream)))
    end = completion.worker.captioner.model.codec.eos_token_id if request.logprobs else None
    if not stream:
        return ChatAnswer(**head, **await _whole(events, end))
    # With the first text at hand, an error before it still has a status of its own.
    begun = await until_text(events)
    shown = bool(request.stream_options and request.stream_options.include_usage)
    return StreamingResponse(
        _sent_events(head, begun, events, end, show_usage=shown), media_type="text/event-stream", headers=STREAM_HEADERS
    )


def _check(request: ChatRequest) -> None:
    """Raises `Problem` for what is not here and would be missed."""
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text":
        raise Problem(
            422,
            f"Captions are text; response_format {str(kind)[:100]} is not known.",
            "Leave it out, and check what the model writes.",
        )
    if request.top_logprobs:
        raise Problem(
            422,
            "The search keeps the probabilities of the tokens that it chose, and no others.",
            "Leave top_logprobs out; /v1/caption with explain has likely alternatives for each word.",
        )


def _usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _logprobs(pieces: Sequence[Piece], end: int) -> Logprobs | None:
    """Their tokens but the `end`; None where they are not known. Text of several tokens is that of the last."""
    tokens = []
    for piece in pieces:
        texts = [*[""] * (len(piece.tokens) - 1), piece.text]
        for token, text, log_prob in zip(piece.tokens, texts, piece.log_probs, strict=False):
            if token != end:
                tokens.append(TokenLogprob(token=text, logprob=log_prob, bytes=list(text.encode())))
    return Logprobs(content=tokens) if tokens else None


async def _whole(events: Events, end: int | None) -> dict[str, Any]:
    """Choices and usage; with `end`, the token that ends a caption, those before it have their probabilities."""
    prompt, written, choices, deltas = 0, 0, [], dict[int, Delta]()
    async for event in events:
        if isinstance(event, PromptRead):
            prompt = event.tokens
        elif isinstance(event, Delta):
            deltas[event.index] = event
        else:
            delta, written = deltas[event.index], written + event.tokens
            logprobs = None if end is None else _logprobs(delta.pieces, end)
            message = ChatMessage(content=delta.text)
            choices.append(Choice(index=event.index, message=message, finish_reason=event.reason, logprobs=logprobs))
    return {"choices": choices, "usage": _usage(prompt, written)}


async def _sent_events(
    head: dict[str, Any], begun: Sequence[Event], events: Events, end: int | None, *, show_usage: bool
) -> AsyncIterator[str]:
    """Server-sent events: a chunk for each text, one with the reason why each caption ended, then perhaps `usage`."""
    prompt, written, roles = 0, 0, set[int]()

    def sent(choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def choice(index: int, delta: dict[str, str], reason: str | None = None, found: Logprobs | None = None) -> str:
        role = {} if index in roles else {"role": "assistant"}
        roles.add(index)
        logprobs = found.model_dump() if found else None
        return sent([{"index": index, "delta": {**role, **delta}, "finish_reason": reason, "logprobs": logprobs}])

    try:
        async for event in with_begun(begun, events):
            if isinstance(event, PromptRead):
                prompt = event.tokens
            elif isinstance(event, Delta):
                found = None if end is None else _logprobs(event.pieces, end)
                if event.text or found or event.index not in roles:
                    yield choice(event.index, {"content": event.text}, found=found)
            else:
                written += event.tokens
                yield choice(event.index, {}, event.reason)
    except Exception as error:  # noqa: BLE001 - the status has been sent; the client learns it here
        yield f"data: {json.dumps({'error': Problem.of(error).body()})}\n\n"
        return
    if show_usage:
        yield sent([], usage=_usage(prompt, written).model_dump())
    yield "data: [DONE]\n\n"
