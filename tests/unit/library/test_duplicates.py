"""Copies of a file and images that look alike come as groups, whatever the library has besides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import captune
from captune.cli.verbs.search import app
from captune.core.errors import UsageError
from captune.images.verify import fingerprints
from captune.library.database import now
from captune.library.library import Library


def landscape(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """An image with large shapes, which stay when it is scaled."""
    levels = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Two copies of an image, a smaller one that looks like them, two that are flat, and two of their own."""
    folder = tmp_path_factory.mktemp("duplicates") / "photos"
    (folder / "old").mkdir(parents=True)
    images = {
        "a.png": (landscape(1), "copy"), "old/b.png": (landscape(1), "copy"),
        "old/small.png": (landscape(1, (48, 32)), "3"), "c.png": (landscape(2), "6"), "d.png": (landscape(3), "7"),
        "flat.png": (Image.new("RGB", (9, 9), "grey"), "4"), "old/flat.png": (Image.new("RGB", (9, 9), "grey"), "5"),
    }  # fmt: skip
    library = Library(folder, create=True)
    with library.database.write() as connection:
        for path, (image, digest) in images.items():
            image.save(folder / path)
            found = fingerprints(image)
            signed = int(np.uint64(int(found["hash"], 16)).astype(np.int64))
            connection.execute(
                "INSERT INTO images(path, digest, bytes, modified, added, width, height, hash, thumb) "
                "VALUES (?, ?, 100, 1, ?, ?, ?, ?, ?)",
                (path, digest, now(), *image.size, signed, bytes.fromhex(found["thumb"])),
            )
        broken = (
            "INSERT INTO images(path, digest, bytes, modified, added, problem) VALUES (?, ?, 50, 1, 'now', 'cut off')"
        )
        for path, digest in (("x.heic", "heic"), ("y.heic", "heic"), ("lost1.png", ""), ("lost2.png", "")):
            connection.execute(broken, (path, digest))
        connection.execute(
            "INSERT INTO captions(image, text, written_by, written) VALUES (2, 'a <hill>', 'person', ?)", (now(),)
        )
    return library


def test_groups_of_copies_come_first_and_in_a_group_the_largest(library: Library) -> None:
    groups = library.duplicates()
    assert [[each.path for each in group.images] for group in groups] == [
        ["x.heic", "y.heic"], ["a.png", "old/b.png", "old/small.png"],
    ]  # fmt: skip
    assert [group.exact for group in groups] == [True, False]
    first, copy, small = groups[1].images
    assert (first.exact, copy.exact, small.exact, copy.caption) == (True, True, False, "a <hill>")
    assert small.distance <= 2
    assert groups.paths[0] == [str(library.folder / name) for name in ("x.heic", "y.heic")]


def test_only_images_that_the_conditions_are_true_of_are_compared(library: Library) -> None:
    groups = library.duplicates(under="old")
    assert [[each.path for each in group.images] for group in groups] == [["old/b.png", "old/small.png"]]
    assert library.duplicates("hill") == []
    assert len(library.duplicates(limit=1)) == 1
    with pytest.raises(UsageError, match="meaning"):
        library.duplicates("hill", mode="meaning")


def test_the_command_prints_groups(library: Library) -> None:
    def printed(*options: str) -> str:
        result = CliRunner().invoke(app, ["--duplicates", "--in", str(library.folder), *options])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    assert printed("--paths") == "\n\n".join("\n".join(group) for group in library.duplicates().paths) + "\n"
    assert json.loads(printed("--json")) == library.duplicates().to_json()
    assert printed().count("the same file") == 2
    assert printed().count("alike") == 1
    with pytest.raises(UsageError, match="with each other"):
        printed("--like", "a.png")


def test_twenty_thousand_images_are_not_compared_two_by_two(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    library = captune.Library(tmp_path / "photos", create=True)
    random = np.random.default_rng(0)
    count = 20_000
    hashes = random.integers(-(2**63), 2**63, count)
    thumbs = random.integers(0, 255, (count, 192), dtype=np.uint8)
    hashes[-100:], thumbs[-100:] = hashes[:100] ^ 1, thumbs[:100]
    rows = ((f"{n}.jpg", str(n), int(hashes[n]), thumbs[n].tobytes()) for n in range(count))
    with library.database.write() as connection:
        connection.executemany(
            "INSERT INTO images(path, digest, bytes, modified, added, hash, thumb) VALUES (?, ?, 1, 1, 'now', ?, ?)",
            rows,
        )
    groups = library.duplicates(limit=0)
    assert {tuple(sorted(each.image for each in group.images)) for group in groups} == {
        (n + 1, count - 99 + n) for n in range(100)
    }
    assert {each.distance for group in groups for each in group.images} == {0, 1}
