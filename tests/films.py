"""Films made for tests: images that move a little, cut where the test says."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIZE = (192, 108)
RATE = 12


def drawn(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """An image unlike those of other seeds: big shapes of all colours."""
    chance = random.Random(seed)

    def colour() -> tuple[int, int, int]:
        return (chance.randrange(256), chance.randrange(256), chance.randrange(256))

    image = Image.new("RGB", size, colour())
    pen = ImageDraw.Draw(image)
    for _ in range(9):
        x, y, r = chance.randrange(size[0]), chance.randrange(size[1]), chance.randrange(15, 45)
        (pen.ellipse if chance.random() < 0.5 else pen.rectangle)((x - r, y - r, x + r, y + r), fill=colour())
    return image


def shot(picture: Image.Image, seconds: float, rate: float = RATE, drift: float = 4.0) -> list[Image.Image]:
    """Frames of a camera that pans over an image by `drift` pixels a second."""
    wide = picture.resize((picture.width * 5 // 4, picture.height * 5 // 4))
    frames = []
    for number in range(round(seconds * rate)):
        left = min(int(drift * number / rate), wide.width - picture.width)
        frames.append(wide.crop((left, 5, left + picture.width, 5 + picture.height)))
    return frames


def faded(frames: Sequence[Image.Image], share: Callable[[float], float]) -> list[Image.Image]:
    """Frames made darker: `share` of their light at each moment (0–1) of their time."""
    last = max(len(frames) - 1, 1)
    return [Image.blend(Image.new("RGB", f.size), f, share(n / last)) for n, f in enumerate(frames)]


def write_film(
    path: Path,
    frames: Iterable[Image.Image],
    *,
    rate: int = RATE,
    codec: str = "mpeg4",
    times: Sequence[float] | None = None,
    start: float = 0.0,
    sound: bool = False,
    **settings: Any,
) -> Path:
    """Encode frames; at `times` seconds instead of evenly; everything `start` seconds later; with silence."""
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        stream: Any = None
        for number, image in enumerate(frames):
            if stream is None:
                stream = out.add_stream(codec, rate=rate)
                stream.width, stream.height = image.size
                stream.pix_fmt = "yuv420p"
                stream.bit_rate = 2_000_000
                base = Fraction(1, rate if times is None else 1000)
                stream.time_base = stream.codec_context.time_base = base
                for name, value in settings.items():
                    setattr(stream.codec_context, name, value)
                voice: Any = out.add_stream("aac", rate=16000) if sound else None
            frame = av.VideoFrame.from_image(image)
            at = number / rate if times is None else times[number]
            frame.pts, frame.time_base = round((at + start) / base), base
            out.mux(stream.encode(frame))
        if voice:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts = 16000, 0
            out.mux(voice.encode(silence))
            out.mux(voice.encode(None))
        out.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Two seconds of silence."""
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        voice: Any = out.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.int16), format="s16", layout="mono")
        silence.sample_rate = 16000
        out.mux(voice.encode(silence))
        out.mux(voice.encode(None))
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Write a display matrix (a, b, c, d) into an MP4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (65536 * value for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
