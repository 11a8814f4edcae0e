"""Where the pictures lie that a caption file names: found once, by a probe with some of the names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from captune.core.errors import CaptuneError
from captune.data.formats.archive import ENDINGS, pictures_of
from captune.data.formats.endings import Folders, several
from captune.data.formats.places import is_image_name, listing
from captune.data.inside import BESIDE, Boundary, Images, elsewhere, shown
from captune.data.source import EmbeddedImage

USUAL = (
    "Images",
    "images",
    "Flicker8k_Dataset",  # the misspelling is the original archive's
    "Flickr8k_Dataset",
    "flickr30k_images",
    "flickr30k-images",
    "train2017",
    "val2017",
    "test2017",
    "train2014",
    "val2014",
    "image",
    "imgs",
    "img",
    "photos",
    "pictures",
    "JPEGImages",
    "original",
    "data",
)
# Folders of captions in data sets whose images lie in a folder beside that one.
_OF_CAPTIONS = re.compile(r"annotations?|captions?|labels?|texts?|.+_texts?", re.IGNORECASE)
_PROBED = 64
_FOLDERS = 60


class Located:
    """Where pictures are, by the names that captions give them."""

    def __init__(self, find: Callable[[str], Path | EmbeddedImage | list[str]], gone: Callable[[str], str]) -> None:
        self._find = find
        self._gone = gone
        self._reasons: dict[str, str] = {}

    def __call__(self, name: str) -> Path | EmbeddedImage | None:
        """The path of a picture, or the picture in an archive; None where it is not in it, or several may be meant."""
        found = self._find(name)
        if not isinstance(found, list):
            return found
        self._reasons[name] = several(name, found) if found else self._gone(name)
        return None

    def reason(self, name: str) -> str:
        """Why there is none."""
        return self._reasons[name]


def locate(names: Sequence[str], near: Sequence[Path], images: Images | None, *, file: str) -> Located:
    """Where pictures are that a caption file names.

    `near` are the folders of the caption files, `images` the user's own word, `file` the
    caption file for the message. A picture that is there under another ending is taken where only
    one can be meant; one outside of those folders is not, unless `images` says so. Raises `CaptuneError` where not one
    of the pictures is found in any of the usual places.
    """
    images = images or BESIDE
    folder = images.folder
    if folder is not None and folder.is_file() and folder.suffix.lower() in ENDINGS:
        return _in_archive(names, folder, file)
    if folder is not None and not folder.is_dir():
        raise CaptuneError(
            f"There is no folder of pictures {folder}.", "Check --images: a folder, or a .zip or .tar of pictures."
        )
    places = list(_places(near, folder))
    boundary = images.boundary(*near, *_beside(near))
    step = max(1, len(names) // _PROBED)
    folders = Folders()
    found = (
        _hits(names[::step], places, boundary)
        or _hits_in_full(names, places, boundary)
        or _hits_alike(names[::step], places, folders, boundary)
    )
    if not found and names:
        raise _nothing_found(names, places, boundary, file)

    def path_of(name: str) -> Path | list[str]:
        paths = [os.path.join(place, variant(name)) for place, variant in found]
        there = next((path for path in paths if boundary.holds(path) and os.path.exists(path)), None)
        if there is not None:
            stem = os.path.splitext(there)[0]
            if is_image_name(name) or not is_image_name(there):
                return Path(there)
            # A bare stem: of dog.jpg and dog.png none is more likely meant.
            same = [path for path in _alike(folders, stem, boundary) if os.path.splitext(path)[0] == stem]
            return same if len(same) > 1 else Path(there)
        near_by = next((near_by for path in paths if (near_by := _alike(folders, path, boundary))), [])
        if len(near_by) > 1:
            return near_by
        if near_by:
            return Path(near_by[0])
        outside = elsewhere(name) or any(map(os.path.lexists, paths)) or not boundary.holds(paths[0])
        if outside and not images.allow_outside:
            return []
        return Path(paths[0])

    return Located(path_of, boundary.reason)


def _nothing_found(names: Sequence[str], places: Sequence[Path], boundary: Boundary, file: str) -> CaptuneError:
    """The error for a caption file of which no picture is where it may be."""
    outside = next(
        (name for name in names if not any(boundary.holds(os.path.join(place, name)) for place in places)), ""
    )
    outside = outside or next(filter(elsewhere, names), "")
    if outside and not boundary.anywhere:
        return CaptuneError(
            f"None of the {len(names):,} pictures that {file} names was found inside of its folder: "
            f"{shown(outside)} lies outside.",
            "Name the folder that holds the pictures: --images DIR. Or, if you trust the file: --allow-outside",
        )
    looked = ", ".join(str(place) for place in places[:4])
    return CaptuneError(
        f"None of the {len(names):,} pictures that {file} names was found, for example {names[0]!r}. "
        f"Looked in {looked}{' and usual folders near there' if len(places) > 4 else ''}.",
        "Name the folder that holds the pictures: --images DIR.",
    )


def _alike(folders: Folders, path: str, boundary: Boundary) -> list[str]:
    """Pictures that a path may mean and that may be named."""
    return [other for other in folders.alike(path) if boundary.holds(other)] if boundary.holds(path) else []


def _in_archive(names: Sequence[str], archive: Path, file: str) -> Located:
    picture = pictures_of(archive)
    if names and not any(picture(name) for name in names):
        raise CaptuneError(
            f"None of the {len(names):,} pictures that {file} names is in {archive}, for example {names[0]!r}.",
            "Name the folder or archive that holds the pictures: --images DIR.",
        )
    return Located(picture, lambda name: f"{name} is not in {archive}")


def _as_is(name: str) -> str:
    return name


def _alone(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _jpg(name: str) -> str:
    return name if is_image_name(name) else name + ".jpg"


def _png(name: str) -> str:
    return name if is_image_name(name) else name + ".png"


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _decomposed(name: str) -> str:
    return unicodedata.normalize("NFD", name)


# How a caption file may mean a name: a Windows path, a path from another machine, a bare id, ü as one sign or two.
_VARIANTS = (_as_is, _slashes, _alone, _jpg, _png, _composed, _decomposed)
_Found = list[tuple[Path, Callable[[str], str]]]


def _places(near: Sequence[Path], images: Path | None) -> Iterator[Path]:
    """Folders to look in, the likeliest first, each once."""
    seen: set[Path] = set()

    def fresh(candidates: Iterator[Path] | list[Path]) -> Iterator[Path]:
        for place in candidates:
            if place not in seen and len(seen) < _FOLDERS and place.is_dir():
                seen.add(place)
                yield place

    roots = [images] if images is not None else list(near)
    for root in roots:
        yield from fresh([root, *(root / name for name in USUAL)])
    for root in roots:
        yield from fresh([root / name for name in listing(root)[1]])
    for inner in list(seen):
        yield from fresh([inner / name for name in listing(inner)[1]])
    if images is None:
        for above in _above(roots):
            yield from fresh([above, *_usual(above)])


def _beside(near: Sequence[Path]) -> Iterator[Path]:
    """The usual folders of pictures beside folders of captions; their names alone open no other folder there."""
    for above in _above(near):
        yield from (folder for folder in _usual(above) if folder.is_dir())


def _above(roots: Sequence[Path]) -> Iterator[Path]:
    """The folders that hold a folder of captions."""
    yield from (root.absolute().parent for root in roots if _OF_CAPTIONS.fullmatch(root.absolute().name))


def _usual(above: Path) -> Iterator[Path]:
    yield from (above / name for name in USUAL)
    yield from (above / a / b for a in USUAL for b in USUAL)


def _hits(names: Sequence[str], places: Sequence[Path], boundary: Boundary) -> _Found:
    """Places that hold at least one of the names, the fullest first; ends at one that holds all."""
    counted: list[tuple[int, Path, Callable[[str], str]]] = []
    for place in places:
        for variant in _VARIANTS:
            if variant is not _as_is and all(variant(name) == name for name in names):
                continue
            paths = (os.path.join(place, variant(name)) for name in names)
            hits = sum(boundary.holds(path) and os.path.isfile(path) for path in paths)
            if hits == len(names):
                return [(place, variant)]
            if hits:
                counted.append((hits, place, variant))
    counted.sort(key=lambda hit: -hit[0])
    return [(place, variant) for _, place, variant in counted]


def _hits_alike(names: Sequence[str], places: Sequence[Path], folders: Folders, boundary: Boundary) -> _Found:
    """As `_hits` for pictures under other endings than the names have."""
    counted: list[tuple[int, Path, Callable[[str], str]]] = []
    for place in places:
        for variant in (_as_is, _slashes, _alone):
            hits = sum(bool(_alike(folders, os.path.join(place, variant(name)), boundary)) for name in names)
            if hits:
                counted.append((hits, place, variant))
    counted.sort(key=lambda hit: -hit[0])
    return [(place, variant) for _, place, variant in counted]


def _hits_in_full(names: Sequence[str], places: Sequence[Path], boundary: Boundary) -> _Found:
    """As `_hits` with every name, by reading folders: for few pictures of a large caption file."""
    wanted = {_alone(name) for name in names}
    likely = [place for place in places if os.access(place, os.R_OK) and not wanted.isdisjoint(os.listdir(place))]
    return _hits(names, likely, boundary)
