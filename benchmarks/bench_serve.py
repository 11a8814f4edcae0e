"""`captune serve` under load, and against FastAPI with `model.generate` in each request.

    python benchmarks/bench_serve.py [--seconds 60] [--clients 200] [--threads 2]

A BLIP with random weights. First many clients who come again when told to (429): every answer has to be right for its
image. Then the same with clients that leave, send half a body, bombs and garbage; memory and open files of the server
before and after. Last the throughput of both servers in turn, 32 clients, 3 beams, 20 tokens; rows are seconds of wall
time for each answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import torch

from bench import Bench
from machine import Paired
from serve_load import Seen, asking, load, pictures

OPTIONS = {"num_beams": 3, "max_new_tokens": 20}
TEXTS = [f"a {colour} {shape} on a {ground}" for colour in ("red", "blue", "green") for shape in ("circle", "square")
         for ground in ("field", "street", "table")]  # fmt: skip


def main() -> None:
    bench = Bench("serve", __doc__, "naive FastAPI", ("captune", "torch", "transformers", "fastapi"), repeats=3)
    bench.parser.add_argument("--seconds", type=float, default=60.0, help="Length of each load.")
    bench.parser.add_argument("--clients", type=int, default=200)
    bench.parser.add_argument("--sizes", nargs="+", default=["tiny", "demo"], help="Sizes for the comparison.")
    bench.parser.add_argument("--naive", nargs=2, metavar=("FOLDER", "PORT"), help="Run the other server.")
    asked = bench.parser.parse_args()
    if asked.naive:
        _naive(asked.naive[0], int(asked.naive[1]))
        return
    asked = bench.begin()
    seconds = min(asked.seconds, 5.0) if asked.quick else asked.seconds
    with tempfile.TemporaryDirectory() as kept:
        folders = {size: save(Path(kept), size) for size in dict.fromkeys(("tiny", *asked.sizes))}
        _loads(folders["tiny"], asked.clients, seconds, min(asked.threads))
        for threads in asked.threads:
            for size in asked.sizes:
                both = _both(folders[size], threads, asked.repeats, min(seconds, 15.0))
                bench.row(f"{threads} threads, blip-{size}", both)
    bench.end()


def save(kept: Path, size: str) -> str:
    """A model on disk whose captions depend on the picture."""
    from captune.models.blip import Blip

    torch.manual_seed(1)
    blip = Blip.new(size, TEXTS)
    with torch.no_grad():
        for name, parameter in blip.model.named_parameters():
            if parameter.dim() == 2 and "embeddings" not in name:
                parameter.mul_(10 if "vision" in name or "crossattention" in name else 6)
    blip.save(kept / size)
    return str(kept / size)


@contextmanager
def served(
    *command: str,
    threads: int,
    environment: Mapping[str, str] = MappingProxyType({}),
    log: int | IO[bytes] = subprocess.DEVNULL,
    before: Callable[[], None] | None = None,
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server as a process of its own, and its port; `before` is called in it, `log` gets its stderr."""
    with free() as port:
        process = subprocess.Popen(
            [sys.executable, *(part.format(port=port) for part in command)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment},
            stderr=log,
            preexec_fn=before,
        )
        try:
            for _ in range(600):
                try:
                    get(port, "/health/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            yield process, port
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def free() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield port


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def _captune(folder: str, *more: str) -> tuple[str, ...]:
    flags = ("--device", "cpu", "--precision", "fp32", "--no-access-log", "--quiet")
    return ("-m", "captune", "serve", "--model", folder, "--port", "{port}", *flags, *more)


def _loads(folder: str, clients: int, seconds: float, threads: int) -> None:
    """Prints what many clients see, and what is left behind in the server."""
    import captune

    photos = pictures(50, 64)
    alone = captune.Captioner.load(folder, device="cpu", precision="fp32")
    right = [[caption.text for caption in alone.captions(photo, **OPTIONS)] for photo in photos]
    asked = [asking(photo, OPTIONS) for photo in photos]
    print(f"{len({tuple(said) for said in right})} different captions of {len(photos)} images; {threads} threads")
    with served(*_captune(folder, "--max-batch", "16"), threads=threads) as (server, port):
        process = server.pid
        asyncio.run(
            load(port, clients, min(5.0, seconds), asked, right, rough=True)
        )  # everything once, before counting
        for name, rough in (("well-behaved", False), ("with rough ones", True)):
            before = _held(process)
            seen = asyncio.run(load(port, clients, seconds, asked, right, rough))
            time.sleep(2)
            _show(f"{clients} clients, {name}, {seconds:g} s", seen, seconds)
            after = _held(process)
            print(f"  server: {before[0]:.0f} MB, {before[1]} open files before; {after[0]:.0f} MB, {after[1]} after")
        _batches(get(port, "/metrics"))


def _show(name: str, seen: Seen, seconds: float) -> None:
    print(f"\n{name}: {len(seen.seconds) / seconds:.0f} captions a second, {seen.wrong} wrong")
    print(f"  p50 {1000 * seen.quantile(0.5):.0f} ms, p95 {1000 * seen.quantile(0.95):.0f} ms")
    print("  " + ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses.items())), flush=True)
    bad = [status for status in seen.statuses if re.fullmatch(r"(.*: )?5\d\d|\w*Error", status)]
    if seen.wrong or bad or {status for status in seen.statuses if status.isdigit()} - {"200", "429"}:
        sys.exit(f"wrong answers, or others than 200 and 429: {bad}")


