"""Names with brackets, braces and stars: what is there is meant by its name, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.cli.progress import TerminalProgress
from captune.cli.terminal import note, out_table, show_error
from captune.core.errors import CaptuneError, ImageError, UsageError
from captune.core.files.paths import Listed, expand, is_pattern, matches
from captune.datasets.formats import read_source
from captune.datasets.sources.input_shards import list_input_shards, read_images
from captune.datasets.sources.listing import find_image_paths
from captune.images.open import open_image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "img1.jpg", "img2.jpg", "what1.jpg", "x.jpg", "aXb.jpg", "Photos [2021]/a.jpg", "Photos [2021]/b.jpg",
        "Photos 2/c.jpg", "Photos {old}/d.jpg", "Photos {x,y}/e.jpg", "deep/Photos [1]/f.jpg", "deep/two/g.jpg",
        "deep/.hidden/h.jpg",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["img[1].jpg", "img[12].jpg", "{x}.jpg", "[bold]img1.jpg", "Photos [2021].jpg", "{}.jpg"]
)
def test_a_file_that_is_gone_is_no_other(folder: Path, name: str) -> None:
    (shard,) = list_input_shards([name])
    assert [image.name for image in read_images(shard)] == [name]
    with pytest.raises(ImageError, match="there is no such file"):
        open_image(name)


@pytest.mark.parametrize(
    "name", ["img[1].jpg", "a*b.jpg", "what?.jpg", "{x,img1}.jpg", "img[0-9].jpg", "Photos {old}/z.jpg"]
)
def test_names_of_a_list_are_names(folder: Path, name: str) -> None:
    given = ["img1.jpg", Listed(name), "img2.jpg"]
    assert [one for shard in list_input_shards(given) for one in shard.names] == [str(one) for one in given]


@pytest.mark.parametrize("name", ["img[1].jpg", "a*b.jpg", "what?.jpg", "{x,img1}.jpg", "[a-z].jpg"])
def test_a_file_that_is_there_is_meant_by_its_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    assert find_image_paths([name]) == [name]
    assert not is_pattern(name)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("Photos [2021]/*.jpg", ["Photos [2021]/a.jpg", "Photos [2021]/b.jpg"]),
        ("Photos {old}/*", ["Photos {old}/d.jpg"]),
        ("Photos {x,y}/*.jpg", ["Photos {x,y}/e.jpg"]),
        ("Photos [2021]/{a,b}.jpg", ["Photos [2021]/a.jpg", "Photos [2021]/b.jpg"]),
        ("*/Photos [1]/*.jpg", ["deep/Photos [1]/f.jpg"]),
        ("img[0-9].jpg", ["img1.jpg", "img2.jpg"]),
        ("img[!1].jpg", ["img2.jpg"]),
        ("img[1]*.jpg", ["img1.jpg"]),
        ("img?.jpg", ["img1.jpg", "img2.jpg"]),
        ("{img2,img1}.jpg", ["img2.jpg", "img1.jpg"]),
        ("img{1..2}.jpg", ["img1.jpg", "img2.jpg"]),
        ("deep/**/*.jpg", ["deep/Photos [1]/f.jpg", "deep/two/g.jpg"]),
        ("deep/**", ["deep/Photos [1]/f.jpg", "deep/two/g.jpg"]),
        ("deep/.h*/*", ["deep/.hidden/h.jpg"]),
    ],
)
def test_patterns_and_folders_with_brackets(folder: Path, pattern: str, found: list[str]) -> None:
    assert find_image_paths([pattern]) == found
    assert find_image_paths([str(folder / pattern)]) == [str(folder / name) for name in found]


def test_a_pattern_that_finds_nothing_shows_itself_whole(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"No file matches Photos \{old\}/\*\.png"):
        find_image_paths(["Photos {old}/*.png"])
    with pytest.raises(CaptuneError, match=r"There is no file or folder Photos \[1999\]"):
        read_source("Photos [1999]")
    with pytest.raises(CaptuneError, match=r"There is no file or folder Photos \{new\}"):
        read_source("Photos {new}")


def test_braces() -> None:
    assert expand("{008..011}.tar") == ["008.tar", "009.tar", "010.tar", "011.tar"]
    assert expand("{a,b}-{1..2}") == ["a-1", "a-2", "b-1", "b-2"]
    assert expand("{old}") == ["{old}"]
    assert matches("nothing/*/here") == []


def test_messages_and_tables_show_names_whole(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["img[1].jpg", "[bold]x[/bold].jpg", "{old}.jpg", "[/].jpg", ":smile:.jpg", "a*b\\[c].jpg"]
    out_table("[red]title", ["[i]name[/i]"], [[name] for name in names])
    show_error(" ".join(names), "[dim]hint")
    note(names[1])
    progress = TerminalProgress()
    progress.warn(names[1])
    shown = capsys.readouterr()
    for name in (*names, "[red]title", "[i]name[/i]"):
        assert name in shown.out
    for text in (f"error: {' '.join(names)}\n", "[dim]hint\n", f"{names[1]}\n", f"warning: {names[1]}\n"):
        assert text in shown.err
