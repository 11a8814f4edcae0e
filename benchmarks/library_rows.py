"""A library of made-up images: rows by way of `captune library import`, files by way of hard links, random vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captune.library.library import Library
from captune.library.schema import VERSION
from captune.library.vectors import VectorFile

COMMON = "a in the on of and is with man two to woman dog white black people standing sitting at red snow"
SYLLABLES = "ba be bo da de do ga ge go ka ke ko la le lo ma me mo na ne no ra re ro sa se so ta te to"
# Words of a caption, and how often one is a long description.
LENGTH, LONG, LONG_SHARE = (11.0, 2.5), (60.0, 15.0), 0.05
# Links to one file: file systems allow some 65,000.
ORIGINALS = 500
IN_FOLDER = 1000
_AT_ONCE = 20_000
SIZE = 512


def words() -> list[str]:
    """28,000 words, the commonest first."""
    made = ["".join(each) for length in (2, 3) for each in product(SYLLABLES.split(), repeat=length)]
    return [*COMMON.split(), *np.random.default_rng(5).permutation(made).tolist()]


def captions(count: int, seed: int) -> Iterator[str]:
    """Captions whose words are as frequent as in plain English (Zipf-Mandelbrot) and that are as long as people's."""
    chance, vocabulary = np.random.default_rng(seed), np.array(words(), object)
    share = 1 / (np.arange(len(vocabulary)) + 2.7) ** 1.1
    bounds = np.cumsum(share / share.sum())
    for start in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - start)
        long = chance.random(some) < LONG_SHARE
        drawn = np.where(long, chance.normal(*LONG, some), chance.normal(*LENGTH, some))
        lengths = np.maximum(4, drawn.round()).astype(int)
        picked = vocabulary[np.minimum(np.searchsorted(bounds, chance.random(lengths.sum())), len(vocabulary) - 1)]
        for each in np.split(picked, np.cumsum(lengths)[:-1]):
            yield " ".join(each)


def link_files(photos: Path, originals: Path, count: int) -> list[os.stat_result]:
    """So many files in folders of a thousand, links to a few JPEG files; the states of those."""
    originals.mkdir()
    sources = []
    for number in range(ORIGINALS):
        sources.append(originals / f"{number}.jpg")
        draw(sources[-1], number)
    for number in range(count):
        path = photos / path_of(number)
        if number % IN_FOLDER == 0:
            path.parent.mkdir(parents=True)
        os.link(sources[number % ORIGINALS], path)
    return [os.stat(each) for each in sources]


def draw(path: Path, seed: int) -> None:
    """A small JPEG that no other seed has."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC).save(path, quality=80)


def path_of(number: int) -> str:
    return f"{number // IN_FOLDER:04d}/{number % IN_FOLDER:06d}.jpg"


def rows(count: int, states: list[os.stat_result]) -> Iterator[dict[str, Any]]:
    """Rows of an export: an image with a caption each (a tenth has a second one), keywords on every third."""
    yield {"captune_library": VERSION}
    chance = np.random.default_rng(3)
    for number in range(count):
        state = states[number % len(states)]
        yield {
            "table": "images", "id": number + 1, "path": path_of(number), "digest": f"{number:064x}",
            "bytes": state.st_size, "modified": state.st_mtime_ns, "width": 96, "height": 64,
            "hash": int(chance.integers(-(2**63), 2**63)), "added": "2026-01-01T00:00:00Z",
            "taken": f"20{10 + number % 16}-{1 + number % 12:02d}-{1 + number % 28:02d}T12:00:00",
        }  # fmt: skip
    for number, text in enumerate(captions(count + count // 10, 1)):
        image, person = number % count, number % 10 == 0
        yield {
            "table": "captions", "image": image + 1, "text": text, "written_by": "person" if person else "model",
            "model": "" if person else "Salesforce/blip-image-captioning-base",
            "confidence": None if person else round(float(chance.random()), 4),
            "flags": "repetition" if number % 50 == 1 else "", "written": "2026-01-01T00:00:00Z",
            "status": "approved" if person or number % 4 == 0 else "draft",
        }  # fmt: skip
    for number in range(0, count, 3):
        for keyword in {f"tag{int(each)}" for each in chance.zipf(1.5, 3) if each < 2000}:
            yield {"table": "keywords", "image": number + 1, "keyword": keyword}


def write_rows(path: Path, count: int, states: list[os.stat_result]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for row in rows(count, states):
            file.write(json.dumps(row) + "\n")


def add_vectors(folder: Path, count: int) -> None:
    """A random unit vector of `SIZE` numbers for each image."""
    file = VectorFile(Library(folder).database, "made up", "0", SIZE)
    chance = np.random.default_rng(2)
    for start in range(0, count, _AT_ONCE):
        some = chance.standard_normal((min(_AT_ONCE, count - start), SIZE)).astype(np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
        file.add(range(start + 1, start + 1 + len(some)), some)
