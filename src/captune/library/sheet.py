"""Images with their captions on one page: HTML that needs no other file, and a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from captune.core.files.paths import Boundary
from captune.evaluation.report.markup import quoted, text, thumbnail

STYLE = """<style>
.captune-sheet { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
.captune-sheet figure { margin: 0; overflow-wrap: anywhere; }
.captune-sheet img, .captune-sheet .none { background: #8882; border-radius: 4px; display: block; max-width: 100%; }
.captune-sheet .none { height: 5rem; }
.captune-sheet figcaption { font-size: .9rem; }
.captune-sheet code { display: block; font-size: .75rem; opacity: .8; }
</style>"""


class Shown(Protocol):
    """An image of a library by its path in it, with a caption, which may be empty."""

    @property
    def path(self) -> str: ...
    @property
    def caption(self) -> str: ...


def figures(images: Sequence[Shown], folder: Path) -> str:
    """A grid of thumbnails with captions, with its style, to stand in any page.

    Images that cannot be opened, or lie outside of the folder, are empty boxes.
    """
    return f'{STYLE}\n<div class="captune-sheet">\n{"".join(_figures(images, folder))}</div>'


def _figures(images: Sequence[Shown], folder: Path) -> Iterator[str]:
    boundary = Boundary([folder])
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        small = threads.map(lambda each: thumbnail(os.path.join(folder, each.path), folder, boundary), images)
        for each, uri in zip(images, small, strict=True):
            alt = text(each.caption or each.path)
            image = f'<img src="{uri}" alt="{alt}">' if uri else '<div class="none"></div>'
            caption = quoted(each.caption, "caption")
            yield f"<figure>{image}<figcaption>{caption}<code>{text(each.path)}</code></figcaption></figure>\n"
