"""From the records of a source to one record an image, every image a file on disk."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from captune.core.errors import CaptuneError
from captune.core.files import disk_error
from captune.core.progress import SILENT, Progress
from captune.core.records import ImageRecord
from captune.core.text import fit_name
from captune.images.signatures import IMAGE_SUFFIXES


class UnreadableImage(Exception):
    """An image in an archive that cannot be read, or is too large to be one: which, and why."""


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An image that lies inside a tar shard, a Parquet file or a Hub data set.

    `name` is the file name it should get; `read` returns its bytes as they were stored or raises `UnreadableImage`,
    and may only be called before the next record is asked for. Images with equal bytes are one image, unless the
    captions tell them apart by their `key`.
    """

    name: str
    read: Callable[[], bytes]
    key: str | None = None


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """An image with its references as the source states them; with a `question`, its answers.

    `where` says where in the source it stands ("captions.txt, line 12"), for messages, `named`
    what it calls the image. `rejected` counts captions that the source marks as unfit; they are not among the
    references, of which there may then be none.
    """

    id: str
    image: Path | EmbeddedImage
    references: tuple[str, ...]
    split: str | None = None
    where: str = ""
    question: str = ""
    named: str = ""
    rejected: int = 0

    @property
    def other_name(self) -> str | None:
        """What the image's file is called where the source calls it otherwise; None for a bare id."""
        ending = PurePath(self.named).suffix
        actual = PurePath(self.image.name).name
        if ending.lower() not in IMAGE_SUFFIXES or _plain(actual) == _plain(self.named):
            return None
        return actual


@dataclass(frozen=True, slots=True)
class Problem:
    """A row of the source that could not be used: where it stands, and what is wrong with it."""

    where: str
    reason: str


Problems = list[Problem] | None  # where a reader notes what it leaves out; None: the first problem raises


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])


# Folders of more files than this are slow to list on many file systems.
FILES_IN_FOLDER = 10_000
_LONGEST_NAME = 200  # bytes; a digest may come to it
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')


@dataclass(frozen=True)
class MergedRecords:
    """`records` have absolute paths and unique ids; `merged` counts entries that named an image again.

    `without_references` are images that no sentence describes, `embedded` how many
    images were written to the folder of images, `renamed` those whose file is called otherwise than
    the source says: the first of them, what it is called, and how many there are; `rejected` counts captions
    that the source marks as unfit.
    """

    records: list[ImageRecord]
    merged: int
    without_references: int
    embedded: int
    renamed: tuple[str, str, int] | None = None
    rejected: int = 0


class _Entry:
    __slots__ = ("id", "image", "question", "references", "split", "where")

    def __init__(self, record: SourceRecord, image: str) -> None:
        self.id, self.image, self.split, self.where = record.id, image, record.split, record.where
        self.question = record.question
        self.references: list[str] = []


def merge_records(
    records: Iterable[SourceRecord],
    images: Path,
    problems: list[Problem],
    *,
    one_split: bool = True,
    progress: Progress = SILENT,
) -> MergedRecords:
    """Read a source to its end, one record an image and question, in the order of first mention.

    Images that lie in archives are written to the folder `images` as they come, byte for
    byte, and are the same image when their bytes are the same. References of an image
    that is named more than once are joined; answers that were given several times stay so.
    Where `one_split` is true, an image that the source puts in two splits raises `CaptuneError`.
    """
    writer = _ImageFiles(images)
    entries: dict[tuple[str, str], _Entry] = {}
    firsts: dict[str, _Entry] = {}
    merged = rejected = 0
    renamed: tuple[str, str, int] | None = None
    with progress.task("Reading the source") as task:
        for record in records:
            task.advance()
            rejected += record.rejected
            if (other := record.other_name) is not None:
                first_other, count = (renamed[:2], renamed[2]) if renamed else ((record.named, other), 0)
                renamed = (*first_other, count + 1)
            if isinstance(record.image, EmbeddedImage):
                try:
                    image = writer.write(record.image, record.split or "")
                except UnreadableImage as error:
                    problems.append(Problem(record.where or record.id, str(error)))
                    continue
            else:
                image = os.path.abspath(record.image)
            if not _can_be_written(image):
                shown = image.encode("utf-8", "backslashreplace").decode()
                problems.append(Problem(shown, "its name is not valid UTF-8; rename the file"))
                continue
            entry = entries.get((image, record.question))
            if entry is None:
                entry = entries[image, record.question] = _Entry(record, image)
            else:
                merged += 1
            first = firsts.setdefault(image, entry)
            if one_split and first.split != record.split:
                raise _two_splits(first, record)
            known = set() if record.question else set(entry.references)
            sentences = (sentence.strip() for sentence in record.references)
            entry.references += [sentence for sentence in sentences if sentence and sentence not in known]
    used: set[str] = set()
    with_references = [
        ImageRecord(_unique(entry.id, used), entry.image, tuple(entry.references), entry.split, entry.question)
        for entry in entries.values()
        if entry.references
    ]
    return MergedRecords(with_references, merged, len(entries) - len(with_references), writer.count, renamed, rejected)


class _ImageFiles:
    """Writes images under safe names that no other image has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self._taken: set[str] = set()
        self._written: dict[bytes, str] = {}

    def write(self, image: EmbeddedImage, split: str) -> str:
        """The absolute path of the image; equal bytes of one split and key are written once."""
        data = image.read()
        hashed = hashlib.blake2b(data, digest_size=16, person=split.encode()[:16])
        if image.key is not None:  # named by the captions: an image of its own, whatever its bytes
            hashed.update(image.key.encode("utf-8", "replace"))
        digest = hashed.digest()
        known = self._written.get(digest)
        if known is not None:
            return known
        path = os.path.join(os.path.abspath(self.folder), self._free_name(safe_name(image.name), digest.hex()))
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        except OSError as error:
            raise disk_error(error, path) from error
        self.count += 1
        self._written[digest] = path
        return path

    def _free_name(self, name: str, digest: str) -> str:
        folder = "" if self.count < FILES_IN_FOLDER else digest[:2] + "/"
        stem, suffix = os.path.splitext(name)
        tries = [f"{folder}{name}", f"{folder}{stem}-{digest[:8]}{suffix}", f"{folder}{stem}-{digest}{suffix}"]
        # Compared without case: some file systems know no difference.
        free = next(attempt for attempt in tries if attempt.lower() not in self._taken)
        self._taken.add(free.lower())
        return free


def safe_name(name: str) -> str:
    """A file name without folders, dots in front or characters that some system forbids."""
    base = re.split(r"[\\/]", name)[-1]
    base = _UNSAFE.sub("_", base.encode("utf-8", "replace").decode()).strip(" .")
    stem, suffix = os.path.splitext(base)
    suffix = suffix if len(suffix) <= 10 else ""
    return fit_name(stem or "picture", suffix, _LONGEST_NAME)


def _can_be_written(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unique(id: str, used: set[str]) -> str:
    candidate, number = id, 1
    while candidate in used:
        number += 1
        candidate = f"{id} ({number})"
    used.add(candidate)
    return candidate


def _two_splits(entry: _Entry, record: SourceRecord) -> CaptuneError:
    return CaptuneError(
        f"{entry.image} is in split {entry.split or 'none'} ({entry.where}) and in {record.split or 'none'} "
        f"({record.where}).",
        "An image can be in one split only. Correct the source, or split anew: --split 80/10/10",
    )
