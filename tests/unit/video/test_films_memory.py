"""A long film takes no more memory than a short one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from captune.video.frames import Film
from captune.video.scenes import find_scenes
from films import RATE, drawn, write_film

pytest.importorskip("av")
SIZE, MINUTES, SCENE = (640, 360), 3, 6


def long_film() -> Iterator[Image.Image]:
    images = [drawn(seed).resize(SIZE) for seed in range(10)]
    for second in range(60 * MINUTES):
        yield from [images[second // SCENE % 10]] * RATE


@pytest.fixture(scope="module")
def film_of_minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "a.mp4", long_film())


@pytest.mark.slow
@pytest.mark.parametrize("one_scene", [False, True])
def test_memory_stays_flat(one_scene: bool, film_of_minutes: Path) -> None:
    me, seen, found = psutil.Process(), [], 0
    with Film(film_of_minutes) as film:

        def watched() -> Iterator[object]:
            for number, sample in enumerate(film.samples(5)):
                if number % 150 == 149:
                    seen.append(me.memory_info().rss)
                yield sample

        # Every whole frame has 0.35 MB: all of them together 0.3 GB.
        for scene in find_scenes(watched(), lambda: film.end, least=1e9 if one_scene else 1.0):  # type: ignore[arg-type]
            film.image(scene.best.frame)
            found += 1
    assert found == (1 if one_scene else 60 * MINUTES // SCENE)
    assert len(seen) >= 5
    assert max(seen[1:]) - seen[0] < 40e6
