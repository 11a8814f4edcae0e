"""A job through a server, killed again and again: rows that are there, and requests that the server got.

    python benchmarks/endpoint_kills.py --model 'openai:/models/llava@http://127.0.0.1:8977' --photos 500 --kills 20

The requests are counted by a proxy between captune and the server. SIGKILL comes whenever another share of the photos
has been asked for; the same command goes on, and the last one is left to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from captune.core.endpoints import parse_endpoint
from machine import machine
from photos import small_photos

REQUEST = b"/chat/completions HTTP/1.1\r\n"


class CountingProxy:
    """Hands bytes on to a server, and counts the completions that are asked for."""

    def __init__(self, url: str) -> None:
        self._server = urllib.parse.urlsplit(url)
        self.requests = self.port = 0
        self._ready = threading.Event()
        threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._server.hostname, self._server.port)
        await asyncio.gather(self._hand_on(reader, there[1], counts=True), self._hand_on(there[0], writer))

    async def _hand_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False
    ) -> None:
        end = b""  # of the block before: what is counted may stand in two
        try:
            while block := await reader.read(1 << 16):
                self.requests += counts * (end + block).count(REQUEST)
                end = block[1 - len(REQUEST) :]
                writer.write(block)
                await writer.drain()
        except ConnectionError:
            pass  # a killed job hangs up
        finally:
            writer.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=2)
    chosen = parser.parse_args()
    print(machine("captune", "transformers", "httpx"), flush=True)
    endpoint = parse_endpoint(chosen.model)
    proxy = CountingProxy(endpoint.url)
    url = urllib.parse.urlsplit(endpoint.url)._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "photos", Path(name) / "captions"
        small_photos(folder, chosen.photos)
        words = [
            "caption",
            folder,
            "--model",
            f"openai:{endpoint.model}@{url}",
            "--no-sight-check",
            "--format",
            "jsonl",
        ]
        words += ["--max-new-tokens", 12, "--shard-size", 100, "--concurrency", chosen.concurrency, "--out", out]
        command = [sys.executable, "-m", "captune", *map(str, words), "--quiet"]
        killed = 0
        for kill in range(chosen.kills):
            job = subprocess.Popen(command)
            while proxy.requests < (kill + 1) * chosen.photos / (chosen.kills + 1) and job.poll() is None:
                time.sleep(0.01)
            killed += job.poll() is None
            job.kill()
            job.wait()
        subprocess.run(command, check=True)
        rows = [json.loads(line) for file in sorted(out.glob("*.jsonl")) for line in file.open(encoding="utf-8")]
    images, failed = {row["image"] for row in rows}, sum(row["status"] == "error" for row in rows)
    print(
        f"{chosen.photos} photos, {killed} kills: {len(rows)} rows of {len(images)} images, {failed} failed, "
        f"{proxy.requests} requests"
    )


if __name__ == "__main__":
    main()
