"""Where the images are that a caption file names: in folders, zips and tars, also under another suffix."""

import os
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from captune.core.errors import CaptuneError
from captune.core.files import open_regular
from captune.core.files.limits import MAX_IMAGE_BYTES
from captune.core.files.paths import BESIDE, Boundary, Images, elsewhere
from captune.core.text import shortened
from captune.datasets.merge import EmbeddedImage, UnreadableImage
from captune.datasets.sources.tar import CutOff, Member, headers_only, is_compressed, members
from captune.datasets.tables.files import list_folder
from captune.images.signatures import is_image_name

Stems = dict[str, list[str]]


def by_stem(names: Iterable[str]) -> Stems:
    """Names of images, without folders, by their stem without case."""
    stems: Stems = {}
    for name in names:
        if is_image_name(name):
            stems.setdefault(os.path.splitext(name)[0].casefold(), []).append(name)
    return stems


def alike(name: str, stems: Stems) -> list[str]:
    """The images that a name may mean: but for case the same, else of the same stem; several where that is open."""
    stem = os.path.splitext(name)[0] if is_image_name(name) else name
    same_stem = stems.get(stem.casefold(), [])
    same = [other for other in same_stem if other.casefold() == name.casefold()]
    return same or [other for other in same_stem if os.path.splitext(other)[0] == stem] or same_stem


class _Folders:
    """Folders of images inside of a boundary, listed when a name is not there, each once."""

    def __init__(self, boundary: Boundary) -> None:
        self._boundary = boundary
        self._listed: dict[str, Stems] = {}

    def alike(self, path: str) -> list[str]:
        """Paths of the images that a path may mean and that may be named."""
        if not self._boundary.holds(path):
            return []
        folder, name = os.path.split(path)
        if folder not in self._listed:
            try:
                self._listed[folder] = by_stem(os.listdir(folder or "."))
            except OSError:  # no such folder, or a closed one: nothing is found there
                self._listed[folder] = {}
        paths = [os.path.join(folder, other) for other in sorted(alike(name, self._listed[folder]))]
        return list(filter(self._boundary.holds, paths))


ENDINGS = (".zip", ".tar")


def open_archive(archive: Path) -> Callable[[str], EmbeddedImage | list[str]]:
    """A function from an image's name, with or without folders, to the image in the archive.

    One under another ending is taken where only one can be meant; else what it may be comes
    out, an empty list where nothing is. Raises `CaptuneError` for a file that is no whole zip or uncompressed tar.
    """
    try:
        open_regular(archive).close()
        members = _zip(archive) if archive.suffix.lower() == ".zip" else _tar(archive)
    except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise CaptuneError(
            f"{archive} cannot be opened as an archive of images ({error}).",
            f"Expected a whole {' or '.join(ENDINGS)}; or unpack it and name the folder: --images DIR.",
        ) from None
    alone: dict[str, list[str]] = {}
    for name in members:
        alone.setdefault(PurePosixPath(name).name, []).append(name)
    stems = by_stem(alone)

    def image(name: str) -> EmbeddedImage | list[str]:
        name = name.replace("\\", "/")
        base = PurePosixPath(name).name
        matches = [name] if name in members else alone.get(base) or _other_endings(name, base)
        if len(matches) != 1:
            return matches
        return EmbeddedImage(PurePosixPath(matches[0]).name, members[matches[0]], matches[0])

    def _other_endings(name: str, base: str) -> list[str]:
        there = [one for other in alike(base, stems) for one in alone[other]]
        folder = PurePosixPath(name).parent
        return [one for one in there if PurePosixPath(one).parent == folder] or there

    return image


def _zip(path: Path, largest: int = MAX_IMAGE_BYTES) -> dict[str, Callable[[], bytes]]:
    zipped = zipfile.ZipFile(path)

    def reader(name: str) -> Callable[[], bytes]:
        def read() -> bytes:
            size = zipped.getinfo(name).file_size  # no more than that is unpacked
            if size > largest:
                raise UnreadableImage(f"{name} has {size:,} bytes in {path.name}, too many for an image")
            try:
                return zipped.read(name)
            except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
                raise UnreadableImage(f"{name} cannot be read from {path.name} ({error})") from None

        return read

    return {name: reader(name) for name in zipped.namelist() if is_image_name(name) and "__MACOSX" not in name}


