"""`captune library write`: captions and keywords of a library to where other programs read them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

from captune.core.errors import ImageError, UsageError
from captune.core.files import NotWritable
from captune.core.options.library import FilterOptions, WriteOptions
from captune.core.progress import SILENT, Progress
from captune.library.database import Database
from captune.library.outgoing import Outgoing
from captune.library.write_fields import ImageFields
from captune.library.write_sidecars import SidecarFiles

# Files between two commits: after a stop so many are compared again.
_STEP = 32


@dataclass(frozen=True)
class WriteReport:
    """How many files were written (with `dry_run`: would be), and how many say it already.

    `changed` are images whose file somebody changed since the library read it: it stays as it is. `failed` are images
    whose file could not be written, with the reason.
    """

    written: int
    unchanged: int
    changed: tuple[str, ...]
    failed: dict[str, str]
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "changed": list(self.changed)}

    def sentence(self) -> str:
        """The counts in words."""
        counts = {"would be written" if self.dry_run else "written": self.written, "unchanged": self.unchanged}
        counts |= {"changed by somebody since": len(self.changed), "failed": len(self.failed)}
        return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or "written" in name) + "."


def write_out(
    database: Database, folder: str, options: WriteOptions, where: FilterOptions, progress: Progress = SILENT
) -> WriteReport:
    """Write the captions that `where` chooses, without a status the approved ones, into or beside their images.

    What somebody changed since the library read it stays as it is; what stands there already is not written again.
    """
    if options.keywords and options.to != "xmp":
        raise UsageError("--keywords are written into the images.", "Add --to xmp, or leave them out.")
    files: SidecarFiles | ImageFields = SidecarFiles(database, folder, options.sidecar_suffix)
    if options.to == "xmp":
        files = ImageFields(database, folder, keywords=options.keywords)
    outgoing = Outgoing(database, where, uncaptioned=options.keywords)
    counts: Counter[str] = Counter()
    changed: list[str] = []
    failed: dict[str, str] = {}
    with progress.task("Writing captions", len(outgoing)) as task:
        images = iter(outgoing)
        while some := list(islice(images, _STEP)):
            for image in some:
                try:
                    outcome = files.write(image, dry_run=options.dry_run)
                except (ImageError, NotWritable) as error:
                    failed[image.path] = getattr(error, "reason", "") or error.message
                    continue
                counts[outcome] += 1
                if outcome == "changed":
                    changed.append(image.path)
            if not options.dry_run:
                files.commit()
            task.advance(len(some))
    return WriteReport(counts["written"], counts["unchanged"], tuple(changed), failed, options.dry_run)
