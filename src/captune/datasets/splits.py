"""Which image belongs to which split: by image, never by caption; the official splits of papers."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.core.records import ImageRecord
from captune.datasets.formats.karpathy import entries, fits
from captune.datasets.tables.columns import normalize_split
from captune.datasets.tables.files import list_folder
from captune.datasets.tables.text import numbered

RATIOS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HELP = "Give ratios (80/10/10), flickr8k, karpathy, split files (train=FILE val=FILE test=FILE), or auto."


@dataclass(frozen=True)
class Assignment:
    """`splits` maps record ids to split names (records of no split are absent); `how` and `notes` say it in words."""

    splits: dict[str, str]
    how: str
    notes: tuple[str, ...] = ()


def assign(
    records: Sequence[ImageRecord], how: Sequence[str], seed: int, official: Callable[[str], Mapping[str, str]]
) -> Assignment:
    """Give every record its split as `--split` says; all records of one image have the same.

    `how` is ("auto",), (ratios,), (an official name,) or split files; `official` returns
    {file name: split} for an official name. Raises `UsageError` or `CaptuneError` where the
    values, files or names do not fit the records.
    """
    firsts: dict[str, ImageRecord] = {}
    for record in records:
        firsts.setdefault(record.image, record)
    assignment = _assign(list(firsts.values()), how, seed, official)
    ids = {record.id: firsts[record.image].id for record in records}
    splits = {id: assignment.splits[first] for id, first in ids.items() if first in assignment.splits}
    return Assignment(splits, assignment.how, assignment.notes)


def _assign(
    records: Sequence[ImageRecord], how: Sequence[str], seed: int, official: Callable[[str], Mapping[str, str]]
) -> Assignment:
    values = [value for entry in how for value in entry.split() if value]
    first = values[0] if values else "auto"
    if len(values) <= 1 and first == "auto":
        return _auto(records, seed)
    if len(values) == 1 and first.lower() in OFFICIAL:
        return _by_names(records, official(first.lower()), f"official split {first.lower()}")
    if len(values) == 1 and "/" in first and "=" not in first and not Path(first).exists():
        ratios = parse_ratios(first)
        by_ratio = split_by_ratio((record.id for record in records), ratios, seed)
        return Assignment(by_ratio, f"{_shares(ratios)}, seed {seed}")
    return _from_files(records, values)


def split_by_ratio(ids: Iterable[str], ratios: Mapping[str, float], seed: int) -> dict[str, str]:
    """Split ids at random; the same ids, ratios and seed give the same splits on every machine.

    The order in which ids come does not matter: they are ordered by a digest of seed and id.
    Sizes are rounded by largest remainder, and where there are enough ids no split with a
    share above zero stays empty.
    """
    ordered = sorted(set(ids), key=lambda id: hashlib.sha256(f"{seed}\n{id}".encode("utf-8", "surrogatepass")).digest())
    names = list(ratios)
    exact = [ratios[name] * len(ordered) for name in names]
    counts = [int(share + 1e-9) for share in exact]
    by_remainder = sorted(range(len(names)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: len(ordered) - sum(counts)]:
        counts[i] += 1
    for i, name in enumerate(names):
        largest = counts.index(max(counts))
        if ratios[name] > 0 and counts[i] == 0 and counts[largest] > 1:
            counts[i], counts[largest] = 1, counts[largest] - 1
    splits: dict[str, str] = {}
    start = 0
    for name, count in zip(names, counts, strict=True):
        splits.update(dict.fromkeys(ordered[start : start + count], name))
        start += count
    return splits


def parse_ratios(text: str) -> dict[str, float]:
    """`80/10/10`, `0.8/0.1/0.1` or `90/10` as shares of train, val and test that add up to 1."""
    parts = text.split("/")
    try:
        shares = [float(part) for part in parts]
    except ValueError:
        raise UsageError(f"--split {text}: these are no ratios.", _HELP) from None
    if len(shares) not in (2, 3) or any(not 0 <= share <= 100 for share in shares):
        raise UsageError(f"--split {text}: expected two or three shares (train/val or train/val/test).", _HELP)
    total = sum(shares)
    if not any(abs(total - whole) < 1e-6 * whole for whole in (1, 100)):
        raise UsageError(f"--split {text}: the shares add up to {total:g}, not to 100 (or 1).", _HELP)
    return {name: share / total for name, share in zip(RATIOS, shares, strict=False)}


def split_name(name: str) -> str:
    """A split's name as captune writes it: train, val, test, or the source's own."""
    plain = normalize_split(name) or ""
    if not _SAFE.fullmatch(plain):
        raise CaptuneError(f"{name!r} cannot be the name of a split.", "Use letters, digits, '-' and '_'.")
    return plain


def _auto(records: Sequence[ImageRecord], seed: int) -> Assignment:
    splits = {record.id: split_name(record.split) for record in records if record.split}
    names = set(splits.values())
    if len(names) < 2:
        only = f"the source names one split only ({names.pop()})" if names else "the source names no splits"
        everyone = split_by_ratio((record.id for record in records), RATIOS, seed)
        return Assignment(everyone, f"{_shares(RATIOS)}, seed {seed}: {only}")
    notes = []
    if "val" not in names and "train" in names:
        train = [id for id, split in splits.items() if split == "train"]
        carved = split_by_ratio(train, {"train": 0.9, "val": 0.1}, seed)
        splits.update(carved)
        taken = sum(split == "val" for split in carved.values())
        notes.append(
            f"The source has no val split: {taken:,} of its {len(train):,} train images became val (seed {seed})."
        )
    for missing in sorted({"train", "test"} - names):
        notes.append(f"The source has no {missing} split; its own splits are kept. For new ones: --split 80/10/10")
    return Assignment(splits, "the source's own splits", tuple(notes))


def _by_names(records: Sequence[ImageRecord], split_of: Mapping[str, str], how: str) -> Assignment:
    """Splits by a list of names; names that the source lacks are counted, not an error."""
    find = _Finder(records)
    splits: dict[str, str] = {}
    absent = 0
    for name, split in split_of.items():
        record = find(name)
        if record is None:
            absent += 1
        else:
            splits[record.id] = split_name(split)
    if not splits:
        example = next(iter(split_of), "none")
        raise CaptuneError(
            f"The {how} names no image of this source (it names {example}; the source has {find.example}).",
            "Is this the right data set? Otherwise: --split 80/10/10",
        )
    notes = (f"{absent:,} of the {len(split_of):,} names in the {how} are no images of this source.",) if absent else ()
    return Assignment(splits, how, notes)


def _from_files(records: Sequence[ImageRecord], values: Sequence[str]) -> Assignment:
    find = _Finder(records)
    splits: dict[str, str] = {}
    where: dict[str, str] = {}
    absent: list[str] = []
    total = 0
    for value in values:
        split, path = _split_file(value)
        for line, name in _names_in(path):
            total += 1
            record = find(name)
            if record is None:
                absent.append(f"{path}, line {line}: {name}")
                continue
            if splits.get(record.id, split) != split:
                raise CaptuneError(
                    f"{path}, line {line}: {name} is in {split} and, by {where[record.id]}, in {splits[record.id]}.",
                    "An image can be in one split only; remove it from one of the files.",
                )
            splits[record.id] = split
            where[record.id] = f"{path}, line {line}"
    if not splits:
        first = absent[0] if absent else "the files are empty"
        raise CaptuneError(
            f"The split files name no image of this source ({first}; the source has {find.example}).",
            "List one file name or id a line, as the source names them.",
        )
    notes: list[str] = []
    if absent:
        notes.append(
            f"{len(absent):,} of the {total:,} names in the split files are no images here, first {absent[0]}."
        )
    counts = Counter(splits.values())
    return Assignment(
        splits, "split files (" + ", ".join(f"{name} {counts[name]:,}" for name in counts) + ")", tuple(notes)
    )


def _split_file(value: str) -> tuple[str, Path]:
    """Split name and file of `train=FILE`, or of a file whose own name tells (Flickr_8k.trainImages.txt)."""
    name, equals, file = value.partition("=")
    path = Path(file if equals else value).expanduser()
    if not path.is_file():
        problem = f"--split {value}: there is no file {path}." if equals else f"--split {value} is not understood."
        raise UsageError(problem, _HELP)
    if equals:
        return split_name(name), path
    for part in re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", path.stem).lower()):
        if normalize_split(part) in RATIOS:
            return split_name(part), path
    raise UsageError(f"--split {value}: of which split is this the list?", f"Write train={value}")


def _names_in(path: Path) -> Iterable[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CaptuneError(f"{path} is not UTF-8 text.", "Expected one file name or id a line.") from None
    except OSError as error:
        raise CaptuneError(f"Cannot read {path}: {error.strerror}.", "Check the path.") from None
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if name and not name.startswith("#"):
            yield number, name


class _Finder:
    """Finds a record by its id, its image's file name, or that name without its ending."""

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self.example = PurePath(records[0].image).name if records else "no images"
        self._ids = {record.id: record for record in records}
        self._names: dict[str, ImageRecord | None] = {}
        for record in records:
            path = PurePath(record.image)
            for name in {path.name, path.stem}:
                # None: more than one image is called that.
                self._names[name] = record if self._names.get(name, record) is record else None

    def __call__(self, name: str) -> ImageRecord | None:
        if name in self._ids:
            return self._ids[name]
        path = PurePath(name)
        for file_name in (path.name, path.stem):
            if file_name in self._names:
                record = self._names[file_name]
                if record is None:
                    raise CaptuneError(f"More than one image is called {file_name}.", "List their ids instead.")
                return record
        return None


