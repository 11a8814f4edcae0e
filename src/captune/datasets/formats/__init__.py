"""Dataset formats: each is a module with `DESCRIPTION`, `sniff`, `rows` or `read`, and perhaps `RANK`.

    DESCRIPTION: str                       one line for the docs
    RANK: int                              of two formats that both fit, the higher is taken (default 10)
    sniff(source, images) -> str | None    a sentence that says why the source is of this format
    rows(source, problems, side) -> Iterator[Row]               where captions can be read without the images
    read(source, *, images, problems) -> Iterator[SourceRecord]     images: Images | None, see `core.files.paths`

`sniff` opens at most the head of a few files. `score` reads rows; `side` says whose captions are meant where
a file holds those of people and of a model. `prepare` reads records: one for each image, with all its captions. The
text may be held in memory, images never are. Without `read` they are made of the rows. What cannot be used is
appended to `problems`; where that is None the first of it raises.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from captune.core.errors import CaptuneError
from captune.core.files.paths import BESIDE, CLEANED, Images, is_pattern, written_here
from captune.core.tables import Table
from captune.datasets.merge import Problem, Problems, SourceRecord
from captune.datasets.tables.files import clear_cache, find_caption_files, find_shards, list_folder, unopened
from captune.datasets.tables.rows import Row, Side, group, row_of
from captune.datasets.tables.text import check_file, first_line, head

FORMATS = Table(
    "dataset format",
    {
        "captune": "captune.datasets.formats.prepared",
        "library": "captune.library.dataset",
        "datasets": "captune.datasets.formats.hub",
        "karpathy": "captune.datasets.formats.karpathy",
        "imagefolder": "captune.datasets.formats.image_folder",
        "coco": "captune.datasets.formats.coco",
        "vqa": "captune.datasets.formats.vqa",
        "flickr30k": "captune.datasets.formats.flickr30k",
        "kaggle": "captune.datasets.formats.kaggle",
        "flickr-token": "captune.datasets.formats.flickr_token",
        "pipe": "captune.datasets.formats.pipe",
        "kohya": "captune.datasets.formats.kohya",
        "csv": "captune.datasets.formats.csv_table",
        "jsonl": "captune.datasets.formats.jsonl",
        "parquet": "captune.datasets.formats.parquet",
        "webdataset": "captune.datasets.formats.webdataset",
        "sidecar": "captune.datasets.formats.sidecar",
    },
    group="captune.formats",
)
_DEFAULT_RANK = 10
# What a file's name promises, so that a file which fits nothing gets that format's own, exact message.
_SUFFIXES = {
    "csv": (".csv", ".tsv", ".tab", ".psv"),
    "jsonl": (".jsonl", ".ndjson"),
    "coco": (".json",),
    "flickr-token": (".token",),
    "parquet": (".parquet",),
    "webdataset": (".tar", ".tgz"),
}


def find_format(source: str | Path, images: Path | None = None) -> tuple[str, str]:
    """The name of the source's format and the reason.

    Raises `CaptuneError` where the source does not exist, where no format fits (with
    what was looked for), or where several fit and none is the more specific.
    """
    source = Path(source)
    return recognised(source, images) or _by_suffix(source)


def recognised(source: Path, images: Path | None = None) -> tuple[str, str] | None:
    """As `find_format`, but None where no format fits."""
    clear_cache()
    _check_exists(source)
    fitting: list[tuple[int, str, str]] = []
    for name, module in FORMATS.items():
        why = module.sniff(source, images)
        if why:
            fitting.append((getattr(module, "RANK", _DEFAULT_RANK), name, why))
    if not fitting:
        return None
    best = max(rank for rank, _, _ in fitting)
    first = [(name, why) for rank, name, why in fitting if rank == best]
    if len(first) > 1:
        reasons = "; ".join(f"{name}: {why}" for name, why in first)
        raise CaptuneError(
            f"{source} fits several dataset formats ({reasons}).",
            f"Name the caption file itself, or --format {first[0][0]}.",
        )
    return first[0]


def read_source(
    source: str | Path,
    format: str | None = None,
    images: str | Path | None = None,
    problems: Problems = None,
    *,
    allow_outside: bool = False,
) -> tuple[str, Iterator[SourceRecord]]:
    """The format's name and the records of a source: a file, a folder, shards, or `hf:org/name`.

    Rows that cannot be used are appended to `problems`; without that list the first raises
    `CaptuneError`. Images inside archives may be read only before the next record. Files that the source names
    outside of the folder `images` (None: of its own) are problems unless `allow_outside`.
    """
    source = Path(source)
    folder = Path(images) if images is not None else None
    name = find_format(source, folder)[0] if format is None else format
    module = FORMATS[name]  # an unknown name is reported before a missing source
    if format is not None:
        clear_cache()
        _check_exists(source)
    # What captune cleaned here names images by their absolute paths.
    own = written_here(source.parent, [source.name]) if source.is_file() else written_here(source, [CLEANED])
    folders = Images(folder, allow_outside or own)
    chosen = None if folders == BESIDE else folders
    if problems is not None and source.is_dir():
        problems += [Problem(one, "a pipe, a socket or a device, which is not opened") for one in unopened(source)]
    if hasattr(module, "read"):
        return name, module.read(source, images=chosen, problems=problems)
    return name, group(module.rows(source, problems), source, chosen, problems)


def promised(path: Path) -> str | None:
    """The format that a file's name speaks of."""
    name = path.name.lower().removesuffix(".gz")
    return next((format for format, suffixes in _SUFFIXES.items() if name.endswith(suffixes)), None)


