"""Captions in the images themselves."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from captune.captions.row import CaptionRow
from captune.captions.writers.sidecar import FilePerImage, Source, inside
from captune.captions.writers.writer import one_line
from captune.core.errors import CaptuneError, ImageError, UsageError
from captune.core.files.existing import ExistingCaptions
from captune.core.stores.files import Fetch, is_remote
from captune.core.text import fit_name
from captune.core.wording import counted
from captune.datasets.sources.input_shards import InputShard, read_images
from captune.images.metadata.files import CaptionEdit, Edit, write_copy, write_in_place
from captune.images.signatures import IMAGE_SUFFIXES, suffix_of


class AltTextWriter(FilePerImage):
    """Copies of the images with the best caption as XMP alt text (and IPTC); `--in-place`: the files themselves.

    The copies lie as sidecars do; a failed image has none. What is neither JPEG, PNG nor WebP is
    copied with a file `photo.gif.xmp` beside it, which `notes` counts.
    """

    what = "caption"

    def __init__(
        self, out: Path | None, stream: TextIO, *, in_place: bool = False, existing: ExistingCaptions | None = None
    ) -> None:
        if in_place == (out is not None):
            which = "Images are either copied or changed" if in_place else "Alt text needs a place"
            raise UsageError(f"{which}.", "Give --out DIR for copies, or --in-place to change the files themselves.")
        if out is not None and out.is_file():
            raise UsageError(f"{out} is a file, copies need a folder.", "For example: --out described/")
        super().__init__()
        self.out = out
        self.existing = existing or ExistingCaptions()
        self._beside: Counter[str] = Counter()

    @property
    def notes(self) -> list[str]:
        """Remarks for the user at the end."""
        return self.existing.notes + [
            f"In a .xmp file beside the image: the {self.what} of {counted(count, 'image')} ({reason})."
            for reason, count in sorted(self._beside.items())
        ]

    def put(self, row: CaptionRow, source: Source) -> Path:
        if source is None:
            check_source(row.image)
            source = Fetch(row.image) if is_remote(row.image) else row.image
        edit = self.edit(row)
        if self.out is None:
            if not isinstance(source, str):
                raise CaptuneError(f"{row.image} is no file that could be changed.", "Write copies: --out DIR")
            path = Path(source)
            reason = write_in_place(source, edit)
        else:
            data = source() if callable(source) else source
            path = self.out / _copy_name(row.image, data)
            reason = write_copy(data, path, edit)
        if reason is not None:
            self._beside[reason] += 1
        return path

    def edit(self, row: CaptionRow) -> Edit:
        """What is put into the image."""
        best, noted = row.captions[0], {}
        if row.provenance is not None:
            known = row.provenance.for_caption(best)
            noted = {name: getattr(known, name) for name in ("model", "digest", "prompt", "date", "translator")}
            noted |= {"version": known.captune, "ownWords": "".join(known.own_words)}
        return CaptionEdit(one_line(best.text), self.existing, noted)

    def write_shard(self, shard: InputShard, rows: Iterable[CaptionRow]) -> None:
        """Write an input shard, with a row for each of its images, in order."""
        for row, image in zip(rows, read_images(shard), strict=True):
            self.write(row, image.source)


def check_source(image: str) -> None:
    """Raise where an image is neither a file nor an address: `ImageError` where it is gone, else `CaptuneError`."""
    if is_remote(image) or os.path.isfile(image):
        return
    table, row, _ = image.rpartition("#")
    if any(parent.is_file() for parent in Path(image).parents) or (row and os.path.isfile(table)):
        raise CaptuneError(f"{image} lies in an archive.", "Take it out first, or use --format jsonl.")
    raise ImageError(image, "is no file any more", "Was it moved meanwhile?", kind="missing")


def _copy_name(image: str, data: str | bytes) -> Path:
    """Where a copy lies in the output folder."""
    path = inside(Path(os.path.abspath(image.partition("://")[2] if is_remote(image) else image)))
    if isinstance(data, bytes) and path.suffix.lower() not in IMAGE_SUFFIXES:
        return path.with_name(fit_name(path.name, suffix_of(data)))
    return path
