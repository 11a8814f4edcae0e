"""How much memory and time `captune video` needs for a long film.

    python benchmarks/film_memory.py --minutes 60 --size 1280x720

Encodes two minutes of scenes that are drawn and pan, repeats them until the film is long enough, and captions it
with a tiny BLIP of random weights; prints the memory in use at each tenth of the way. What a real model adds is
its weights and the time of its captions.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import psutil
import torch
from PIL import Image

import captune
from captune.core.progress import Silent
from captune.models.blip import Blip

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from films import drawn

RATE, PART = 25, 120.0


def encode(path: Path, size: tuple[int, int], codec: str) -> None:
    """Two minutes: a scene of 4 seconds after another."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for scene in range(int(PART / 4)):
            wide = drawn(scene).resize((size[0] * 9 // 8, size[1]), Image.Resampling.BICUBIC)
            for number in range(4 * RATE):
                left = number * (wide.width - size[0]) // (4 * RATE)
                image = wide.crop((left, 0, left + size[0], size[1]))
                out.mux(stream.encode(av.VideoFrame.from_image(image)))
        out.mux(stream.encode(None))


def repeat(part: Path, path: Path, times: int) -> None:
    """The same packets again and again, each time later."""
    with av.open(str(path), "w") as out:
        copied = None
        for number in range(times):
            with av.open(str(part)) as source:
                stream = source.streams.video[0]
                copied = copied or out.add_stream_from_template(stream)
                shift = round(number * PART / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = copied
                        out.mux(packet)


class Watch(Silent):
    """Notes memory as the film goes by."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.done, self.seen = minutes, 0.0, []
        self.most, self.process, self.over = 0, psutil.Process(), threading.Event()
        threading.Thread(target=self._poll, daemon=True).start()

    def _poll(self) -> None:
        while not self.over.wait(0.05):
            self.most = max(self.most, self.process.memory_info().rss)

    def task(self, label: str, total: float | None = None) -> Watch:
        return self

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, steps: float = 1) -> None:
        self.done += steps
        if self.done >= (len(self.seen) + 1) * 6 * self.minutes:
            self.seen.append(self.process.memory_info().rss)

    def note(self, text: str) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--codec", default="libx264")
    asked = parser.parse_args()
    width, height = map(int, asked.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        part, path = Path(folder) / "part.mp4", Path(folder) / "film.mp4"
        encode(part, (width, height), asked.codec)
        repeat(part, path, max(1, round(asked.minutes * 60 / PART)))
        torch.manual_seed(0)
        Blip.tiny(("a dog runs", "two men ride a bike") * 3).save(Path(folder) / "model")
        watch = Watch(asked.minutes)
        before = watch.process.memory_info().rss
        start, busy = time.perf_counter(), time.process_time()
        (film,) = captune.video(
            path, model=f"{folder}/model", progress=watch, merge=False, num_beams=1, max_new_tokens=5, environment={}
        )
        took, busy = time.perf_counter() - start, time.process_time() - busy
        watch.over.set()
        megabytes = [round(each / 1e6) for each in watch.seen]
        print(f"film: {film.duration / 60:.1f} min, {asked.size}, {asked.codec}, {path.stat().st_size / 1e6:.0f} MB")
        print(f"scenes: {len(film.scenes)} of {round(film.duration / 4)}; status {film.status} {film.error or ''}")
        print(f"time: {took:.0f} s ({film.duration / took:.0f} times as fast as it plays), {busy:.0f} s of processors")
        print(f"memory: {before / 1e6:.0f} MB before, at each tenth {megabytes}, most {watch.most / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
