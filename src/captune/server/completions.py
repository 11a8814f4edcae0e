"""A caption as the answer to a conversation: what the APIs of OpenAI and of Ollama have in common."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from captune.captions.wording import worded
from captune.core.options import GenerationOptions, WordingOptions
from captune.core.records import Caption
from captune.decoding.encoding import FollowUp, Turn
from captune.inference.pieces import Piece, pieces_of
from captune.server.middleware import RequestContext
from captune.server.model_pool import ASKED_FAMILIES, ServedModel
from captune.server.model_worker import CaptionWork, ModelWorker
from captune.server.problems import Problem
from captune.server.schemas import MAX_TEXT_LENGTH
from captune.server.service import Service
from captune.server.stops import StopFilter

# Characters of all messages that a model reads.
MAX_CONVERSATION_LENGTH = 8 * MAX_TEXT_LENGTH
ONE_IMAGE = 'One is needed: {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}'


@dataclass(frozen=True)
class ChatTurn:
    """A message with its images, as base64 or data URLs."""

    role: str
    text: str
    images: Sequence[str | bytes] = ()


@dataclass(frozen=True)
class Conversation:
    """The image, what is asked about it after the `earlier` turns ("": nothing), and the system's message."""

    image: str | bytes
    prompt: str
    system: str
    earlier: tuple[Turn, ...] = ()

    @property
    def question(self) -> FollowUp | None:
        return FollowUp(self.prompt, self.earlier) if self.prompt else None


def conversation_of(messages: Sequence[ChatTurn], hint: str = ONE_IMAGE) -> Conversation:
    """The conversation from the last message with an image to the user's last; raises `Problem`."""
    last = max((n for n, turn in enumerate(messages) if turn.role == "user"), default=-1)
    first = max((n for n, turn in enumerate(messages) if turn.role == "user" and turn.images), default=-1)
    if first < 0:
        raise Problem(422, "No message of the user has an image.", hint)
    images = messages[first].images
    if len(images) > 1:
        raise Problem(422, f"A message of the user has {len(images)} images.", hint)
    turns = [turn for turn in messages[first : last + 1] if turn.role in ("user", "assistant")]
    prompt = turns[-1].text.strip()
    if len(prompt) > MAX_TEXT_LENGTH:
        raise Problem(
            422,
            f"The last message of the user has {len(prompt):,} characters of text; {MAX_TEXT_LENGTH:,} are allowed.",
            "It is the prompt of the model: a question, or the beginning of the caption.",
        )
    if sum(len(turn.text) for turn in turns) > MAX_CONVERSATION_LENGTH:
        raise Problem(
            422,
            f"The conversation has more than {MAX_CONVERSATION_LENGTH:,} characters.",
            "Leave earlier messages out, but the one with the image.",
        )
    system = "\n".join(turn.text.strip() for turn in messages if turn.role in ("system", "developer"))
    earlier = tuple(Turn("user" if turn.role == "user" else "assistant", turn.text.strip()) for turn in turns[:-1])
    return Conversation(images[0], prompt, system.strip(), earlier)


@dataclass(frozen=True)
class PromptRead:
    """How many tokens the prompt has."""

    tokens: int


@dataclass(frozen=True)
class Delta:
    """A piece of caption number `index`; `pieces` are the tokens of it as the model wrote it."""

    index: int
    text: str
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Ended:
    """The end of caption number `index`, which was written in so many tokens."""

    index: int
    reason: Literal["stop", "length"]
    tokens: int


Event = PromptRead | Delta | Ended
Events = AsyncIterator[Event]
# Of a streamed answer: proxies pass its pieces on as they come.
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def until_text(events: Events) -> list[Event]:
    """The first events, up to one with text: whatever goes wrong before it can still have a status of its own."""
    begun: list[Event] = []
    async for event in events:
        begun.append(event)
        if not isinstance(event, PromptRead):
            break
    return begun


async def with_begun(begun: Sequence[Event], rest: Events) -> Events:
    """Events that were read already, and those behind them."""
    for event in begun:
        yield event
    async for event in rest:
        yield event


@dataclass
class Completion:
    """Captions to be written, with all that it takes; `loading` (the model) and `reading` (the image) are seconds."""

    model: ServedModel
    worker: ModelWorker
    pixels: np.ndarray
    options: GenerationOptions
    wording: WordingOptions
    language: str | None
    stops: Sequence[str]
    loading: float
    reading: float
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long the captions are being written."""
        return time.monotonic() - self.started

    @property
    def grows(self) -> bool:
        """Whether there is something to show before the end: one caption without beams, left as it was written."""
        options = self.options
        single = max(options.num_captions, options.variations, options.num_beams) == 1
        return single and self.language is None and self.wording == WordingOptions()

    async def events(self, *, stream: bool) -> AsyncGenerator[Event, None]:
        """What is known of the captions, in order; with `stream` as they grow. Raises what their work raises."""
        if stream and self.grows:
            async for event in self._streamed():
                yield event
            return
        result = await self.worker.submit(CaptionWork(self.pixels, self.options, self.language))
        yield PromptRead(result.prompt_tokens)
        for index, caption in enumerate(result.captions):
            pieces, ended = self._until_stop(index, caption)
            text = "".join(piece.text for piece in pieces)
            yield Delta(index, worded(replace(caption, text=text), self.wording).text, tuple(pieces))
            yield ended

    def _until_stop(self, index: int, caption: Caption) -> tuple[list[Piece], Ended]:
        stops = StopFilter(self.stops)
        found: list[Piece] = []
        for piece in pieces_of(self.worker.captioner.model, caption, self.options):
            found += stops.read(piece)
            if stops.found:
                return found, Ended(index, "stop", stops.tokens)
        return [*found, *stops.rest()], Ended(index, "length" if caption.cut else "stop", len(caption.tokens))

    async def _streamed(self) -> AsyncGenerator[Event, None]:
        stops = StopFilter(self.stops)
        async with aclosing(self.worker.stream(self.pixels, self.options)) as found:
            async for one in found:
                if isinstance(one, int):
                    yield PromptRead(one)
                    continue
                for piece in stops.rest() if isinstance(one, Caption) else stops.read(one):
                    yield Delta(0, piece.text, (piece,))
                if stops.found:
                    yield Ended(0, "stop", stops.tokens)
                    return
                if isinstance(one, Caption):
                    yield Ended(0, "length" if one.cut else "stop", stops.tokens)


async def prepare_completion(
    service: Service,
    context: RequestContext,
    conversation: Conversation,
    values: Mapping[str, Any],
    *,
    model: str | None,
    language: str | None = None,
    wording: Mapping[str, Any] | None = None,
    stops: Sequence[str] = (),
    stream: bool = False,
) -> Completion:
    """The model loaded, its options checked, the image decoded; raises `Problem` and `CaptuneError`."""
    before = time.monotonic()
    served, worker = await service.acquire_model(model, "ask" if conversation.prompt else "caption", context)
    loaded = time.monotonic()
    codec = worker.captioner.model.codec
    if stream:
        values = {"num_beams": 1, **values}  # beams know their caption only at its end
    if conversation.system and codec.answers:
        values = {"system_prompt": conversation.system, **values}
    ignored = service.options.ignore_instructions and not codec.answers and served.family not in ASKED_FAMILIES
    question = None if ignored else conversation.question
    options = service.generation_options(worker, values, question, shorten=True)
    offered, around = service.language(language), service.wording(wording or {})
    pixels, _ = await service.pixels(conversation.image, worker, context)
    reading = time.monotonic() - loaded
    return Completion(served, worker, pixels, options, around, offered, stops, loaded - before, reading)
