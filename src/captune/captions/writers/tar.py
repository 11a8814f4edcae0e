"""Captions in tar shards with their images, as WebDataset reads them.

`key.txt` is the caption, `key.json` the row; what a sample had under these names becomes
`key.original.txt` and `key.original.json`. A failed image keeps its place, without `key.txt`.
"""

import io
import itertools
import os
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Self, TextIO

from captune.captions.row import CaptionRow
from captune.captions.writers.alt_text import check_source
from captune.captions.writers.json import dumped
from captune.captions.writers.writer import encodable, needs_output
from captune.core.errors import CaptuneError, ImageError, UsageError
from captune.core.files import disk_error, open_regular, scratch_folder
from captune.core.files.existing import ExistingCaptions
from captune.core.sidecars import file_text
from captune.core.stores import is_result
from captune.core.stores.local import Store, check_written, open_store
from captune.core.text import LONGEST, fit_name
from captune.datasets.sources.input_shards import SHARD_SIZE, InputShard, read_images
from captune.datasets.sources.tar import CutOff, named_members
from captune.images.signatures import IMAGE_SUFFIXES, suffix_of


class TarWriter:
    """Tar shards `captions-00000.tar`, … of 1,000 images: each as it is, with `key.txt` and its row as `key.json`.

    A job keeps the samples of input tars together with all their other members. A failed image has no `key.txt`.
    """

    def __init__(self, out: Path | None, stream: TextIO, *, existing: ExistingCaptions | None = None) -> None:
        self.existing = existing or ExistingCaptions()
        if out is None:
            raise needs_output("A tar", "captions/")
        if out.is_file() or out.suffix == ".tar":
            raise UsageError(f"{out} is one file, tars need a folder.", "For example: --out captions/")
        self._store = open_store(str(out))
        self._pending: list[CaptionRow] = []
        self._count = 0

    def check(self) -> None:
        """Raise `CaptuneError` where a tar stands that captune did not write, before anything is captioned."""
        if self.existing.mode != "replace":
            check_tars(self._store)

    def __enter__(self) -> Self:
        self.check()
        return self

    def write(self, row: CaptionRow) -> None:
        """Write a row whose `image` is a path or an address."""
        if row.captions:
            check_source(row.image)
        self._pending.append(row)
        if len(self._pending) == SHARD_SIZE:
            self._write_pending()

    def write_shard(self, shard: InputShard, rows: Iterable[CaptionRow]) -> None:
        """Write a tar of an input shard, with a row for each of its images, in order."""
        name = f"captions-{self._count:05d}.tar"
        if self.existing.mode == "replace" and self._store.not_written([name]):
            self._store.delete(name)  # what takes its place is captune's alone
        publish_tar(self._store, name, rows, shard)
        self._count += 1

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is None and self._pending:
            self._write_pending()

    def _write_pending(self) -> None:
        names = tuple(row.image for row in self._pending)
        self.write_shard(InputShard("files", "", self._count * SHARD_SIZE, len(names), names), self._pending)
        self._pending = []


def check_tars(store: Store) -> None:
    """Raise `CaptuneError` where a tar of results stands in a store that captune did not write."""
    tars = (name for name in store.names() if is_result(name) and name.endswith(".tar"))
    check_written(store, tars, "Take another --out, or overwrite them: --existing replace")


_ADDED = ("txt", "json")
_LONGEST_ADDED = ".original.json"


def write_tar(rows: Iterable[CaptionRow], shard: InputShard, file: IO[bytes]) -> None:
    """Write the images of an input shard with what came of them: `rows`, one for each image and in order.

    The same rows give the same bytes: files have no times and no owners. Images are read again;
    they go in as they are, and so do the other members of a tar's samples.
    """
    rows = list(rows)
    # What is no image may be anything, a pipe or an endless answer too: it is neither read again nor passed on.
    images = {row.image for row in rows if row.status == "ok"}
    following = iter(rows)
    taken: set[str] = set()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, file_name, data in _contents(shard, images):
            if not name:
                assert data is not None
                _add(tar, file_name, data)
                continue
            row = next(following)
            if row.image != name:
                what = f"{shard.location} has {name} where {row.image} was."
                raise CaptuneError(what, "It changed: start a new job.")
            stem, dot, suffix = file_name.rpartition(".")
            key = next(key for key in _keys(stem, file_name, shard) if key not in taken)
            taken |= {key, file_name}
            if data is not None and row.status == "ok":
                _add(tar, file_name if key in (stem, file_name) else key + dot + suffix, data)
            if row.captions:
                text = file_text([encodable(caption.text) for caption in row.captions])
                _add(tar, f"{key}.txt", text.encode())
            _add(tar, f"{key}.json", dumped(row, "utf-8").encode())


def publish_tar(store: Store, name: str, rows: Iterable[CaptionRow], shard: InputShard) -> None:
    """Put such a tar into a store, at once or not at all; it is written to a temporary file first."""
    try:
        with scratch_folder() as folder:
            with open(folder / "shard.tar", "wb") as file:
                write_tar(rows, shard, file)
            store.publish(name, folder / "shard.tar")
    except OSError as error:
        raise disk_error(error, tempfile.gettempdir()) from error


def _contents(shard: InputShard, images: Collection[str]) -> Iterator[tuple[str, str, bytes | None]]:
    """Row, file name and bytes (of `images`) of what goes into the tar; no row: another member of a sample."""
    if shard.kind != "tar":
        for image in read_images(shard):
            data = _bytes_of(image.source) if image.name in images else None
            yield image.name, _file_name(image.name, data or b""), data
        return
    for name, member in named_members(shard):
        if isinstance(member, CutOff):
            yield name, "cut-off.tar", None
        elif name:
            yield name, _short(member.name), member.data
        elif member.data is not None:
            stem, _, suffix = _short(member.name).rpartition(".")
            yield "", f"{stem}.original.{suffix}" if suffix in _ADDED else f"{stem}.{suffix}", member.data


def _short(name: str) -> str:
    """A member's name, shorter where what is added to its sample could not be unpacked; alike within a sample."""
    folder, slash, base = name.rpartition("/")
    key, dot, suffix = base.partition(".")
    if len(os.fsencode(key + _LONGEST_ADDED)) <= LONGEST:
        return name
    return folder + slash + fit_name(key, _LONGEST_ADDED).removesuffix(_LONGEST_ADDED) + dot + suffix


def _keys(stem: str, file_name: str, shard: InputShard) -> Iterator[str]:
    """Names for an image's texts: `key`, else `key.png` (two images of a sample), else `key-2` (another sample)."""
    yield stem
    if shard.kind == "tar":
        yield file_name
    yield from (f"{stem}-{number}" for number in itertools.count(2))


def _file_name(name: str, data: bytes) -> str:
    """A name within the tar for an image that came from elsewhere: no dots but the one before its suffix."""
    folder, _, base = name.partition("://")[2].rpartition("/") if "://" in name else name.rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    if not (dot and "." + suffix.lower() in IMAGE_SUFFIXES):
        stem, suffix = base, suffix_of(data)[1:]
    safe = [part for part in folder.split("/") if part not in ("", ".", "..")]
    # What is unpacked has to fit too.
    key = fit_name(stem.replace(".", "_") or "picture", ".json").removesuffix(".json")
    return "/".join([*safe, f"{key}.{suffix}"])


def _bytes_of(source: str | bytes | Callable[[], bytes]) -> bytes | None:
    """The file of an image, or None where it cannot be had: its row says why."""
    try:
        if isinstance(source, str):
            with open_regular(source) as file:
                return file.read()
        return source() if callable(source) else source
    except (OSError, ImageError):
        return None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
