"""Attacks on a running `captune serve`, each at a rate of its own, from addresses that are not the honest clients'.

    python benchmarks/soak_attacks.py --port 8000 --key KEY [--seconds 60] [--only slow-jpeg,bomb] [--list]

`soak.py` starts it beside honest clients. It is one process with one event loop; bodies are made before the first
attack. Attacks come a bounded number of times a minute and wait for one another of their kind, so that the work they
cause is the server's, not the attacker's: what is measured is whether the server lets one body, image or connection
stand for all of its time, not whether two cores can serve a crowd without limit. Prints JSON: for each attack how
often each answer came, and the longest time in seconds that `/health/live` took meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from serve_load import pictures, request
from soak_bodies import Attack, Line, Target, bodies, captioned, image, images, keyed, once, sent, stream

PATIENCE = 90.0
URLS = (
    *("http://127.0.0.1:{port}/metrics", "http://2130706433:{port}/", "http://0x7f.1:{port}/", "http://[::1]:{port}/"),
    *("http://[::ffff:127.0.0.1]:{port}/", "http://0:{port}/", "http://169.254.169.254/latest/meta-data/"),
    *("http://127.1:{port}/", "http://0177.0.0.1:{port}/", "http://localhost:{port}/", "http://10.0.0.1/a.png"),
    *("HTTP://127.0.0.1:{port}\\@example.com/", "http://user:pass@127.0.0.1:{port}/", "http://127.0.0.1:{port}/%0d%0a"),
    *("http://[fe80::1%25lo]/", "http://①②⑦.⓪.⓪.①:{port}/", "http:///etc/passwd", "http://127.0.0.1:99999/"),
)
VALUES: tuple[dict[str, Any], ...] = (
    *({"sample": True, "temperature": value} for value in (1e-38, 1e308, 0, -1, "hot", 1e-300)),
    *({"sample": True, "sample_seed": value} for value in (2**64, 2**63, -1, 1.5, 10**400)),
    *({"num_beams": value} for value in (0, -3, 2**31, 10**30, "3; drop")),
    *({"max_new_tokens": value} for value in (0, 10**9, 4096)),
    *({"sample": True, "top_p": value} for value in (0, 1e-45, 5)),
    *({"num_captions": 64, "num_beams": 64, "max_new_tokens": 512}, {"repetition_penalty": 1e-40}),
    *({"prompt": "a" * 3_999}, {"prompt": "\x00\ud83d"}, {"model": "../../etc/passwd"}, {"language": "xx"}),
)


# -- connections -------------------------------------------------------------------------------------------------------


def dripping(head: Callable[[Target], bytes], drop: bytes, pause: float) -> Attack:
    """A head, or a part of it, then a few bytes now and then until the server closes."""

    async def attack(target: Target, chance: random.Random) -> str:
        async with Line(target.port, chance) as (reader, writer):
            started = time.monotonic()
            writer.write(head(target))
            answer = asyncio.ensure_future(reader.readline())
            while not answer.done():
                writer.write(drop)
                await asyncio.wait([answer], timeout=pause)
            status = answer.result().decode("latin-1").split(" ")[1:2]
            return f"{'-'.join(status) or 'closed'} within {10 * (1 + int((time.monotonic() - started) / 10))} s"

    return attack


def crowd(count: int, seconds: float, first: bytes) -> Attack:
    """So many connections at once that say hardly anything."""

    async def one(target: Target, chance: random.Random) -> str:
        async with Line(target.port, chance) as (reader, writer):
            writer.write(first)
            try:
                async with asyncio.timeout(seconds):
                    return (await reader.readline()).decode("latin-1").split(" ")[1]
            except IndexError:
                return "closed"
            except TimeoutError:
                return "open"

    async def attack(target: Target, chance: random.Random) -> str:
        found = await asyncio.gather(*(one(target, chance) for _ in range(count)), return_exceptions=True)
        words = Counter(each if isinstance(each, str) else type(each).__name__ for each in found)
        return " ".join(f"most {word}" for word, _ in words.most_common(1))

    return attack


_ESTABLISHED = 1  # Linux's TCP_ESTABLISHED


def stalled(what: Callable[[Target], bytes], times: int) -> Attack:
    """Many requests on one connection whose answers are not read."""

    async def attack(target: Target, chance: random.Random) -> str:
        started = time.monotonic()
        async with Line(target.port, chance, narrow=True) as (_, writer):
            try:
                async with asyncio.timeout(60):
                    for _ in range(times):
                        writer.write(what(target))
                        await writer.drain()
                    # What is not read hides the end of the connection from asyncio, but not from the system.
                    line = writer.get_extra_info("socket")
                    while line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
                        await asyncio.sleep(1)
            except TimeoutError:
                return "open after 60 s"
            return "closed within 30 s" if time.monotonic() - started <= 30 else "closed later"

    return attack


def leaving(target_body: Callable[[Target], bytes], share: float) -> Attack:
    """A part of a request, or the whole of it, and gone."""

    async def attack(target: Target, chance: random.Random) -> str:
        data = target_body(target)
        async with Line(target.port, chance) as (_, writer):
            writer.write(data[: int(share * len(data))])
            await asyncio.sleep(chance.random() * 0.2)
        return "left"

    return attack


def connections() -> Iterator[tuple[str, float, Attack]]:
    """Heads and bodies that dawdle, readers that stall, crowds, clients that leave."""
    half = b"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\n"
    yield "heads that dawdle", 60, dripping(lambda target: half, b"X-A: b\r\n", 1.0)
    slow = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\nContent-Type: application/json\r\n"

    def head(path: str, target: Target | None) -> bytes:
        key = f"Authorization: Bearer {target.key}\r\n" if target else ""
        return (slow.format(path) + key + "\r\n").encode()

    yield "bodies that dawdle, with a key", 60, dripping(lambda target: head("/v1/caption", target), b" ", 0.5)
    yield "bodies that dawdle, without", 60, dripping(lambda target: head("/v1/caption", None), b" ", 0.5)
    yield "bodies to /health/live", 30, dripping(lambda target: head("/health/live", None), b" ", 0.5)
    yield "20 MB without a key", 12, once(lambda target: head("/v1/caption", None) + bytes(20_000_000))
    yield "crowds of connections", 2, crowd(300, 15, b"")
    yield "crowds of half heads", 1, crowd(300, 15, half)
    page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
    yield "readers that stall", 6, stalled(lambda target: page % target.key.encode(), 200)
    photo = pictures(1, 64)[0]
    streaming = keyed(stream(photo), "/v1/chat/completions")
    yield "stalled streams", 6, stalled(streaming, 4)
    plain = image(photo)
    for name, share in (("leaving in the middle", 0.5), ("leaving before the answer", 1.0)):
        yield name, 60, leaving(plain, share)
    yield "leaving streams", 30, leaving(streaming, 1.0)


# -- requests ----------------------------------------------------------------------------------------------------------


def requests() -> Iterator[tuple[str, float, Attack]]:
    """Keys, addresses, options and requests that are wrong."""
    photo = pictures(1, 48)[0]
    body = captioned(photo)
    yield "no key", 120, once(lambda target: request(body))
    guesses = iter(range(10**9))
    yield "wrong keys", 600, once(lambda target: request(body, more={"Authorization": f"Bearer {next(guesses)}"}))
    yield "options out of range", 60, once(*(image(photo, **each) for each in VALUES))
    odd = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null", b"[]", b'"1"')
    numbers = [body[:-1] + b',"sample":true,"temperature":' + each + b"}" for each in odd]
    yield "numbers that are none", 30, once(*map(keyed, numbers))
    yield (
        "addresses within",
        60,
        once(
            *(
                lambda target, url=url: request(
                    json.dumps({"image": url.format(port=target.port)}).encode(), more=target.known
                )
                for url in URLS
            )
        ),
    )
    raw = (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"POST /v1/ask HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        b"POST /v1/caption HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/caption HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nabcde",
        b"POST /v1/caption HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 20_000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5_000)) + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: \x1b[31m\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64),
    )
    yield "bytes that are no request", 60, once(*(lambda target, data=data: data for data in raw))


def attacks() -> dict[str, tuple[float, Attack]]:
    """By name: how often a minute, and what is done."""
    found = {}
    for kind in (bodies, images, connections, requests):
        found.update({name: (rate, attack) for name, rate, attack in kind()})
    return found


# -- all at once -------------------------------------------------------------------------------------------------------

# Of those that take their time so many are under way at most, of others one at a time.
_AT_ONCE = {"dawdle": 40, "stall": 20, "bodies to": 20}


async def repeat(name: str, rate: float, attack: Attack, target: Target, end: float, seen: Counter[str]) -> None:
    """An attack `rate` times a minute, none of which starts while too many of its kind are under way."""
    chance = random.Random(name)
    most = next((number for part, number in _AT_ONCE.items() if part in name), 1)
    places = asyncio.Semaphore(most)
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                seen[await attack(target, chance)] += 1
        except TimeoutError:
            seen[f"nothing within {PATIENCE:g} s"] += 1
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:  # closed while it was being written to
            seen[type(error).__name__] += 1
        finally:
            places.release()

    await asyncio.sleep(chance.random() * min(10.0, 60 / rate))
    due = time.monotonic()
    while time.monotonic() < end:
        await places.acquire()
        task = asyncio.create_task(one())
        running.add(task)
        task.add_done_callback(running.discard)
        due = max(due + 60 / rate, time.monotonic())
        await asyncio.sleep(min(due, end) - time.monotonic())
    for task in list(running):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def longest_silence(target: Target, end: float) -> float:
    """The longest time that /health/live took, tried twice a second."""
    longest = 0.0
    while time.monotonic() < end:
        started = time.monotonic()
        status = await sent(target, random.Random(0), b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        longest = max(longest, time.monotonic() - started if status == "200" else PATIENCE)
        await asyncio.sleep(0.5)
    return longest


async def attacked(target: Target, seconds: float, chosen: dict[str, tuple[float, Attack]]) -> dict[str, Any]:
    """All of them at once; how often each answer came."""
    end = time.monotonic() + seconds
    seen: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    silence, *_ = await asyncio.gather(
        longest_silence(target, end),
        *(repeat(name, rate, attack, target, end, seen[name]) for name, (rate, attack) in chosen.items()),
    )
    return {"attacks": seen, "silence": silence}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--key", default="", help="A key that the server knows.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", help="Names of attacks with commas between them.")
    parser.add_argument("--list", action="store_true", help="Name the attacks and how often a minute they come.")
    asked = parser.parse_args()
    found = attacks()
    if asked.list:
        print("\n".join(f"{rate:4g} a minute: {name}" for name, (rate, _) in found.items()))
        return
    os.nice(5)  # attackers have machines of their own; this one is lent to the server and its honest clients
    chosen = {name: found[name] for name in (asked.only.split(",") if asked.only else found)}
    print("ready", flush=True)
    print(json.dumps(asyncio.run(attacked(Target(asked.port, asked.key), asked.seconds, chosen))), flush=True)


if __name__ == "__main__":
    main()