def _tar(path: Path) -> dict[str, Callable[[], bytes]]:
    entries: dict[str, Member] = {}
    with open_regular(path) as file:
        if is_compressed(file):
            raise tarfile.ReadError("it is compressed")
    for member in members(str(path), load=headers_only):
        if isinstance(member, CutOff):
            raise tarfile.ReadError(member.reason)
        entries[member.name] = member
    # A hard link has its bytes where it leads to.
    files = {name: entries.get(one.link, one) if one.link else one for name, one in entries.items()}
    places = {name: (one.data_offset, one.size) for name, one in files.items() if not one.other}

    def reader(offset: int, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)

        return read

    return {name: reader(*place) for name, place in places.items() if is_image_name(name)}


# "Flicker8k": the misspelling is the original archive's.
USUAL = (
    "Images", "images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k_images", "flickr30k-images",
    "train2017", "val2017", "test2017", "train2014", "val2014",
    "image", "imgs", "img", "photos", "pictures", "JPEGImages", "original", "data",
)  # fmt: skip
# Folders of captions in data sets whose images lie in a folder beside that one.
_OF_CAPTIONS = re.compile(r"annotations?|captions?|labels?|texts?|.+_texts?", re.IGNORECASE)
_PROBED = 64
_FOLDERS = 60


class ImageFinder:
    """Where images are, by the names that captions give them."""

    def __init__(self, find: Callable[[str], Path | EmbeddedImage | list[str]], gone: Callable[[str], str]) -> None:
        self._find = find
        self._gone = gone
        self._reasons: dict[str, str] = {}

    def __call__(self, name: str) -> Path | EmbeddedImage | None:
        """The path of an image, or the image in an archive; None where it is not in it, or several may be meant."""
        image = self._find(name)
        if not isinstance(image, list):
            return image
        names = " and ".join(PurePosixPath(one).name for one in sorted(image))
        several = f"{name} is not there, but {names} are, and nothing says which is meant"
        self._reasons[name] = several if image else self._gone(name)
        return None

    def reason(self, name: str) -> str:
        """Why there is none."""
        return self._reasons[name]