def _shares(ratios: Mapping[str, float]) -> str:
    return "/".join(f"{100 * share:g}" for share in ratios.values()) + " by image"


OFFICIAL = ("flickr8k", "karpathy")
_FLICKR8K = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}
_FOLDERS = ("Flickr8k_text", "Flickr8k_text/Flickr8k_text", "text", "splits", "caption_datasets", "annotations")


def official_split(name: str, source: str | Path) -> dict[str, str]:
    """File names of images and their splits (train, val, test), 6,000/1,000/1,000 for `flickr8k`.

    Looks beside the source, in the usual folders there, and the same one folder higher.
    Raises `UsageError` for another name, `CaptuneError` that lists the places where the
    files were looked for.
    """
    if name not in OFFICIAL:
        raise UsageError(f"There is no official split '{name}'.", did_you_mean(name, OFFICIAL))
    folders = list(_folders(Path(source)))
    return _flickr8k(folders) if name == "flickr8k" else _karpathy(Path(source), folders)


def _folders(source: Path) -> Iterator[Path]:
    here = source if source.is_dir() else source.parent
    known: set[Path] = set()
    for folder in (here, here.absolute().parent):
        inner = [folder / name for name in list_folder(folder)[1]] if folder == here else []
        for candidate in (folder, *(folder / name for name in _FOLDERS), *inner):
            if candidate not in known and candidate.is_dir():
                known.add(candidate)
                yield candidate


