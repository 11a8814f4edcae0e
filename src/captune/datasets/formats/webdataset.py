"""WebDataset: tar shards in which `000017.jpg` and `000017.txt` (or `.json`) make one sample.

A shard is read twice: names and texts first, then the images, one in memory at a time.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from captune.core.errors import CaptuneError
from captune.core.files.limits import MAX_IMAGE_BYTES, MAX_SHARD_TEXT_BYTES, MAX_TEXT_BYTES
from captune.core.files.paths import Images
from captune.datasets.formats.sidecar import Unusable, caption_lines, from_json, parsed
from captune.datasets.merge import EmbeddedImage, Problems, SourceRecord
from captune.datasets.sources.tar import CutOff, Member, headers_only, members
from captune.datasets.tables.columns import CAPTION, CAPTIONS, find_columns, split_from_name
from captune.datasets.tables.files import find_shards
from captune.datasets.tables.rows import NothingUsable, note
from captune.datasets.tables.text import caption_texts, check_file
from captune.images.signatures import is_image_name

DESCRIPTION = (
    "WebDataset tar shards: `key.jpg` with `key.txt`, `key.json` or `key.caption`; a folder or `{000..009}.tar`"
)
RANK = 20
_TEXTS = ("txt", "caption", "json")


@dataclass
class Sample:
    """Members of a shard that share a name up to the first dot: names of images, and texts by name."""

    key: str
    images: list[str] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pair:
    """An image of a sample and the texts that may be its captions, the likeliest first."""

    key: str
    image: str
    texts: tuple[str, ...]


def _kind_of(name: str) -> str:
    """`image`, `text`, or nothing, by the ending of a member."""
    base = name.rpartition("/")[2]
    if is_image_name(base):
        return "image"
    return "text" if base.rpartition(".")[2].lower() in _TEXTS and "." in base else ""


def _stem_of(name: str) -> str:
    """A member's name, with its folders, without its last ending."""
    return name.rpartition(".")[0]


def _paired(sample: Sample) -> tuple[list[_Pair], list[str]]:
    """The images of a sample with their texts, and the images that no text is for.

    A text is for the image of the same name: `a.b.jpg` and `a.b.txt`. One without such an image is the
    sample's own: it goes to the image that is left, or to the first of several. Of texts with different names
    that of the sample's name is meant, else none.
    """
    by_stem: dict[str, list[str]] = {}
    for kind in _TEXTS:
        for name in sample.texts:
            if name.rpartition(".")[2].lower() == kind:
                by_stem.setdefault(_stem_of(name), []).append(name)
    pairs: list[_Pair] = []
    left: list[str] = []
    taken: set[str] = set()
    for image in sample.images:
        stem = _stem_of(image)
        if stem in by_stem and stem not in taken:
            taken.add(stem)
            key = sample.key if stem == sample.key or len(sample.images) == 1 else stem
            pairs.append(_Pair(key, image, tuple(by_stem[stem])))
        else:
            left.append(image)
    stems = [stem for stem in by_stem if stem not in taken]
    free = tuple(by_stem[sample.key] if sample.key in stems else by_stem[stems[0]] if len(stems) == 1 else ())
    if free and left:
        image = left.pop(0)
        key = _stem_of(image) if any(pair.key == sample.key for pair in pairs) else sample.key
        pairs.append(_Pair(key, image, free))
    return pairs, left


def scan(path: Path, problems: Problems, *, texts: int = MAX_SHARD_TEXT_BYTES) -> list[Sample]:
    """The samples of a shard, without its images; what is damaged or too large is a problem.

    Members of one key belong together wherever they stand. Their texts have `texts` bytes at most.
    """
    samples: dict[str, Sample] = {}
    room = texts

    def is_text(member: Member) -> bool:
        return _kind_of(member.name) == "text" and member.size <= min(MAX_TEXT_BYTES, room)

    for member in members(str(path), load=is_text):
        if isinstance(member, CutOff):
            note(problems, path.name, member.reason)
            break
        kind, where = _kind_of(member.name), f"{path.name}, {member.name}"
        if not kind:
            continue
        if member.other:
            note(problems, where, f"{member.other}; unpack the tar and name the folder")
            continue
        sample = samples.setdefault(member.key, Sample(member.key))
        if member.size > (MAX_IMAGE_BYTES if kind == "image" else MAX_TEXT_BYTES):
            note(problems, where, f"has {member.size:,} bytes, too many for its kind")
        elif member.name in sample.images or member.name in sample.texts:
            note(problems, where, "the name stands twice in the shard")
        elif kind == "image":
            sample.images.append(member.name)
        elif member.data is None:
            note(problems, where, f"the texts before it have {texts:,} bytes: no room for more")
        else:
            sample.texts[member.name] = member.data
            room -= member.size
    return list(samples.values())


