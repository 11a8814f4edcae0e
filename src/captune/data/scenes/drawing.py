"""A scene as a picture: anti-aliased shapes on a background that is never of an object's colour."""

from __future__ import annotations

import colorsys
import math
import random

import numpy as np
from PIL import Image, ImageDraw

from captune.data.scenes.world import OPPOSITE, Scene

# Hue ranges in degrees. Objects are saturated, backgrounds pale, so the two never meet.
HUES = {"red": (-10, 8), "yellow": (50, 60), "green": (105, 140), "blue": (212, 235), "purple": (275, 300)}
OBJECT_SATURATION = (0.75, 1.0)
OBJECT_VALUE = (0.7, 1.0)
BACKGROUND_SATURATION = (0.0, 0.2)
BACKGROUND_VALUE = (0.8, 1.0)
SUPERSAMPLING = 3
# Shares of the picture's side.
GRID = 3
JITTER = 0.025
RADIUS = (0.11, 0.14)
SIDES = {"left of": (0, 1), "right of": (2, 1), "above": (1, 0), "below": (1, 2)}

Color = tuple[int, int, int]
Point = tuple[float, float]


def render_scene(scene: Scene, size: int = 96) -> Image.Image:
    """Draw a scene as an RGB picture of `size` × `size` pixels; the same scene, the same pixels."""
    chance = random.Random(scene.seed)
    picture = _background(chance, size)
    for name, place, radius in zip(_names_drawn(scene), *_layout(scene, chance), strict=True):
        _draw(picture, chance, name, place, radius)
    return picture


def _names_drawn(scene: Scene) -> list[tuple[str, str]]:
    return list(scene.names) * scene.count


def _layout(scene: Scene, chance: random.Random) -> tuple[list[Point], list[float]]:
    """Centres and radii as shares of the picture's side.

    Objects stand near the middles of a 3 × 3 grid's cells: related ones on opposite sides
    of the picture's middle, equal ones anywhere.
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


def _draw(picture: Image.Image, chance: random.Random, name: tuple[str, str], place: Point, radius: float) -> None:
    color, shape = name
    fill = _rgb(chance.uniform(*HUES[color]), chance.uniform(*OBJECT_SATURATION), chance.uniform(*OBJECT_VALUE))
    side = picture.width
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
    picture.paste(fill, (left, top), mask.reduce(SUPERSAMPLING))


def _corner(centre: Point, reach: float, degrees: float) -> Point:
    angle = math.radians(degrees)
    return centre[0] + reach * math.cos(angle), centre[1] - reach * math.sin(angle)