def _held(process: int) -> tuple[float, int]:
    """Megabytes of memory, and open files."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1e3, len(os.listdir(f"/proc/{process}/fd"))


def _batches(metrics: str) -> None:
    found = {
        match[1]: float(match[2])
        for match in re.finditer(r'captune_batch_pictures_bucket\{le="([\d.+Inf]+)".*?\} ([\d.e+]+)', metrics)
    }
    total, before, parts = found["+Inf"], 0.0, []
    for size, count in found.items():
        if count > before:
            parts.append(f"up to {float(size):g}: {100 * (count - before) / total:.0f} %")
        before = count
    pictures = float(re.search(r"captune_batch_pictures_sum\{.*?\} ([\d.e+]+)", metrics)[1])  # type: ignore[index]
    print(f"\nbatches: {pictures / total:.1f} images on average ({', '.join(parts)})", flush=True)


def _both(folder: str, threads: int, repeats: int, seconds: float) -> Paired:
    """Wall seconds of an answer by the naive server and by captune, in turn."""
    asked = [asking(photo, OPTIONS) for photo in pictures(50, 64)]
    sides: tuple[list[float], list[float]] = ([], [])
    naive = (__file__, "--naive", folder, "{port}")
    for side, command in zip(sides, (naive, _captune(folder, "--max-batch", "16")), strict=True):
        with served(*command, threads=threads) as (_, port):
            asyncio.run(load(port, 32, 2.0, asked, None, rough=False))
            for _ in range(repeats):
                seen = asyncio.run(load(port, 32, seconds, asked, None, rough=False))
                side.append(seconds / max(1, len(seen.seconds)))
    return Paired(*map(tuple, sides))


def _naive(folder: str, port: int) -> None:
    """What one would write first: each request opens its image and calls `generate`."""
    import base64
    import io

    import uvicorn
    from fastapi import Body, FastAPI
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor, tokenizer = BlipImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    app = FastAPI()

    @app.get("/health/ready")
    def ready() -> str:
        return "ready"

    @app.post("/v1/caption")
    def caption(image: str = Body(), num_beams: int = Body(), max_new_tokens: int = Body()) -> dict[str, object]:
        photo = Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
        pixels = processor(photo, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            tokens = model.generate(pixel_values=pixels, num_beams=num_beams, max_new_tokens=max_new_tokens)
        return {"captions": [{"text": text} for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    main()
