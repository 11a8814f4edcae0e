"""Built-in scenes: coloured shapes with five references each, for a first training without downloads."""

import colorsys
import csv
import math
import os
import random
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from captune.core.errors import CaptuneError
from captune.core.files import atomic_file, disk_error, write_jsonl, write_text
from captune.core.files.limits import parse_json
from captune.core.progress import SILENT, Progress, track

COLORS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
COUNTS = (1, 2, 3)

Name = tuple[str, str]
"""What an object is called: its colour and its shape."""

OBJECTS: tuple[Name, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)


@dataclass(frozen=True, slots=True)
class ShapeScene:
    """One object, two or three equal ones, or two different ones with a relation.

    With two names `relation` says where the first is as seen from the second and `count`
    is 1; with one name `relation` is None and `count` says how many of it there are.
    `seed` fixes everything else: places, sizes, shades, background and wording.
    """

    names: tuple[Name, ...]
    relation: str | None
    count: int
    seed: int


PAIRS = tuple((one, other) for one in OBJECTS for other in OBJECTS if one != other)


def is_evaluation_pair(one: Name, other: Name) -> bool:
    """Whether these two objects appear together in test images only, whatever their relation.

    21 of the 105 pairs are. Each object, colour and shape still appears in training, beside
    others: what a model must have learned is to name what it sees, not which go together.
    """
    return (OBJECTS.index(one) + OBJECTS.index(other)) % len(COLORS) == 2


def training_scenes(count: int, *, seed: int) -> Iterator[ShapeScene]:
    """Draw `count` scenes without held-out pairs: in turn two of two objects, then one of one to three equal ones."""
    chance = random.Random(f"training scenes {seed}")
    pairs = [pair for pair in PAIRS if not is_evaluation_pair(*pair)]
    for index in range(count):
        if index % 3 < 2:
            yield ShapeScene(chance.choice(pairs), chance.choice(RELATIONS), 1, chance.getrandbits(48))
        else:
            yield ShapeScene((chance.choice(OBJECTS),), None, chance.choice(COUNTS), chance.getrandbits(48))


def evaluation_scenes(count: int, *, seed: int) -> Iterator[ShapeScene]:
    """Draw `count` scenes of two objects that training never shows together."""
    chance = random.Random(f"held-out scenes {seed}")
    pairs = [pair for pair in PAIRS if is_evaluation_pair(*pair)]
    for _ in range(count):
        yield ShapeScene(chance.choice(pairs), chance.choice(RELATIONS), 1, chance.getrandbits(48))


NUMBERS = {1: "one", 2: "two", 3: "three"}

# {a} and {b} are objects such as "red circle"; {says} is their relation, {at_a} and {at_b} say where each is by itself.
PAIR_WORDINGS = (
    "a {a} {says} a {b}",
    "one {a} {says} one {b}",
    "the {a} is {says} the {b}",
    "there is a {a} {says} a {b}",
    "{a} {at_a} and {b} {at_b}",
    "a {a} {at_a} with a {b} {at_b}",
)
ONE_WORDINGS = ("a {a}", "one {a}", "there is a {a}", "the {a} is alone", "a {a} on its own")
SOME_WORDINGS = ("{n} {a}s", "there are {n} {a}s", "the {n} {a}s", "a group of {n} {a}s", "{n} {a}s together")
AT = {"left of": "on the left", "right of": "on the right", "above": "on top", "below": "at the bottom"}

REFERENCES = 5


def references(scene: ShapeScene) -> tuple[str, ...]:
    """Five differently worded, true sentences about a scene."""
    chance = random.Random(f"words {scene.seed}")
    wordings = _wordings(scene)
    return tuple(_sentence(scene, w, swap=chance.random() < 0.5) for w in chance.sample(wordings, REFERENCES))


