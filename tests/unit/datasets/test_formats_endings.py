"""Images under another ending than the captions name: taken where one can be meant, told where several can."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from captune.datasets.formats import read_source
from captune.datasets.merge import EmbeddedImage, Problem
from captune.datasets.prepare import prepare
from sources import jpeg, tar, write


def listed(
    folder: Path, names: list[str], *files: str, images: Path | None = None
) -> tuple[dict[str, str], list[Problem]]:
    """The file of each name of a caption file, and what is said of the others."""
    for number, file in enumerate(files):
        write(folder / "images" / file, jpeg(number))
    write(folder / "c.csv", "image,caption\n" + "".join(f"images/{name},A dog\n" for name in names))
    problems: list[Problem] = []
    found = {}
    for record in read_source(folder / "c.csv", problems=problems)[1]:
        assert not isinstance(record.image, EmbeddedImage)
        found[record.named.removeprefix("images/")] = record.image.name if record.image.exists() else "missing"
    return found, problems


@pytest.mark.parametrize(
    ("named", "file"),
    [
        ("s.jpg", "s.jpeg"), ("s.jpeg", "s.jpg"), ("s.jpg", "s.JPG"), ("s.JPEG", "s.jpg"), ("s.png", "s.webp"),
        ("IMG_1.jpg", "img_1.JPG"), ("000017", "000017.webp"), ("a.b.jpg", "a.b.png"), ("s.jpg", "s.HEIC"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("others", [[], ["exact.jpg"]])
def test_the_only_image_of_a_stem_is_meant(tmp_path: Path, named: str, file: str, others: list[str]) -> None:
    found, problems = listed(tmp_path, [named, *others], file, *others, "other.png")
    assert found == {named: file} | {name: name for name in others}
    assert problems == []


def test_the_ending_in_another_case_goes_before_another_ending(tmp_path: Path) -> None:
    assert listed(tmp_path, ["s.jpg"], "s.JPG", "s.png")[0] == {"s.jpg": "s.JPG"}


def test_nothing_is_chosen_among_several(tmp_path: Path) -> None:
    found, (problem,) = listed(tmp_path, ["s.jpg", "t.jpg", "gone.jpg"], "s.jpeg", "s.png", "t.jpg")
    assert found == {"t.jpg": "t.jpg", "gone.jpg": "missing"}
    assert problem.where == "c.csv, line 2"
    assert problem.reason == "images/s.jpg is not there, but s.jpeg and s.png are, and nothing says which is meant"


def test_a_name_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    assert listed(tmp_path, ["s.jpg"], "s.jpg", "s.JPG", "s.png") == ({"s.jpg": "s.jpg"}, [])


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_in_an_archive(tmp_path: Path, kind: str) -> None:
    members = {"a/s.jpeg": jpeg(1), "a/t.jpeg": jpeg(2), "b/t.png": jpeg(3), "a/u.jpg": jpeg(4), "b/u.jpg": jpeg(5)}
    archive = tmp_path / f"images.{kind}"
    if kind == "tar":
        tar(archive, members)  # type: ignore[arg-type]
    else:
        with zipfile.ZipFile(archive, "w") as zipped:
            for name, data in members.items():
                zipped.writestr(name, data)
    names = ("s.jpg", "t.jpg", "b/t.jpg", "u.jpg", "b/u.jpg", "gone.jpg")
    write(tmp_path / "c.csv", "image,caption\n" + "".join(f"{name},A dog\n" for name in names))
    problems: list[Problem] = []
    _, records = read_source(tmp_path / "c.csv", images=archive, problems=problems)
    found = {record.named: record.image.key for record in records if isinstance(record.image, EmbeddedImage)}
    assert found == {"s.jpg": "a/s.jpeg", "b/t.jpg": "b/t.png", "b/u.jpg": "b/u.jpg"}
    assert [problem.reason.partition(" is not ")[0] for problem in problems] == ["t.jpg", "u.jpg", "gone.jpg"]


def test_prepare_says_it(tmp_path: Path) -> None:
    names = [f"s{n}.jpg" for n in range(6)]
    listed(tmp_path, names, *(f"s{n}.jpeg" if n % 2 else f"s{n}.jpg" for n in range(6)))
    result = prepare(tmp_path, tmp_path / "out")
    assert sum(count.images for count in result.splits.values()) == 6
    assert "Called otherwise than the source says: 3 images, such as s1.jpeg for images/s1.jpg." in result.notes


def test_no_image_at_all_is_still_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="None of the 1 images"):
        listed(tmp_path, ["s.jpg"], "t.jpg")
