"""A captioner without a model, and jobs that are killed: `python jobs.py KILL_AT FOLDER OUT [OPTION=VALUE…]`."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import captune
from captune.captions.prompts.choice import prompts_of
from captune.core.config import resolve
from captune.core.records import Caption
from captune.decoding.encoding import TextCodec
from captune.images.preprocessing import Preprocessing
from captune.inference.captioner import Captioner
from captune.inference.prompting import ImagePrompts
from captune.jobs.job import JobReport
from noise import noise

COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250), "white": (255, 255, 255)}


PREPROCESSING = Preprocessing(16)


CODEC = TextCodec(lambda text: [], lambda tokens: "", 0, 0, 100, "")


@dataclass
class FakeModel:
    family: str = "fake"
    pixels: Preprocessing = PREPROCESSING
    generation: dict[str, Any] = field(default_factory=dict)
    codec: TextCodec = CODEC


class FakeCaptioner:
    """Says the colour of an image; `most` images have room in a batch."""

    def __init__(self, name: str, config: Any, most: int = 1000) -> None:
        self.name, self.model, self.options, self.most = name, FakeModel(), config.values, most
        self.batches: list[int] = []

    def prompts(self, values: Any = None, choices: Any = None) -> ImagePrompts:
        return ImagePrompts(prompts_of(self.options, "", choices), CODEC, self.options.generation)

    def generate(self, seen: np.ndarray, options: Any, prompts: Any) -> list[list[Caption]]:
        self.batches.append(len(seen))
        if len(seen) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")
        return [say(image) for image in seen]

    def translator(self, values: Any) -> None:
        return None


def say(picture: np.ndarray) -> list[Caption]:
    mean = picture.reshape(3, -1).mean(axis=1)
    colour = min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))
    return [Caption(f"a picture of something that is {colour}", float(mean.sum() / 765))]


def fake_loading(**settings: Any) -> list[FakeCaptioner]:
    """Let `Captioner.load` give captioners without a model; they join the list as they are loaded."""
    loaded: list[FakeCaptioner] = []

    def load(model: str, *, config: Any = None, **options: Any) -> FakeCaptioner:
        loaded.append(FakeCaptioner(model, config or resolve("caption", flags=options), **settings))
        return loaded[-1]

    Captioner.load = load  # type: ignore[method-assign, assignment]
    return loaded


OPTIONS: dict[str, Any] = {"shard_size": 8, "batch_size": 3, "workers": 1}


def job(out: str = "out", inputs: Any = "pics", **options: Any) -> JobReport:
    return captune.caption_job(inputs, out, **{"model": "model", **OPTIONS, **options})


def rows(out: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for shard in sorted(Path(out).glob("*.jsonl")) for line in shard.read_text().splitlines()]


def model_folder(folder: Path) -> Path:
    """What names a model without being one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def pictures(folder: Path, count: int, bad: tuple[int, ...] = ()) -> Path:
    """`count` images, those of the numbers `bad` cut off."""
    folder.mkdir(parents=True)
    for number in range(count):
        colour = list(COLOURS.values())[number % len(COLOURS)]
        image = noise((24 + number % 5, 20), 30, number).convert("RGB")
        image.paste(colour, (2, number % 7, 22, 18))
        path = folder / f"{number:03}.png"
        image.save(path)
        if number in bad:
            path.write_bytes(path.read_bytes()[:60])
    return folder


def killing_at(step: int) -> None:
    """Die, as of SIGKILL, when the process is about to put its file number `step` (from 0) into its place."""
    rename, left = os.replace, [step]

    def replace(*given: Any, **more: Any) -> None:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        rename(*given, **more)

    os.replace = replace


if __name__ == "__main__":
    fake_loading()
    killing_at(int(sys.argv[1]))
    given: dict[str, Any] = dict(pair.split("=") for pair in sys.argv[4:])
    given = {name: int(value) if value.isdigit() else value for name, value in given.items()}
    captune.caption_job(sys.argv[2], sys.argv[3], **given)
