"""Photos through a server: a job of captune against a careful asyncio loop over the same photos.

    python benchmarks/bench_endpoint.py [--photos 400] [--seconds 0.2] [--concurrency 8 32]

The server is a stand-in in a process of its own that answers after so many seconds; how long a model takes is not
measured. The loop opens, turns, shrinks and encodes each photo as captune does, sends as many requests at a time, and
writes the same rows. Wall seconds, photos of Flickr8k ($CAPTUNE_TEST_DATA) or drawn scenes.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
from PIL import Image, ImageOps

from bench import Bench
from machine import paired, wall_seconds
from photos import photos

PROMPT = "Describe this image in one sentence."
ANSWER = {
    "choices": [{"message": {"content": "a dog runs on the beach"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 300, "completion_tokens": 7},
}


def serve(port: Connection, seconds: float) -> None:
    """A server that answers every request after so many seconds."""
    content = json.dumps(ANSWER).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(asked.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                await asyncio.sleep(seconds)
                writer.write(head + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 24)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def encode(file: Path, side: int = 1024) -> str:
    """A photo as an address with its JPEG in it."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()


async def loop(files: list[Path], url: str, out: Path, concurrency: int) -> None:
    """What a careful person would write."""
    slots = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency)

    async def caption(http: httpx.AsyncClient, file: Path) -> str:
        async with slots:
            image = await asyncio.to_thread(encode, file)
            content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": PROMPT}]
            messages = [{"role": "user", "content": content}]
            body = {"model": "m", "messages": messages, "max_tokens": 256, "temperature": 0}
            for attempt in range(5):
                answer = await http.post(f"{url}/chat/completions", json=body)
                if answer.status_code == httpx.codes.OK:
                    text = answer.json()["choices"][0]["message"]["content"]
                    return json.dumps({"image": str(file), "caption": text})
                await asyncio.sleep(2**attempt)
            raise RuntimeError(f"{file}: {answer.status_code}")

    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        rows = await asyncio.gather(*(caption(http, file) for file in files))
    out.mkdir()
    (out / "captions.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def by_loop(files: list[Path], url: str, out: Path, concurrency: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    asyncio.run(loop(files, url, out, concurrency))


def by_captune(folder: Path, url: str, out: Path, concurrency: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    words = ["caption", folder, "--model", f"openai:m@{url}", "--no-sight-check", "--concurrency", concurrency]
    words += ["--out", out, "--format", "jsonl", "--quiet"]
    subprocess.run([sys.executable, "-m", "captune", *map(str, words)], check=True)


def main() -> None:
    bench = Bench("endpoint", __doc__, "asyncio loop", ("captune", "httpx", "pillow"), repeats=3)
    bench.parser.add_argument("--photos", type=int, default=400)
    bench.parser.add_argument("--seconds", type=float, default=0.2)
    bench.parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 32])
    chosen = bench.begin()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, chosen.seconds), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}/v1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        files = [folder / f"{number:05}.jpg" for number in range(chosen.photos // (4 if chosen.quick else 1))]
        for number, (file, photo) in enumerate(zip(files, photos(len(files)), strict=True)):
            with Image.open(photo) as image:
                image.putpixel((0, 0), (number % 256, number // 256, 0))  # captune asks for equal images once
                image.save(file, quality=90)
        for concurrency in chosen.concurrency:
            outs = [Path(name) / kind for kind in ("loop", "captune")]
            both = paired(
                partial(by_loop, files, url, outs[0], concurrency),
                partial(by_captune, folder, url, outs[1], concurrency),
                chosen.repeats,
                wall_seconds,
            )
            bench.row(f"{len(files)} photos, {concurrency} requests at a time", both)
    bench.end()
    server.terminate()


if __name__ == "__main__":
    main()
