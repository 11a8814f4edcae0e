"""A library is searched by whatever people type, and what is found is a list that notebooks show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.options.library import FilterOptions
from captune.library.database import now
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
                "INSERT INTO images(path, digest, bytes, modified, added) VALUES (?, ?, 1, 1, ?)", (path, path, now())
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
    "condition",
    [{"tag": ("\udcff",)}, {"mark": "'"}, {"by": '"'}, {"flag": ("%", "any'")}, {"under": "\udcff/*"}, {"under": ""}],
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
