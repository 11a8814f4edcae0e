"""Requests to a server, several at a time: sent again where that may help, and within a budget."""

import asyncio
import email.utils
import json
import random
import time
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import httpx

from captune.core.endpoints import Endpoint
from captune.core.errors import CaptuneError, did_you_mean, first_line
from captune.core.options.endpoint import EndpointOptions
from captune.inference.captioning import NoCaptionError
from captune.inference.endpoint.answers import tokens_in
from captune.inference.endpoint.budget import Budget

KEY = "OPENAI_API_KEY"
# Fields that some servers refuse, and what is sent instead: another name, or nothing.
_OTHER_NAMES = {"logprobs": None, "response_format": None, "max_tokens": "max_completion_tokens"}
# Other words by which servers speak of a field.
_WORDS = {"response_format": ("json_schema", "json schema", "structured output", "grammar")}
_KEPT = "What came is kept; the same command goes on."
# Answers that would come again; others may be gone a moment later.
_FINAL = frozenset((400, 401, 403, 404, 405, 410, 411, 413, 414, 415, 422, 501))
_ABSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.ProxyError, httpx.InvalidURL)
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_WAIT = 0.5, 30.0, 600.0
# So many images in a row for which the server has errors alone: it will not have captions for the others.
_MAX_REFUSED = 10
_Result = TypeVar("_Result")


class EndpointError(CaptuneError):
    """A server that answers no request any more, or none of this user."""


