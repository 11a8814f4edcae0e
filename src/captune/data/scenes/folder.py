"""Scenes as an ordinary Flickr8k folder, with what is on each picture beside it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, disk_error, write_jsonl, write_text
from captune.core.parsed import parse_json
from captune.core.progress import SILENT, Progress, track
from captune.data.scenes.drawing import render_scene
from captune.data.scenes.wording import references
from captune.data.scenes.world import Scene, held_out_scenes, training_scenes

IMAGES = "Images"
CAPTIONS = "captions.txt"
SCENES = "scenes.jsonl"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


@dataclass(frozen=True)
class SceneFolder:
    """A folder of scenes: where it is and how many pictures each split has."""

    path: Path
    pictures: dict[str, int]


def write_flickr8k_folder(
    out: str | os.PathLike[str],
    *,
    train: int,
    dev: int,
    test: int,
    seed: int = 42,
    size: int = 96,
    progress: Progress = SILENT,
) -> SceneFolder:
    """Draw scenes into `out` as Flickr8k comes: `Images/`, `captions.txt` and the three split files.

    Train and dev show the same combinations, test only pairs that neither ever shows.
    `scenes.jsonl` beside them says what is on each picture. Pictures are JPEG files of
    `size` × `size` pixels; the same numbers and seed give the same folder.
    """
    folder = Path(out)
    planned = {
        "train": list(training_scenes(train, seed=seed)),
        "dev": list(training_scenes(dev, seed=seed + 1)),
        "test": list(held_out_scenes(test, seed=seed)),
    }
    named = [
        (split, f"{split}_{i:05d}.jpg", scene) for split, drawn in planned.items() for i, scene in enumerate(drawn)
    ]
    try:
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            saved = pool.map(lambda one: _save(one[2], folder / IMAGES / one[1], size), named)
            for _ in track(saved, progress, "Drawing scenes", len(named)):
                pass
    except OSError as error:
        raise disk_error(error, folder) from error
    with atomic_file(folder / CAPTIONS, newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image", "caption"))
        rows.writerows((name, sentence) for _, name, scene in named for sentence in references(scene))
    for split, file_name in SPLIT_FILES.items():
        write_text(folder / file_name, "".join(f"{name}\n" for of, name, _ in named if of == split))
    write_jsonl(folder / SCENES, (_row(name, scene) for _, name, scene in named))
    return SceneFolder(folder, {split: len(drawn) for split, drawn in planned.items()})


def read_scenes(folder: str | os.PathLike[str]) -> dict[str, Scene]:
    """The scene of each picture by its file name, as `scenes.jsonl` has them."""
    path = Path(folder) / SCENES
    try:
        return dict(_scenes(path))
    except OSError as error:
        raise CaptuneError(f"Cannot read {path}: {error.strerror}.", "Draw the scenes again.") from error


def _save(scene: Scene, path: Path, size: int) -> None:
    render_scene(scene, size).save(path, quality=92)


def _row(name: str, scene: Scene) -> dict[str, object]:
    return {
        "image": name,
        "objects": [list(one) for one in scene.names],
        "relation": scene.relation,
        "count": scene.count,
        "seed": scene.seed,
    }


def _scenes(path: Path) -> Iterator[tuple[str, Scene]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = parse_json(line)
            names = tuple((str(color), str(shape)) for color, shape in row["objects"])
            yield row["image"], Scene(names, row["relation"], row["count"], row["seed"])
