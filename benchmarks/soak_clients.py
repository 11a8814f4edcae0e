"""Honest clients for soak.py: they compare every caption with that of the same model in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import captune
from serve_load import Line, Seen, pictures, request
from soak_bodies import stream

OPTIONS = {"num_beams": 3, "max_new_tokens": 20}


@dataclass(frozen=True)
class Question:
    """A request, and the captions that its answer has to have."""

    path: str
    body: bytes
    content: str
    right: Sequence[str]
    texts: Callable[[bytes], list[str]]


def questions(model: str, count: int) -> list[Question]:
    """Photos, each sent in one of five ways."""
    captioner = captune.Captioner.load(model, device="cpu", precision="fp32")
    found = []
    for number, photo in enumerate(pictures(count, 64)):
        beams = [caption.text for caption in captioner.captions(photo, **OPTIONS)]
        greedy = [captioner.captions(photo, num_beams=1, max_new_tokens=20)[0].text]
        found.append(ways(photo, beams, greedy)[number % 5])
    return found


def ways(photo: bytes, beams: list[str], greedy: list[str]) -> list[Question]:
    text = base64.b64encode(photo).decode()
    kind = "application/json"
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}
    chat = {"messages": [{"role": "user", "content": [url]}], **OPTIONS}
    parts = [b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + photo]
    parts += [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in OPTIONS.items()
    ]
    form = b"\r\n".join([*parts, b"--x--\r\n"])
    streamed = {**json.loads(stream(photo)), "max_tokens": 20}
    return [
        Question("/v1/caption", json.dumps({"image": text, **OPTIONS}).encode(), kind, beams, _captions),
        Question("/v1/caption", form, "multipart/form-data; boundary=x", beams, _captions),
        Question(
            "/v1/captions:batch", json.dumps({"images": [text] * 2, **OPTIONS}).encode(), kind, beams * 2, _results
        ),
        Question("/v1/chat/completions", json.dumps(chat).encode(), kind, beams, _messages),
        Question("/v1/chat/completions", json.dumps(streamed).encode(), kind, greedy, _pieces),
    ]


def _captions(body: bytes) -> list[str]:
    return [caption["text"] for caption in json.loads(body)["captions"]]


def _results(body: bytes) -> list[str]:
    return [caption["text"] for result in json.loads(body)["results"] for caption in result["captions"]]


def _messages(body: bytes) -> list[str]:
    return [choice["message"]["content"] for choice in json.loads(body)["choices"]]


def _pieces(body: bytes) -> list[str]:
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    if events[-1] != "[DONE]":
        return []
    pieces = [choice["delta"].get("content", "") for event in events[:-1] for choice in json.loads(event)["choices"]]
    return ["".join(pieces)]


@dataclass
class Honest(Seen):
    """What honest clients saw; `complaints` are the first answers that they should not have got."""

    complaints: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        if len(self.complaints) < 10:
            self.complaints.append(text)


async def ask_all(port: int, clients: int, asked: Sequence[Question], seconds: float, pause: float) -> Honest:
    """All honest clients for some seconds."""
    seen, end = Honest(), time.monotonic() + seconds
    await asyncio.gather(*(client(port, number, asked, end, pause, seen) for number in range(clients)))
    return seen


async def client(port: int, number: int, asked: Sequence[Question], end: float, pause: float, seen: Honest) -> None:
    """One of them, from an address of its own."""
    chance = random.Random(number)
    line = Line(port, f"127.0.1.{number % 250 + 1}")
    await asyncio.sleep(chance.random() * 0.2)
    while time.monotonic() < end:
        question = chance.choice(asked)
        data = request(question.body, question.path, question.content, {"Authorization": f"Bearer honest-{number}"})
        started = time.monotonic()
        try:
            async with asyncio.timeout(150):
                status, headers, body = await line.exchange(data)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            line.close()
            seen.statuses[type(error).__name__] += 1
            seen.complain(f"{question.path}: {error!r} after {time.monotonic() - started:.1f} s")
            await asyncio.sleep(0.5)
            continue
        seen.statuses[str(status)] += 1
        if status == 200:
            seen.seconds.append(time.monotonic() - started)
            if question.texts(body) != list(question.right):
                seen.wrong += 1
                seen.complain(f"{question.path}: {question.texts(body)}, not {question.right}")
        elif status != 429:
            seen.complain(f"{question.path}: {status} after {time.monotonic() - started:.1f} s: {body[:200]!r}")
        await asyncio.sleep(float(headers["retry-after"]) if status == 429 else pause * (0.5 + chance.random()))
    line.close()
