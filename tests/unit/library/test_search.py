"""A library is searched by whatever people type, and what is found is a list that notebooks show."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import captune
from captune.cli.path_lists import read_paths
from captune.cli.verbs.search import app
from captune.core.errors import CaptuneError, UsageError
from captune.core.options.library import FilterOptions
from captune.library.database import encoded, now
from captune.library.library import Library
from captune.library.listing import listed_ids
from captune.library.query import condition_of

CAPTIONS = {
    "a/dogs.jpg": "two dogs in the snow",
    "a/tail.jpg": "a dog_tail and the dog's bone, it's 100% résumé",
    "b/cat.jpg": "a cat sits on a mat",
    "b/code.jpg": "a screen with C++ and <b>bold</b> \U0001f436 on it",
    "b/inu.jpg": "雪の中の犬",
    "none.jpg": "",
}


def make_library(folder: Path, captions: dict[str, str]) -> Library:
    """A library of images that nobody opened, each with a caption of a person."""
    folder.mkdir()
    library = Library(folder, create=True)
    with library.database.write() as connection:
        for path, text in captions.items():
            image = connection.execute(
                "INSERT INTO images(path, digest, bytes, modified, added) VALUES (CAST(? AS TEXT), '', 1, 1, ?)",
                (encoded(path), now()),
            ).lastrowid
            if text:
                connection.execute(
                    "INSERT INTO captions(image, text, written_by, written) VALUES (?, ?, 'person', ?)",
                    (image, text, now()),
                )
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make_library(tmp_path_factory.mktemp("search") / "photos", CAPTIONS)


def found(library: Library, words: str) -> list[str]:
    return [each.path.removesuffix(".jpg") for each in library.search(words)]


DOGS, TAIL, CAT, CODE, INU = "a/dogs", "a/tail", "b/cat", "b/code", "b/inu"
ALL = [DOGS, TAIL, CAT, CODE, INU, "none"]
TYPED = [
    ("dog's", [TAIL]), ("it's", [TAIL]), ("C++", [CODE]), ("c++*", [CAT, CODE]), ("dog_tail", [TAIL]),
    ("dog _", [TAIL]), ("  ", ALL),
    ("two - dogs", [DOGS]), ('"two dogs', [DOGS]), ('two" dogs', [DOGS]), ('"', ALL), ('""', ALL), ("*", ALL),
    ("-cat", [INU, DOGS, CODE, TAIL]), ("-cat -dogs", [INU, CODE, TAIL]), ("-", []), ("dogs -", [DOGS]),
    ("NEAR(two dogs)", [DOGS]), ("two AND dogs", [DOGS]), ("text:dogs", []), ("dogs OR NOT", [DOGS]), ("^two", [DOGS]),
    ("purple dogs", [DOGS]), ("purple", []), ("re\u0301sume\u0301", [TAIL]), ("RESUME", [TAIL]), ("100%", [TAIL]),
    ("%", [TAIL]), ("_", [TAIL]), ("\U0001f436", [CODE]), ("<b>", [CODE]), ("+", [CODE]), ("(", []), ("\\", []),
    ("犬", [INU]), ("雪 犬", [INU]), ("雪 -犬", []), ("犬*", [INU]), ("雪 -猫", [INU]), ("dogs\0", [DOGS]),
    ("\udcff", []), ("dogs \udcff", [DOGS]), ("{a", [CAT, CODE, TAIL]), ("'; DROP TABLE images; --", []),
    ("a b " * 500, [CODE]), (" ".join(f"-x{n}" for n in range(300)), [INU, CAT, DOGS, CODE, TAIL]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), TYPED)
def test_whatever_is_typed_is_looked_for(library: Library, words: str, expected: list[str]) -> None:
    assert found(library, words) == expected
    with library.database.read() as connection:  # as the editor does
        listed_ids(connection, words, condition_of(FilterOptions()))


def test_what_is_too_long_is_an_error(library: Library) -> None:
    with pytest.raises(UsageError, match=r"2,001 characters to look for: at most 2,000"):
        library.search("a" * 2001)


@pytest.mark.parametrize(
    "condition", [{"tag": ("\udcff",)}, {"mark": "'"}, {"by": '"'}, {"flag": ("%", "any'")}, {"under": "\udcff/*"}]
)
def test_odd_conditions_are_true_of_nothing(library: Library, condition: dict[str, Any]) -> None:
    assert library.search(**condition) == []


def test_what_is_found_is_a_list(library: Library, tmp_path: Path) -> None:
    images = captune.search("", library.folder)
    assert (len(images), len(images[:2]), images[1:3].folder) == (6, 2, library.folder)
    assert [each.path for each in images] == list(CAPTIONS)
    assert images[0] in images
    assert images[-1].caption == ""
    assert images[:1] == [images[0]]
    assert images[:1] != [images[1]]
    assert not captune.search("purple", library.folder)
    assert images.paths[0] == str(library.folder / "a/dogs.jpg")
    assert images.to_json()[0]["caption"] == "two dogs in the snow"


def test_options_are_checked_as_those_of_the_command(library: Library) -> None:
    assert len(library.search(limit=2)) == 2
    assert len(library.search("a", limit=0)) == 3
    with pytest.raises(CaptuneError, match="confidence"):
        library.search(confidence="low")
    with pytest.raises(CaptuneError, match="no option 'tga'"):
        library.search(tga="snow")


def test_a_notebook_shows_images_and_captions(tmp_path: Path) -> None:
    library = make_library(tmp_path / "photos", {"<i>.png": '<script> & "so"', "none.png": ""})
    Image.new("RGB", (300, 200), "red").save(tmp_path / "photos" / "<i>.png")
    page = library.search()._repr_html_()
    assert page.count("<figure>") == 2
    assert 'src="data:image/jpeg;base64,' in page
    assert 'alt="&lt;script&gt; &amp; &quot;so&quot;"' in page
    assert "<script" not in page
    assert "<i>" not in page


@pytest.fixture
def languages(tmp_path: Path) -> Library:
    """Images with a caption each, by a model and a person, in languages that were noted or not."""
    library = make_library(tmp_path / "photos", {f"d/{n}.png": "ein Hund" for n in range(4)})
    with library.database.write() as connection:
        connection.execute("UPDATE captions SET language = 'de' WHERE image = 1")
        connection.execute(
            "UPDATE captions SET language = 'DE-at', written_by = 'model', model = 'blip' WHERE image = 2"
        )
        connection.execute("UPDATE captions SET language = 'den' WHERE image = 3")
        connection.execute("UPDATE images SET mark = 'later', taken = '2024-07-0' || id WHERE id < 4")
        connection.execute("INSERT INTO keywords VALUES (1, 'Snow')")
    return library


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"language": "de"}, [1, 2]), ({"language": "de_AT"}, [2]), ({"language": "und"}, [4]),
        ({"language": "fr"}, []), ({"taken": "..2024-07-02"}, [1, 2]), ({"taken": "2024-07-02.."}, [2, 3]),
        ({"taken": "2024-07"}, [1, 2, 3]),
        ({"taken": "2024-07-01..2024-07-02", "mark": "later", "tag": "snow", "by": "person", "under": "./d/"}, [1]),
        ({"under": "."}, [1, 2, 3, 4]), ({"under": "d/../d"}, [1, 2, 3, 4]), ({"by": "blip"}, [2]),
    ],
)  # fmt: skip
def test_conditions(languages: Library, conditions: dict[str, Any], expected: list[int]) -> None:
    assert [each.image for each in languages.search(**conditions)] == expected
    assert [each.image for each in languages.search("hund", limit=0, **conditions)] == expected


@pytest.mark.parametrize("taken", ["..", "July", "2024-7", "..2024..", "2024..2025..2026"])
def test_times_that_are_none(languages: Library, taken: str) -> None:
    with pytest.raises(CaptuneError, match="taken"):
        languages.search(taken=taken)


def test_names_that_no_image_has(languages: Library) -> None:
    def printed(*options: str) -> list[str]:
        return CliRunner().invoke(app, ["--in", str(languages.folder), *options]).stderr.splitlines()

    assert printed("--by", "blib") == ["No image was found.", "--by blib: no image has it. Did you mean 'blip'?"]
    assert printed("--tag", "snow,Berg", "--language", "it")[1:] == [
        "--tag Berg: no image has it. Known: Snow.",
        "--language it: no image has it. Known: DE-at, de, den, und.",
    ]
    assert printed("--flag", "cut", "--mark", "later", "--under", "c")[1:] == [
        "--flag cut: no image has it. Known: none.", "--under c: no image has it. Known: d.",
    ]  # fmt: skip
    assert printed("--split", "train")[1:] == ["--split train: no image has it. Known: none."]
    assert printed("--by", "blip", "--mark", "later", "--tag", "snow") == ["No image was found."]


def test_paths_and_limits_of_the_command(languages: Library) -> None:
    def printed(*options: str) -> list[str]:
        return CliRunner().invoke(app, ["--in", str(languages.folder), *options]).stdout.splitlines()

    assert printed("--paths", "--limit", "2") == languages.search(limit=2).paths
    assert printed("hund", "--paths", "--limit", "0") == languages.search().paths
    assert json.loads("".join(printed("--language", "de", "--json")))[1]["language"] == "DE-at"


def test_a_path_with_a_line_break_is_never_printed_as_two(tmp_path: Path) -> None:
    library = make_library(
        tmp_path / "photos", {"a\nb.jpg": "a dog", "c.jpg": "a cat", os.fsdecode(b"gr\xfcn.jpg"): ""}
    )

    def printed(*options: str) -> Any:
        return CliRunner().invoke(app, ["--in", str(library.folder), *options])

    refused = printed("--paths")
    assert (refused.stdout, isinstance(refused.exception, CaptuneError)) == ("", True)
    assert "a\\nb.jpg" in str(refused.exception)
    assert "--null" in str(refused.exception)
    assert printed("cat", "--paths").stdout_bytes == os.fsencode(library.folder / "c.jpg") + b"\n"
    names = printed("-0").stdout_bytes.split(b"\0")
    assert names == [*map(os.fsencode, captune.search("", library.folder).paths), b""]
    assert len(names) == 4
    assert [*read_paths(io.BytesIO(b"\0".join(names)), "utf-8")] == captune.search("", library.folder).paths
