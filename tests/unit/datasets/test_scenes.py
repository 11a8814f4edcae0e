"""The built-in scenes: what is on them is what their references say, and what is held out stays out."""

from __future__ import annotations

import colorsys
from itertools import combinations

import numpy as np
import pytest

from captune.core.errors import CaptuneError
from captune.datasets import scenes as drawing
from captune.datasets.scenes import (
    COLORS,
    OBJECTS,
    SHAPES,
    ShapeScene,
    all_true,
    evaluation_scenes,
    is_evaluation_pair,
    objects_named,
    read_scenes,
    references,
    render_scene,
    training_scenes,
    write_flickr8k_folder,
)

RED_CIRCLE, BLUE_SQUARE = ("red", "circle"), ("blue", "square")


def test_the_same_seed_gives_the_same_scenes_and_pixels() -> None:
    first, again = list(training_scenes(30, seed=5)), list(training_scenes(30, seed=5))
    assert first == again
    assert first != list(training_scenes(30, seed=6))
    for scene in first[:6]:
        assert render_scene(scene).tobytes() == render_scene(scene).tobytes()
        assert references(scene) == references(scene)


def test_at_least_half_show_two_objects_and_a_relation() -> None:
    drawn = list(training_scenes(300, seed=0))
    related = [scene for scene in drawn if scene.relation]
    assert len(related) >= 150
    assert all(len(scene.names) == 2 and scene.names[0] != scene.names[1] for scene in related)
    assert {scene.count for scene in drawn if not scene.relation} == {1, 2, 3}
    assert all(scene.relation for scene in evaluation_scenes(50, seed=0))


def test_held_out_pairs_are_never_in_training_but_their_objects_are() -> None:
    trained = {frozenset(scene.names) for scene in training_scenes(5000, seed=1) if scene.relation}
    tested = {frozenset(scene.names) for scene in evaluation_scenes(1000, seed=1)}
    assert not trained & tested
    pairs = [frozenset(pair) for pair in combinations(OBJECTS, 2)]
    assert tested == {pair for pair in pairs if is_evaluation_pair(*pair)}
    assert trained == {pair for pair in pairs if not is_evaluation_pair(*pair)}
    assert len(tested) == 21
    assert set().union(*trained) == set(OBJECTS) == set().union(*tested)
    assert all(is_evaluation_pair(a, b) == is_evaluation_pair(b, a) for a, b in combinations(OBJECTS, 2))


@pytest.mark.parametrize("held", [False, True])
def test_five_different_references_name_exactly_what_is_there(held: bool) -> None:
    for scene in (evaluation_scenes if held else training_scenes)(200, seed=2):
        sentences = references(scene)
        assert len(set(sentences)) == 5
        for sentence in sentences:
            assert objects_named(sentence, scene.names), (sentence, scene)
            assert all_true(sentence, scene)


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("a red circle left of a blue square", True),
        ("Blue square, RED circle.", True),
        ("a blue circle left of a red square", False),  # colours changed places
        ("a red circle", False),
        ("a red circle left of a blue square above a green square", False),
        ("a red circle and a red circle left of a blue square", False),
        ("a red blue circle square", False),
        ("circle red square blue", False),
        ("a red left of a blue square", False),
        ("a circle left of a blue square", False),
        ("red circle blue square yellow", False),
        ("", False),
        (" ".join(f"{c} {s}" for c in COLORS for s in SHAPES), False),
    ],
)
def test_the_scorer_is_strict(caption: str, right: bool) -> None:
    assert objects_named(caption, [RED_CIRCLE, BLUE_SQUARE]) is right


def test_a_caption_is_all_true_only_with_its_relation_and_count() -> None:
    scene = ShapeScene((RED_CIRCLE, BLUE_SQUARE), "left of", 1, 0)
    assert all_true("a red circle left of a blue square", scene)
    assert all_true("a blue square right of a red circle", scene)
    assert not all_true("a blue square left of a red circle", scene)
    assert not all_true("a red circle above a blue square", scene)
    three = ShapeScene((RED_CIRCLE,), None, 3, 0)
    assert all_true("there are three red circles", three)
    assert objects_named("two red circles", three.names)
    assert not all_true("two red circles", three)


def test_relations_are_drawn_as_they_are_said() -> None:
    for scene in evaluation_scenes(60, seed=3):
        pixels = np.asarray(render_scene(scene)).astype(float) / 255
        first, second = (_centre(pixels, color) for color, _ in scene.names)
        if scene.names[0][0] == scene.names[1][0]:
            continue  # one colour: their pixels cannot be told apart by it
        (x, y), (other_x, other_y) = first, second
        assert {"left of": x < other_x, "right of": x > other_x, "above": y < other_y, "below": y > other_y}[
            scene.relation or ""
        ], scene


def test_no_background_has_the_saturation_of_an_object() -> None:
    for scene in training_scenes(40, seed=4):
        corners = np.asarray(render_scene(scene, 64))[:2, :2].reshape(-1, 3) / 255
        assert max(colorsys.rgb_to_hsv(*pixel)[1] for pixel in corners) < drawing.OBJECT_SATURATION[0] / 2


def test_objects_stay_inside_the_picture() -> None:
    assert drawing.RADIUS[1] + drawing.JITTER <= 0.5 / drawing.GRID


def test_the_folder_is_a_flickr8k_that_the_formats_read(tmp_path) -> None:
    made = write_flickr8k_folder(tmp_path / "scenes", train=12, dev=3, test=6, seed=7)
    again = write_flickr8k_folder(tmp_path / "again", train=12, dev=3, test=6, seed=7)
    assert made.images == {"train": 12, "dev": 3, "test": 6}
    for file in sorted(made.path.rglob("*.*")):
        assert file.read_bytes() == (again.path / file.relative_to(made.path)).read_bytes()

    import captune

    prepared = captune.prepare(made.path, out=tmp_path / "data", split="flickr8k")
    assert {name: (split.images, split.references) for name, split in prepared.splits.items()} == {
        "train": (12, 60),
        "val": (3, 15),
        "test": (6, 30),
    }
    scenes = read_scenes(made.path)
    assert len(scenes) == 21
    assert {
        name.split("_")[0] for name, scene in scenes.items() if scene.relation and is_evaluation_pair(*scene.names)
    } == {"test"}


def test_a_folder_without_scenes_is_named(tmp_path) -> None:
    with pytest.raises(CaptuneError, match=r"scenes\.jsonl"):
        read_scenes(tmp_path)


def _centre(pixels: np.ndarray, color: str) -> tuple[float, float]:
    """Mean place of the pixels whose hue and saturation are the colour's."""
    high, low = pixels.max(-1), pixels.min(-1)
    spread = np.maximum(high - low, 1e-9)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    hue = np.where(
        high == red,
        (green - blue) / spread % 6,
        np.where(high == green, (blue - red) / spread + 2, (red - green) / spread + 4),
    )
    start, end = drawing.HUES[color]
    away = (hue * 60 - (start + end) / 2 + 180) % 360 - 180
    rows, columns = np.nonzero((spread / np.maximum(high, 1e-9) > 0.6) & (abs(away) < (end - start) / 2 + 6))
    return float(columns.mean()), float(rows.mean())
