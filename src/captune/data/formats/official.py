"""The splits that papers report on, read from the files that came with the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError, UsageError, did_you_mean
from captune.data.formats.karpathy import entries, fits
from captune.data.formats.places import listing
from captune.data.formats.split_words import split_named
from captune.data.formats.text import numbered

OFFICIAL = ("flickr8k", "karpathy")
_FLICKR8K = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_FOLDERS = ("Flickr8k_text", "Flickr8k_text/Flickr8k_text", "text", "splits", "caption_datasets", "annotations")


def official_split(name: str, source: str | Path) -> dict[str, str]:
    """File names of pictures and their splits (train, val, test), 6,000/1,000/1,000 for `flickr8k`.

    Looks beside the source, in the usual folders there, and the same one folder higher.
    Raises `UsageError` for another name, `CaptuneError` that lists the places where the
    files were looked for.
    """
    if name not in OFFICIAL:
        raise UsageError(f"There is no official split '{name}'.", did_you_mean(name, OFFICIAL))
    looked = list(_folders(Path(source)))
    return _flickr8k(looked) if name == "flickr8k" else _karpathy(Path(source), looked)


def _folders(source: Path) -> Iterator[Path]:
    here = source if source.is_dir() else source.parent
    seen: set[Path] = set()
    for folder in (here, here.absolute().parent):
        inner = [folder / name for name in listing(folder)[1]] if folder == here else []
        for candidate in (folder, *(folder / name for name in _FOLDERS), *inner):
            if candidate not in seen and candidate.is_dir():
                seen.add(candidate)
                yield candidate


def _flickr8k(folders: list[Path]) -> dict[str, str]:
    for folder in folders:
        if not all((folder / file).is_file() for file in _FLICKR8K.values()):
            continue
        splits: dict[str, str] = {}
        for split, file in _FLICKR8K.items():
            for number, line in numbered(folder / file):
                picture = line.strip()
                if splits.setdefault(picture, split) != split:
                    raise CaptuneError(
                        f"{folder / file}, line {number}: {picture} is in {split} and in {splits[picture]}.",
                        "Fetch the original split files again.",
                    )
        return splits
    raise CaptuneError(
        f"The official Flickr8k split needs {', '.join(_FLICKR8K.values())}; looked in {_listed(folders)}.",
        "They are in Flickr8k_text.zip of the original data set (Kaggle's copy leaves them out): put them beside the "
        "captions, or split by ratios: --split 80/10/10.",
    )


def _karpathy(source: Path, folders: list[Path]) -> dict[str, str]:
    for place in (source, *folders):
        found = [place] if place.is_file() else sorted(place.glob("*.json"))
        splits: dict[str, str] = {}
        # caption_datasets.zip has the files of three data sets, in which no name stands twice.
        for path in filter(fits, found):
            for entry in entries(path):
                if isinstance(entry, dict) and entry.get("filename"):
                    splits[str(entry["filename"])] = split_named(str(entry.get("split") or "")) or "train"
        if splits:
            return splits
    raise CaptuneError(
        f"Karpathy's split needs dataset_flickr8k.json, dataset_flickr30k.json or dataset_coco.json; "
        f"looked in {_listed(folders)}.",
        "They are in caption_datasets.zip (cs.stanford.edu/people/karpathy/deepimagesent): put the one for this data "
        "set beside the captions, or split by ratios: --split 80/10/10.",
    )


def _listed(folders: list[Path]) -> str:
    return ", ".join(str(folder) for folder in folders[:5]) + (" and more" if len(folders) > 5 else "")