def read_rows(
    source: str | Path, problems: Problems = None, side: Side = "references", format: str | None = None
) -> tuple[str, Iterator[Row]]:
    """The format's name and the rows of a source, whose images need not be there. Raises as `read_source`."""
    source = Path(source)
    name = format or find_format(source)[0]
    module = FORMATS[name]
    if hasattr(module, "rows"):
        return name, module.rows(source, problems, side)
    return name, map(row_of, module.read(source, images=None, problems=problems))


def _check_exists(source: Path) -> None:
    if str(source).startswith("hf:") or is_pattern(str(source)):
        return
    if not source.exists():
        files, folders = list_folder(source.parent)
        near = [*files, *folders]
        hint = f"{source.parent} holds {', '.join(near[:8])}." if near else "Check the path."
        raise CaptuneError(f"There is no file or folder {source}.", hint)
    if not os.access(source, os.R_OK):
        raise CaptuneError(f"No permission to read {source}.", "Change its permissions, or copy it.")


def _by_suffix(source: Path) -> tuple[str, str]:
    if source.is_file():
        check_file(source)
        line = first_line(source) or ""
        name = promised(source)
        if name == "coco" and not any(key in (head(source) or "") for key in ('"images"', '"annotations"')):
            name = "jsonl"
        if name is not None:
            return name, f"its name ends in {source.suffix}"
        content = f"Its first line is {line[:80]!r}." if line and "\ufffd" not in line else "It is not text."
    elif find_shards(source, (".parquet", ".pq")):
        return "parquet", "it holds Parquet files"
    else:
        likely = ("*caption*", "*token*", "results.csv", "*.csv", "*.json*")
        for path in find_caption_files(source, likely, lambda path: True):
            check_file(path)
        files, folders = list_folder(source)
        content = f"It holds {', '.join((*files, *folders)[:8]) or 'no caption file and no folder'}."
    expected = "\n".join(f"  {name}: {module.DESCRIPTION}" for name, module in FORMATS.items())
    raise CaptuneError(
        f"No captions were recognised in {source}. {content}",
        f"The simplest is a file captions.txt beside a folder Images:\n"
        f'  image,caption\n  dog.jpg,A dog runs on grass.\n  dog.jpg,"A dog, running."\nLooked for:\n{expected}',
    )