def _flickr8k(folders: list[Path]) -> dict[str, str]:
    for folder in folders:
        if not all((folder / file).is_file() for file in _FLICKR8K.values()):
            continue
        splits: dict[str, str] = {}
        for split, file in _FLICKR8K.items():
            for number, line in numbered(folder / file):
                image = line.strip()
                if splits.setdefault(image, split) != split:
                    raise CaptuneError(
                        f"{folder / file}, line {number}: {image} is in {split} and in {splits[image]}.",
                        "Fetch the original split files again.",
                    )
        return splits
    raise CaptuneError(
        f"The official Flickr8k split needs {', '.join(_FLICKR8K.values())}; looked in {_official_listed(folders)}.",
        "They are in Flickr8k_text.zip of the original data set (Kaggle's copy leaves them out): put them beside the "
        "captions, or split by ratios: --split 80/10/10.",
    )


def _karpathy(source: Path, folders: list[Path]) -> dict[str, str]:
    for place in (source, *folders):
        files = [place] if place.is_file() else sorted(place.glob("*.json"))
        splits: dict[str, str] = {}
        # caption_datasets.zip has the files of three data sets, in which no name stands twice.
        for path in filter(fits, files):
            for entry in entries(path):
                if isinstance(entry, dict) and entry.get("filename"):
                    splits[str(entry["filename"])] = normalize_split(str(entry.get("split") or "")) or "train"
        if splits:
            return splits
    raise CaptuneError(
        f"Karpathy's split needs dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json; "
        f"looked in {_official_listed(folders)}.",
        "They are in caption_datasets.zip (cs.stanford.edu/people/karpathy/deepimagesent): put the one for this data "
        "set beside the captions, or split by ratios: --split 80/10/10.",
    )


def _official_listed(folders: list[Path]) -> str:
    return ", ".join(str(folder) for folder in folders[:5]) + (" and more" if len(folders) > 5 else "")