def key_from(options: EndpointOptions, environment: Mapping[str, str]) -> str | None:
    """The server's key: of a file, else of the environment; None where there is none."""
    if options.api_key_file is None:
        return environment.get(KEY, "").strip() or None
    try:
        key = Path(options.api_key_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CaptuneError(
            f"The key cannot be read from {options.api_key_file}: {first_line(error)}", "Check --api-key-file."
        ) from None
    if not key or any(not letter.isprintable() or letter.isspace() for letter in key):
        raise CaptuneError(f"{options.api_key_file} holds no key.", "A key is one line of letters and digits.")
    return key


@dataclass(frozen=True)
class _Reply:
    """`status` is 0 where no whole answer came, `found` the JSON of a good one, `wait` the seconds that it asks for.

    `absent`: nobody was there to be asked.
    """

    status: int
    found: Any
    message: str
    wait: float | None = None
    absent: bool = False


class Client:
    """A server and its event loop, in a thread of its own; any thread may submit requests."""

    def __init__(self, endpoint: Endpoint, options: EndpointOptions, key: str | None) -> None:
        self.endpoint, self.options, self.budget = endpoint, options, Budget(options)
        self._refused, self._finishing = 0, asyncio.Event()
        self._unknown: set[str] = set()
        # When the server last had captions for none, and why: what waited then is not sent.
        self._ended: tuple[float, EndpointError] | None = None
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="captune-endpoint", daemon=True).start()
        self._slots = asyncio.Semaphore(options.concurrency)
        limits = httpx.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency)
        self._http = httpx.AsyncClient(
            # A server that takes longer to accept a connection is not there.
            timeout=httpx.Timeout(options.request_timeout, connect=10.0),
            limits=limits,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self.close = weakref.finalize(self, _close, self._loop, self._http)

    def submit(self, work: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        """Run something in the client's loop; the future may be cancelled."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def finish(self) -> None:
        """Send no request any more: those that are not under way are given up."""
        self._loop.call_soon_threadsafe(self._finishing.set)

    async def complete(self, body: Mapping[str, Any]) -> Any:
        """The JSON that a chat completion answers.

        Raises `NoCaptionError` where the server has none for this request, `EndpointError` where it has none for any,
        `BudgetSpentError` before a request that may cost too much.
        """
        began = self._loop.time()
        async with self._slots:
            attempt = 0
            while True:
                if self._finishing.is_set():
                    raise EndpointError("The job has ended.", _KEPT)
                if self._ended is not None and self._ended[0] >= began:
                    raise self._ended[1]
                sent = self._fitting(body)
                reply = await self._send(sent, body["max_tokens"] * body.get("n", 1))
                if reply.found is not None:
                    self._refused = 0
                    return reply.found
                if reply.status in (400, 422) and self._adapts(reply.message, sent):
                    continue
                if reply.status in _FINAL or attempt == self.options.retries:
                    refusal = await self._refusal(reply)
                    if isinstance(refusal, EndpointError):
                        self._ended = self._loop.time(), refusal
                    raise refusal
                pause = _pause(attempt) if reply.wait is None else min(reply.wait, _LONGEST_WAIT)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._finishing.wait(), pause)
                attempt += 1

    async def _send(self, body: Mapping[str, Any], longest: int) -> _Reply:
        """Send a request whose answer has at most `longest` tokens."""
        reserved = await self.budget.reserve(longest)
        found: Any = None
        try:
            answer = await self._http.post(f"{self.endpoint.url}/chat/completions", json=body)
            found = _json(answer) if answer.status_code == httpx.codes.OK else None
        except (httpx.RequestError, httpx.InvalidURL) as error:
            return _Reply(0, None, _reason(error), absent=isinstance(error, _ABSENT))
        finally:
            self.budget.settle(reserved, *tokens_in(found))
        message = "" if found is not None else _message(answer)
        return _Reply(answer.status_code, found, message, _retry_after(answer.headers.get("Retry-After")))

    def _adapts(self, message: str, sent: Mapping[str, Any]) -> bool:
        """Whether another request may be taken: servers differ in some fields, and name the one that they refuse."""
        words = message.lower()
        refused = {
            name
            for name in _OTHER_NAMES
            if name in sent and any(word in words for word in (name, *_WORDS.get(name, ())))
        }
        self._unknown |= refused
        return bool(refused)

    def _fitting(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request without the fields that the server refused."""
        names = {name: _OTHER_NAMES[name] if name in self._unknown else name for name in body}
        return {name: body[given] for given, name in names.items() if name is not None}

    async def _refusal(self, reply: _Reply) -> CaptuneError:
        """What the last reply to a request means."""
        url, model, message = self.endpoint.url, self.endpoint.model, reply.message
        if reply.absent:
            return EndpointError(f"{url} is not reached: {message}.", f"Check that the server runs there. {_KEPT}")
        if reply.status in (401, 403):
            return EndpointError(f"{url} does not accept the key: {message}", f"Set {KEY}, or --api-key-file FILE.")
        if reply.status == 404:
            return EndpointError(f"{url} has no model {model}: {message}", await self._known_models())
        self._refused += 1
        message = f"the server answered {reply.status}: {message}" if reply.status else message
        if self._refused < _MAX_REFUSED:
            return NoCaptionError(message, "")
        return EndpointError(
            f"{url} has captions for none of {self._refused} images in a row; {message}",
            f"Look into the server's log. {_KEPT}",
        )

    async def _known_models(self) -> str:
        try:
            answer = await self._http.get(f"{self.endpoint.url}/models")
            known = [str(one["id"]) for one in answer.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return "Check the address (most servers have their API under /v1) and the name of the model."
        return did_you_mean(self.endpoint.model, known)


def _close(loop: asyncio.AbstractEventLoop, http: httpx.AsyncClient) -> None:
    """Let go of a client's connections and end its thread; what is in flight is given up."""

    async def end() -> None:
        await http.aclose()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)


def _pause(attempt: int) -> float:
    """Seconds before the next attempt: longer each time, and not the same for all requests."""
    return min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After`: a number, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _json(answer: httpx.Response) -> Any:
    """The JSON of an answer; None where it is none."""
    try:
        return answer.json()
    except (ValueError, RecursionError):
        return None


def _message(answer: httpx.Response) -> str:
    """What a server says of a failure, in one line."""
    found = _json(answer)
    error = found.get("error", found.get("message", found.get("detail"))) if isinstance(found, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    message = error if isinstance(error, str) else json.dumps(error) if error else answer.text
    return " ".join(message.split())[:300] or "no reason given"


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no whole answer in time (--request-timeout)"
    return first_line(error) or type(error).__name__
