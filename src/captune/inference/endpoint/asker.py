"""The requests of a job are sent by a process of their own, which outlives a kill of the job until all answers are in.

The job writes a request a line to its stdin, and reads an answer a line from its stdout, both JSON. An answer is in the
file of answers before it is told, and a request whose answer is there is not sent. At the end of its stdin the process
sends nothing more, and ends with the last answer.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from captune.core.endpoints import Endpoint
from captune.core.errors import CaptuneError
from captune.core.files.locks import Locked, lock_file
from captune.core.options.endpoint import EndpointOptions
from captune.inference.captioning import NoCaptionError
from captune.inference.endpoint.answer_cache import AnswerCache
from captune.inference.endpoint.budget import BudgetSpentError
from captune.inference.endpoint.client import Client, EndpointError

_ERRORS = {kind.__name__: kind for kind in (NoCaptionError, EndpointError, BudgetSpentError)}
_LOOK_SECONDS = 0.1


class Asker:
    """That process, from the job's side."""

    def __init__(self, endpoint: Endpoint, options: EndpointOptions, key: str | None, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a pipe behind the job ends with the job
            start_new_session=True,
        )
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers, self._writing = count(), Lock()
        self._ended = False
        begin = {"model": endpoint.model, "url": endpoint.url, "key": key, "file": str(file)}
        self._write({**begin, "options": options.model_dump()})
        self._reader = Thread(target=self._read, name="captune-answers", daemon=True)
        self._reader.start()

    async def complete(self, body: Mapping[str, Any], key: str) -> Any:
        """As `Client.complete`; `key` is that of the answer in the file."""
        number, answer = next(self._numbers), Future[Any]()
        self._waiting[number] = answer
        try:
            self._write({"id": number, "key": key, "body": body})
            if self._ended:
                raise _has_ended()
            return await asyncio.wrap_future(answer)
        finally:
            del self._waiting[number]

    def close(self, *, wait: bool = True) -> None:
        """Let it send nothing more. It ends with the last answer under way, which `wait` waits for."""
        assert self._process.stdin is not None, "it is a pipe"
        with suppress(OSError):
            self._process.stdin.close()
        if wait:
            self._process.wait()
            self._reader.join()

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        try:
            with self._writing:
                self._process.stdin.write(json.dumps(line).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):
            raise _has_ended() from None

    def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        for line in self._process.stdout:
            reply = json.loads(line)
            answer = self._waiting.get(reply["id"])
            if answer is None or not answer.set_running_or_notify_cancel():
                continue
            if "error" in reply:
                answer.set_exception(_ERRORS.get(reply["kind"], CaptuneError)(reply["error"], reply["hint"]))
            else:
                answer.set_result(reply["answer"])
        self._ended = True
        for answer in list(self._waiting.values()):
            if answer.set_running_or_notify_cancel():
                answer.set_exception(_has_ended())


def _has_ended() -> EndpointError:
    return EndpointError(
        "The process that sends the requests has ended.", "Often it was memory; the same command goes on."
    )


def main() -> None:
    """In the process: requests from stdin, answers to stdout."""
    begin = json.loads(sys.stdin.buffer.readline())
    options = EndpointOptions(**begin["options"])
    telling = Lock()

    def tell(number: int, done: Future[Any]) -> None:
        error = done.exception()
        reply: dict[str, Any] = {"id": number}
        if error is None:
            reply["answer"] = done.result()
        else:
            known = error if isinstance(error, CaptuneError) else CaptuneError(str(error), "")
            reply |= {"kind": type(error).__name__, "error": known.message, "hint": known.hint}
        with telling, suppress(OSError):  # nobody may be there any more to be told
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()

    with _alone(Path(begin["file"])) as cache:
        client = Client(Endpoint(begin["model"], begin["url"]), options, begin["key"])
        work = []
        for line in sys.stdin.buffer:
            if not line.endswith(b"\n"):
                break  # the job was killed as it wrote this
            request = json.loads(line)
            answer = client.submit(_answer(request, client, cache))
            answer.add_done_callback(partial(tell, request["id"]))
            work.append(answer)
        client.finish()
        for answer in work:
            answer.exception()


async def _answer(request: Mapping[str, Any], client: Client, cache: AnswerCache) -> Any:
    answer = cache.get(request["key"])
    if answer is None:
        answer = await client.complete(request["body"])
        cache.add(request["key"], answer)
    return answer


@contextmanager
def _alone(file: Path) -> Iterator[AnswerCache]:
    """The answers in a file, once no earlier process is at work on it."""
    while True:
        try:
            with lock_file(file.with_suffix(".lock")):
                yield AnswerCache(file)
                return
        except Locked:
            time.sleep(_LOOK_SECONDS)
