"""`captune review`: what of many captions is worth a look."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captune.core.config import resolve
from captune.core.files import write_text
from captune.core.options import ReviewConfig
from captune.core.progress import SILENT, Progress
from captune.data.caption_files import read_captions, read_duplicates
from captune.data.doubts import ReviewItem, review_items
from captune.data.inside import Boundary, Images


@dataclass(frozen=True)
class Review:
    """The captions to look at, the most doubtful first; of how many `pictures`; how many have each of the `flags`."""

    rows: tuple[ReviewItem, ...]
    pictures: int
    flags: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {"pictures": self.pictures, "flags": self.flags, "rows": [row.to_json() for row in self.rows]}

    def _repr_html_(self) -> str:
        """In a notebook: the list with thumbnails of pictures that lie where the file says."""
        from captune.app.review_page import listed

        return listed(self, Path(), Boundary([os.curdir]))


def review(
    captions: str | os.PathLike[str],
    *,
    html: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Review:
    """The captions of a file or folder that `captune caption` wrote or `captune score` reads, the most doubtful first.

    What cannot be read in it is a row with its place and the reason.
    `html` is a page to write with thumbnails. Options are those of `captune review --help`.
    """
    resolved = resolve(
        ReviewConfig, environment=os.environ if environment is None else environment, flags=options
    ).values
    with progress.task("Reading the captions"):
        found = review_items(read_captions(captions), same=resolved.review.same, duplicates=read_duplicates(captions))
    counts = Counter(flag for item in found for flag in item.flags)
    listed = [item for item in found if item.flags or not resolved.review.flagged]
    chosen = Review(tuple(listed[: resolved.review.limit or None]), len(found), dict(sorted(counts.items())))
    if html is not None:
        from captune.app.review_page import page

        folder = Path(captions) if os.path.isdir(captions) else Path(captions).parent
        images = Images(Path(resolved.tables.images) if resolved.tables.images else None, resolved.tables.allow_outside)
        boundary = images.boundary(folder)
        refused = [row.image for row in chosen.rows if os.path.isfile(row.image) and not boundary.holds(row.image)]
        if refused:
            progress.warn(f"{len(refused):,} pictures are not shown: {boundary.reason(refused[0])}.")
        with progress.task("Thumbnails"):
            write_text(html, page(chosen, Path(captions).name, images.folder or folder, boundary))
    return chosen