def locate(names: Sequence[str], near: Sequence[Path], images: Images | None, *, file: str) -> ImageFinder:
    """Where images are that a caption file names.

    `near` are the folders of the caption files, `images` the user's own word, `file` the
    caption file for the message. An image that is there under another ending is taken where only
    one can be meant; one outside of those folders is not, unless `images` says so. Raises `CaptuneError` where not one
    of the images is found in any of the usual places.
    """
    images = images or BESIDE
    folder = images.folder
    if folder is not None and folder.is_file() and folder.suffix.lower() in ENDINGS:
        return _in_archive(names, folder, file)
    if folder is not None and not folder.is_dir():
        raise CaptuneError(
            f"There is no folder of images {folder}.", "Check --images: a folder, or a .zip or .tar of images."
        )
    places = list(_places(near, folder))
    boundary = images.boundary(*near, *_beside(near))
    step = max(1, len(names) // _PROBED)
    folders = _Folders(boundary)
    hits = (
        _hits(names[::step], places, boundary)
        or _hits_in_full(names, places, boundary)
        or _hits_alike(names[::step], places, folders)
    )
    if not hits and names:
        raise _nothing_found(names, places, boundary, file)

    def path_of(name: str) -> Path | list[str]:
        paths = [os.path.join(place, variant(name)) for place, variant in hits]
        there = next((path for path in paths if boundary.holds(path) and os.path.exists(path)), None)
        if there is not None:
            stem = os.path.splitext(there)[0]
            if is_image_name(name) or not is_image_name(there):
                return Path(there)
            # A bare stem: of dog.jpg and dog.png none is more likely meant.
            same = [path for path in folders.alike(stem) if os.path.splitext(path)[0] == stem]
            return same if len(same) > 1 else Path(there)
        near_by = next((near_by for path in paths if (near_by := folders.alike(path))), [])
        if len(near_by) > 1:
            return near_by
        if near_by:
            return Path(near_by[0])
        outside = elsewhere(name) or any(map(os.path.lexists, paths)) or not boundary.holds(paths[0])
        if outside and not images.allow_outside:
            return []
        return Path(paths[0])

    return ImageFinder(path_of, boundary.reason)


def _nothing_found(names: Sequence[str], places: Sequence[Path], boundary: Boundary, file: str) -> CaptuneError:
    """The error for a caption file of which no image is where it may be."""
    outside = next(
        (name for name in names if not any(boundary.holds(os.path.join(place, name)) for place in places)), ""
    )
    outside = outside or next(filter(elsewhere, names), "")
    if outside and not boundary.anywhere:
        return CaptuneError(
            f"None of the {len(names):,} images that {file} names was found inside of its folder: "
            f"{shortened(outside)} lies outside.",
            "Name the folder that holds the images: --images DIR. Or, if you trust the file: --allow-outside",
        )
    searched = ", ".join(str(place) for place in places[:4])
    return CaptuneError(
        f"None of the {len(names):,} images that {file} names was found, for example {names[0]!r}. "
        f"Looked in {searched}{' and usual folders near there' if len(places) > 4 else ''}.",
        "Name the folder that holds the images: --images DIR.",
    )


def _in_archive(names: Sequence[str], archive: Path, file: str) -> ImageFinder:
    image = open_archive(archive)
    if names and not any(image(name) for name in names):
        raise CaptuneError(
            f"None of the {len(names):,} images that {file} names is in {archive}, for example {names[0]!r}.",
            "Name the folder or archive that holds the images: --images DIR.",
        )
    return ImageFinder(image, lambda name: f"{name} is not in {archive}")


def _as_is(name: str) -> str:
    return name


def _alone(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _with_ending(ending: str, name: str) -> str:
    return name if is_image_name(name) else name + ending


# How a caption file may mean a name: a Windows path, a path from another machine, a bare id, ü as one sign or two.
_Variant = Callable[[str], str]
_PATHS: tuple[_Variant, ...] = (_as_is, _slashes, _alone)
_VARIANTS: tuple[_Variant, ...] = (
    *_PATHS,
    *(partial(_with_ending, ending) for ending in (".jpg", ".png")),
    *(partial(unicodedata.normalize, form) for form in ("NFC", "NFD")),
)
_Hits = list[tuple[Path, _Variant]]


def _places(near: Sequence[Path], images: Path | None) -> Iterator[Path]:
    """Folders to look in, the likeliest first, each once."""
    known: set[Path] = set()

    def fresh(candidates: Iterator[Path] | list[Path]) -> Iterator[Path]:
        for place in candidates:
            if place not in known and len(known) < _FOLDERS and place.is_dir():
                known.add(place)
                yield place

    roots = [images] if images is not None else list(near)
    for root in roots:
        yield from fresh([root, *(root / name for name in USUAL)])
    for root in roots:
        yield from fresh([root / name for name in list_folder(root)[1]])
    for inner in list(known):
        yield from fresh([inner / name for name in list_folder(inner)[1]])
    if images is None:
        for above in _above(roots):
            yield from fresh([above, *_usual(above)])


def _beside(near: Sequence[Path]) -> Iterator[Path]:
    """The usual folders of images beside folders of captions; their names alone open no other folder there."""
    for above in _above(near):
        yield from (folder for folder in _usual(above) if folder.is_dir())


def _above(roots: Sequence[Path]) -> Iterator[Path]:
    """The folders that hold a folder of captions."""
    yield from (root.absolute().parent for root in roots if _OF_CAPTIONS.fullmatch(root.absolute().name))


def _usual(above: Path) -> Iterator[Path]:
    yield from (above / name for name in USUAL)
    yield from (above / a / b for a in USUAL for b in USUAL)


def _hits(names: Sequence[str], places: Sequence[Path], boundary: Boundary) -> _Hits:
    """Places that hold at least one of the names, the fullest first; ends at one that holds all."""
    counted: list[tuple[int, Path, _Variant]] = []
    for place in places:
        for variant in _VARIANTS:
            if variant is not _as_is and all(variant(name) == name for name in names):
                continue
            paths = (os.path.join(place, variant(name)) for name in names)
            hits = sum(boundary.holds(path) and os.path.isfile(path) for path in paths)
            if hits == len(names):
                return [(place, variant)]
            counted.append((hits, place, variant))
    return _fullest_first(counted)


def _hits_alike(names: Sequence[str], places: Sequence[Path], folders: _Folders) -> _Hits:
    """As `_hits` for images under other endings than the names have."""
    return _fullest_first(
        (sum(bool(folders.alike(os.path.join(place, variant(name)))) for name in names), place, variant)
        for place in places
        for variant in _PATHS
    )


def _fullest_first(counted: Iterable[tuple[int, Path, _Variant]]) -> _Hits:
    return [(place, variant) for hits, place, variant in sorted(counted, key=lambda hit: -hit[0]) if hits]


def _hits_in_full(names: Sequence[str], places: Sequence[Path], boundary: Boundary) -> _Hits:
    """As `_hits` with every name, by reading folders: for few images of a large caption file."""
    basenames = {_alone(name) for name in names}
    likely = [place for place in places if os.access(place, os.R_OK) and not basenames.isdisjoint(os.listdir(place))]
    return _hits(names, likely, boundary)
