"""The samples of a tar shard: which text belongs to which picture, told from names alone.

A shard is read twice: names and texts first, then the pictures, one in memory at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from captune.core.limits import MAX_IMAGE_BYTES, MAX_SHARD_TEXT_BYTES, MAX_TEXT_BYTES
from captune.data.bulk.tar import CutOff, Member, members
from captune.data.formats.grouping import note
from captune.data.formats.places import is_image_name
from captune.data.source import Problem

TEXTS = ("txt", "caption", "json")


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


def scan(path: Path, problems: list[Problem] | None, *, texts: int = MAX_SHARD_TEXT_BYTES) -> list[Sample]:
    """The samples of a shard, without its images; what is damaged or too large is a problem.

    Members of one key belong together wherever they stand. Their texts have `texts` bytes at most.
    """
    samples: dict[str, Sample] = {}
    room = texts

    def is_text(member: Member) -> bool:
        return kind_of(member.name) == "text" and member.size <= min(MAX_TEXT_BYTES, room)

    for member in members(str(path), load=is_text):
        if isinstance(member, CutOff):
            note(problems, path.name, member.reason)
            break
        kind, where = kind_of(member.name), f"{path.name}, {member.name}"
        if not kind:
            continue
        if member.other:
            note(problems, where, f"{member.other}; unpack the tar and name the folder")
            continue
        sample = samples.setdefault(member.key, Sample(member.key))
        if member.size > (MAX_IMAGE_BYTES if kind == "image" else MAX_TEXT_BYTES):
            note(problems, where, f"has {member.size:,} bytes, too many for its kind")
        elif member.name in sample.pictures or member.name in sample.texts:
            note(problems, where, "the name stands twice in the shard")
        elif kind == "image":
            sample.pictures.append(member.name)
        elif member.data is None:
            note(problems, where, f"the texts before it have {texts:,} bytes: no room for more")
        else:
            sample.texts[member.name] = member.data
            room -= member.size
    return list(samples.values())


def read_pictures(path: Path, wanted: Collection[str], problems: list[Problem] | None) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the wanted pictures of a shard, in its order; one that is cut off is a problem."""
    left = dict.fromkeys(wanted)
    for member in members(str(path), load=lambda one: one.name in left):
        if isinstance(member, CutOff):  # the scan said why
            for name in left:
                note(problems, f"{path.name}, {name}", "lies where the shard cannot be read on")
        elif member.data is not None:
            del left[member.name]
            yield member.name, member.data
        if not left:
            return