def objects_named(caption: str, objects: Iterable[Name]) -> bool:
    """Whether a caption names exactly these objects, each once, with its own colour and shape.

    A colour without a shape, a shape without a colour, an object too many or too few, or
    colours that changed places make it False.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    named: list[Name] = []
    color = None
    for word in words:
        shape = word.removesuffix("s")
        if shape in SHAPES:
            if color is None:
                return False
            named.append((color, shape))
            color = None
        elif color is not None:
            return False
        elif word in COLORS:
            color = word
    return color is None and sorted(named) == sorted(objects)


def all_true(caption: str, scene: ShapeScene) -> bool:
    """Whether a caption is one of the sentences that are true of the scene: objects, relation and count."""
    swaps = (False, True) if scene.relation else (False,)
    true = (_sentence(scene, wording, swap=swap) for wording in _wordings(scene) for swap in swaps)
    return " ".join(caption.lower().split()) in true


def _wordings(scene: ShapeScene) -> tuple[str, ...]:
    if scene.relation:
        return PAIR_WORDINGS
    return ONE_WORDINGS if scene.count == 1 else SOME_WORDINGS


def _sentence(scene: ShapeScene, wording: str, *, swap: bool) -> str:
    if scene.relation is None:
        return wording.format(a=" ".join(scene.names[0]), n=NUMBERS[scene.count])
    first, second = scene.names
    relation = scene.relation
    if swap:
        first, second, relation = second, first, OPPOSITE[relation]
    return wording.format(
        a=" ".join(first), b=" ".join(second), says=relation, at_a=AT[relation], at_b=AT[OPPOSITE[relation]]
    )


# Hue ranges in degrees. Objects are saturated, backgrounds pale, so the two never meet.
HUES = {"red": (-10, 8), "yellow": (50, 60), "green": (105, 140), "blue": (212, 235), "purple": (275, 300)}
OBJECT_SATURATION = (0.75, 1.0)
OBJECT_VALUE = (0.7, 1.0)
BACKGROUND_SATURATION = (0.0, 0.2)
BACKGROUND_VALUE = (0.8, 1.0)
SUPERSAMPLING = 3
# Shares of the image's side.
GRID = 3
JITTER = 0.025
RADIUS = (0.11, 0.14)
SIDES = {"left of": (0, 1), "right of": (2, 1), "above": (1, 0), "below": (1, 2)}

Color = tuple[int, int, int]
Point = tuple[float, float]


def render_scene(scene: ShapeScene, size: int = 96) -> Image.Image:
    """Draw a scene as an RGB image of `size` × `size` pixels; the same scene, the same pixels."""
    chance = random.Random(scene.seed)
    image = _background(chance, size)
    for name, place, radius in zip(scene.names * scene.count, *_layout(scene, chance), strict=True):
        _draw(image, chance, name, place, radius)
    return image


def _layout(scene: ShapeScene, chance: random.Random) -> tuple[list[Point], list[float]]:
    """Centres and radii as shares of the image's side.

    Objects stand near the middles of a 3 × 3 grid's cells: related ones on opposite sides
    of the image's middle, equal ones anywhere.
    """
    if scene.relation is None:
        cells = chance.sample([(column, row) for column in range(GRID) for row in range(GRID)], scene.count)
    else:
        cells = [SIDES[scene.relation], SIDES[OPPOSITE[scene.relation]]]
    places = [
        ((column + 0.5) / GRID + chance.uniform(-JITTER, JITTER), (row + 0.5) / GRID + chance.uniform(-JITTER, JITTER))
        for column, row in cells
    ]
    return places, [chance.uniform(*RADIUS) for _ in places]


def _background(chance: random.Random, size: int) -> Image.Image:
    first, second = _pale(chance), _pale(chance)
    kind = chance.choice(("plain", "gradient", "noise", "clouds"))
    if kind == "plain":
        return Image.new("RGB", (size, size), first)
    if kind == "gradient":
        angle = chance.uniform(0, 2 * math.pi)
        across, down = np.meshgrid(np.linspace(-0.5, 0.5, size), np.linspace(-0.5, 0.5, size))
        share = (across * math.cos(angle) + down * math.sin(angle))[..., None] / math.sqrt(2) + 0.5
    else:
        cells = size if kind == "noise" else chance.randint(3, 6)
        grain = np.random.default_rng(chance.getrandbits(32)).random((cells, cells), dtype=np.float32)
        strength = 0.35 if kind == "noise" else 1.0
        field = Image.fromarray(grain * strength).resize((size, size), Image.Resampling.BICUBIC)
        share = np.asarray(field).clip(0, 1)[..., None]
    # A mixture of two pale colours is pale: it never reaches an object's saturation.
    mixed = np.array(first) * (1 - share) + np.array(second) * share
    return Image.fromarray(mixed.round().astype(np.uint8))


def _pale(chance: random.Random) -> Color:
    return _rgb(chance.uniform(0, 360), chance.uniform(*BACKGROUND_SATURATION), chance.uniform(*BACKGROUND_VALUE))


def _rgb(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb((hue % 360) / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw(image: Image.Image, chance: random.Random, name: Name, place: Point, radius: float) -> None:
    color, shape = name
    fill = _rgb(chance.uniform(*HUES[color]), chance.uniform(*OBJECT_SATURATION), chance.uniform(*OBJECT_VALUE))
    side = image.width
    half = math.ceil(radius * side) + 1
    mask = Image.new("L", (2 * half * SUPERSAMPLING,) * 2)
    # The part of a pixel by which the centre misses the mask's own centre.
    left, top = math.floor(place[0] * side) - half, math.floor(place[1] * side) - half
    centre = ((place[0] * side - left) * SUPERSAMPLING, (place[1] * side - top) * SUPERSAMPLING)
    pen, reach = ImageDraw.Draw(mask), radius * side * SUPERSAMPLING
    turn = chance.uniform(-10, 10)
    if shape == "circle":
        reach *= 0.92
        pen.ellipse([centre[0] - reach, centre[1] - reach, centre[0] + reach, centre[1] + reach], fill=255)
    else:
        corners = {"square": (45, 135, 225, 315), "triangle": (90, 210, 330)}[shape]
        pen.polygon([_corner(centre, reach, angle + turn) for angle in corners], fill=255)
    image.paste(fill, (left, top), mask.reduce(SUPERSAMPLING))


def _corner(centre: Point, reach: float, degrees: float) -> Point:
    angle = math.radians(degrees)
    return centre[0] + reach * math.cos(angle), centre[1] - reach * math.sin(angle)


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
    """A folder of scenes: where it is and how many images each split has."""

    path: Path
    images: dict[str, int]


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
    `scenes.jsonl` beside them says what is on each image. Images are JPEG files of
    `size` × `size` pixels; the same numbers and seed give the same folder.
    """
    folder = Path(out)
    planned = {
        "train": list(training_scenes(train, seed=seed)),
        "dev": list(training_scenes(dev, seed=seed + 1)),
        "test": list(evaluation_scenes(test, seed=seed)),
    }
    named = [
        (split, f"{split}_{i:05d}.jpg", scene) for split, drawn in planned.items() for i, scene in enumerate(drawn)
    ]
    try:
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            saved = pool.map(lambda one: render_scene(one[2], size).save(folder / IMAGES / one[1], quality=92), named)
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


def read_scenes(folder: str | os.PathLike[str]) -> dict[str, ShapeScene]:
    """The scene of each image by its file name, as `scenes.jsonl` has them."""
    path = Path(folder) / SCENES
    scenes: dict[str, ShapeScene] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = parse_json(line)
                names = tuple((str(color), str(shape)) for color, shape in row["objects"])
                scenes[row["image"]] = ShapeScene(names, row["relation"], row["count"], row["seed"])
    except OSError as error:
        raise CaptuneError(f"Cannot read {path}: {error.strerror}.", "Draw the scenes again.") from error
    return scenes


def _row(name: str, scene: ShapeScene) -> dict[str, object]:
    return {
        "image": name,
        "objects": [list(one) for one in scene.names],
        "relation": scene.relation,
        "count": scene.count,
        "seed": scene.seed,
    }