def _read_images(path: Path, names: Collection[str], problems: Problems) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of these images of a shard, in its order; one that is cut off is a problem."""
    left = dict.fromkeys(names)
    for member in members(str(path), load=lambda one: one.name in left):
        if isinstance(member, CutOff):  # the scan said why
            for name in left:
                note(problems, f"{path.name}, {name}", "lies where the shard cannot be read on")
        elif member.data is not None:
            del left[member.name]
            yield member.name, member.data
        if not left:
            return


class _Captions(NamedTuple):
    """The captions of an image, and the split that its JSON names."""

    key: str
    captions: tuple[str, ...]
    split: str | None = None


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = _shards(source)
    if not paths:
        return None
    try:
        first = list(islice(members(str(paths[0]), load=headers_only), 20))
    except CaptuneError:
        return None
    kinds = {_kind_of(member.name) for member in first if isinstance(member, Member) and not member.other}
    return f"{paths[0].name} is a tar of images and their texts" if {"image", "text"} <= kinds else None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    paths = _shards(source)
    if not paths:
        raise CaptuneError(
            f"There are no tar shards in {source}.", "Name a .tar file, a folder, or shard-{000..009}.tar."
        )
    for path in paths:
        check_file(path)
    return _records(paths, source, problems)


def _records(paths: list[Path], source: Path, problems: Problems) -> Iterator[SourceRecord]:
    empty = True
    for path in paths:
        split = split_from_name(path.name.split(".")[0]) or split_from_name(path.parent.name)
        shard = path.name.split(".")[0]
        captions_of: dict[str, _Captions] = {}
        for sample in scan(path, problems):
            captions_of |= _captions_of_sample(sample, path.name, problems)
        for member, data in _read_images(path, captions_of, problems):
            key, captions, stated = captions_of[member]
            empty = False
            name = f"{shard}_{key.replace('/', '_')}.{member.rpartition('.')[2]}"
            image = EmbeddedImage(name, lambda data=data: data)  # type: ignore[misc]
            yield SourceRecord(f"{shard}/{key}", image, captions, stated or split, f"{path.name}, {member}")
    if empty:
        raise NothingUsable(source, problems, f"Expected: {DESCRIPTION}.")


def _shards(source: Path) -> list[Path]:
    return find_shards(source, (".tar", ".tar.gz", ".tgz"))


def _captions_of_sample(sample: Sample, shard: str, problems: Problems) -> dict[str, _Captions]:
    """The captions of each image of a sample; an image without a caption of its own is a problem."""

    def where(image: str) -> str:
        return f"{shard}, {image if len(sample.images) > 1 else f'sample {sample.key}'}"

    if not sample.images:
        note(problems, where(""), f"has no image, only {', '.join(sample.texts)}")
        return {}
    if not sample.texts:
        for image in sample.images:
            note(problems, where(image), "has no caption")
        return {}
    captions = _by_name(sample)
    rest = Sample(sample.key, [name for name in sample.images if name not in captions], sample.texts)
    if not rest.images:
        return captions
    pairs, left = _paired(rest)
    for pair in pairs:
        try:
            captions[pair.image] = _captions(pair, rest)
        except Unusable as error:
            note(problems, where(pair.image), f"its caption is {error}")
    for image in left:
        others = [pair.image for pair in pairs if pair.image in captions]
        instead = f" went to {', '.join(others)}" if others else ""
        texts = ", ".join(sample.texts)
        note(problems, f"{shard}, {image}", f"no text of sample {sample.key} names this image ({texts}{instead})")
    return captions


def _captions(pair: _Pair, sample: Sample) -> _Captions:
    """The first of an image's texts that has captions (a text's lines; JSON's usual keys)."""
    reason = Unusable("empty")
    for name in pair.texts:
        try:
            if name.lower().endswith(".json"):
                texts, split = from_json(parsed(sample.texts[name]))
            else:
                texts, split = caption_lines(sample.texts[name]), None
        except Unusable as error:
            reason = error
            continue
        captions = caption_texts(texts)
        if len(captions) == len(sample.images) > 1 and _stem_of(name) != _stem_of(pair.image):
            raise Unusable(f"one of {len(captions)} in {name}, which does not say whose is which")
        if captions:
            return _Captions(pair.key, captions, split)
    raise reason


def _by_name(sample: Sample) -> dict[str, _Captions]:
    """Captions that the JSON of a sample of several images has under their names: a mapping, or a list of rows."""
    captions_by_name: dict[str, _Captions] = {}
    if len(sample.images) < 2:
        return captions_by_name
    for name, data in sample.texts.items():
        if not name.lower().endswith(".json"):
            continue
        try:
            value = parsed(data)
        except Unusable:
            continue  # reported where it is read as the sample's own text
        for image in sample.images:
            texts = next((texts for key, texts in _rows(value) if key in _names(image, sample.key)), None)
            captions = caption_texts(texts or ())
            if captions:
                captions_by_name[image] = _Captions(image.rpartition(".")[0], captions)
    return captions_by_name


def _rows(value: Any) -> Iterator[tuple[str, Sequence[str]]]:
    """Names and captions of images, as JSON may list them; one with captions of its own names none."""
    if isinstance(value, list):
        for row in value:
            columns = find_columns(row) if isinstance(row, dict) else None
            if columns is not None:
                yield str(row.get(columns.image)), _texts(row)
    elif isinstance(value, dict) and not caption_texts(_texts(value)):
        inner = next((value[key] for key in (*CAPTION, *CAPTIONS) if isinstance(value.get(key), dict)), value)
        for key, texts in inner.items():
            yield str(key), _texts(texts)


def _texts(value: Any) -> Sequence[str]:
    try:
        return from_json(value)[0]
    except Unusable:
        return ()  # as above: reported where it is read


def _names(image: str, key: str) -> set[str]:
    """How JSON may name an image of a sample: whole, without folders, without the key, without the ending."""
    alone = PurePosixPath(image).name
    behind = image[len(key) + 1 :]
    return {image, alone, behind, alone.rpartition(".")[0], behind.rpartition(".")[0]} - {""}
