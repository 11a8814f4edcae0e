"""The samples of a tar shard: which text belongs to which picture, told from names alone.

A shard is read twice: names and texts first, then the pictures, one in memory at a time.
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captune.core.files import open_regular
from captune.core.limits import LARGEST_PICTURE, LARGEST_TEXT, LARGEST_TEXTS
from captune.core.names import below
from captune.data.formats.grouping import note
from captune.data.formats.places import is_image_name
from captune.data.formats.tar_entries import what_instead
from captune.data.source import Problem
from captune.data.tar_headers import BROKEN, Header

TEXTS = ("txt", "caption", "json")
_BROKEN = (OSError, *BROKEN)


@dataclass
class Sample:
    """Members of a shard that share a name up to the first dot: names of pictures, and texts by name."""

    key: str
    pictures: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A picture of a sample and the texts that may be its captions, the likeliest first."""

    key: str
    picture: str
    texts: tuple[str, ...]


def kind_of(name: str) -> str:
    """`image`, `text`, or nothing, by the ending of a member."""
    base = name.rpartition("/")[2]
    if base.startswith("."):
        return ""
    if is_image_name(base):
        return "image"
    return "text" if base.rpartition(".")[2].lower() in TEXTS and "." in base else ""


def stem_of(name: str) -> str:
    """A member's name, with its folders, without its last ending."""
    return name.rpartition(".")[0]


def paired(sample: Sample) -> tuple[list[Pair], list[str]]:
    """The pictures of a sample with their texts, and the pictures that no text is for.

    A text is for the picture of the same name: `a.b.jpg` and `a.b.txt`. One without such a picture is the
    sample's own: it goes to the picture that is left, or to the first of several. Of texts with different names
    that of the sample's name is meant, else none.
    """
    by_stem: dict[str, list[str]] = {}
    for kind in TEXTS:
        for name in sample.texts:
            if name.rpartition(".")[2].lower() == kind:
                by_stem.setdefault(stem_of(name), []).append(name)
    pairs: list[Pair] = []
    left: list[str] = []
    taken: set[str] = set()
    for picture in sample.pictures:
        stem = stem_of(picture)
        if stem in by_stem and stem not in taken:
            taken.add(stem)
            key = sample.key if stem == sample.key or len(sample.pictures) == 1 else stem
            pairs.append(Pair(key, picture, tuple(by_stem[stem])))
        else:
            left.append(picture)
    stems = [stem for stem in by_stem if stem not in taken]
    free = tuple(by_stem[sample.key] if sample.key in stems else by_stem[stems[0]] if len(stems) == 1 else ())
    if free and left:
        picture = left.pop(0)
        key = stem_of(picture) if any(pair.key == sample.key for pair in pairs) else sample.key
        pairs.append(Pair(key, picture, free))
    return pairs, left


def scan(path: Path, problems: list[Problem] | None, *, texts: int = LARGEST_TEXTS) -> list[Sample]:
    """The samples of a shard, without its pictures; what is damaged or too large is a problem.

    Members of one key belong together wherever they stand. Their texts have `texts` bytes at most.
    """
    found: dict[str, Sample] = {}
    last = "none"
    room = texts
    try:
        with tarfile.open(path, _mode(path), tarinfo=Header) as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                name = below(member.name)
                kind = "" if member.isdir() else kind_of(name)
                if not kind:
                    continue
                if not member.isfile():
                    note(
                        problems, f"{path.name}, {name}", f"{what_instead(member)}; unpack the tar and name the folder"
                    )
                    continue
                folder, slash, base = name.rpartition("/")
                last = folder + slash + base.partition(".")[0]
                sample = found.setdefault(last, Sample(last))
                if member.size > (LARGEST_PICTURE if kind == "image" else LARGEST_TEXT):
                    note(problems, f"{path.name}, {name}", f"has {member.size:,} bytes, too many for its kind")
                elif name in sample.pictures or name in sample.texts:
                    note(problems, f"{path.name}, {name}", "the name stands twice in the shard")
                elif kind == "image":
                    sample.pictures.append(name)
                elif member.size > room:
                    note(
                        problems, f"{path.name}, {name}", f"the texts before it have {texts:,} bytes: no room for more"
                    )
                else:
                    content = shard.extractfile(member)
                    assert content is not None
                    sample.texts[name] = content.read()
                    room -= member.size
    except _BROKEN as error:
        note(problems, path.name, f"the shard cannot be read on after sample {last} ({error}); copy it again")
    else:
        if not _ends(path):
            note(problems, path.name, f"the shard is cut off after sample {last}; copy it again")
    return list(found.values())


def read_pictures(path: Path, wanted: Collection[str], problems: list[Problem] | None) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the wanted pictures of a shard, in its order; one that is cut off is a problem."""
    left = dict.fromkeys(wanted)
    try:
        with tarfile.open(path, _mode(path), tarinfo=Header) as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined]
                name = below(member.name)
                if not member.isfile() or name not in left:
                    continue
                content = shard.extractfile(member)
                assert content is not None
                data = content.read()
                del left[name]
                yield name, data
                if not left:
                    return
    except _BROKEN:  # the scan said why
        for name in left:
            note(problems, f"{path.name}, {name}", "lies where the shard cannot be read on")


def _mode(path: Path) -> Any:
    """A plain tar is read with seeking, so that names cost little; a compressed one as a stream."""
    with open_regular(path) as file:
        return "r:" if file.read(262)[257:] == b"ustar" else "r|*"


def _ends(path: Path) -> bool:
    """Whether a tar has its end mark, a block of zeros: tarfile is silent about a missing one."""
    if path.suffix != ".tar":
        return True  # a compressed one has its own check
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - tarfile.BLOCKSIZE))
        return not file.read().strip(b"\0")
