"""A sheet of pictures with the captions of one or more models beside each."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

from captune.core.files import atomic_write
from captune.data.images import open_image

WRAP = 34
SIDE = 400  # more pixels than a picture takes on the sheet


def draw_sheet(
    pictures: Sequence[str | Path],
    captions: Sequence[Sequence[tuple[str, str]]],
    path: str | Path,
    *,
    columns: int = 3,
    right: Sequence[bool] | None = None,
) -> None:
    """Write a PNG of `pictures` in rows of `columns`, each above its (model, caption) pairs.

    `right` draws the last caption of a picture in green (True) or red (False).
    """
    from matplotlib.figure import Figure

    rows = -(-len(pictures) // columns)
    deepest = max(sum(_wrapped(text).count("\n") + 1 for _, text in said) for said in captions)
    figure = Figure(figsize=(3 * columns, (2.6 + 0.22 * deepest) * rows), dpi=110, layout="constrained")
    for index, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.axis("off")
        if index >= len(pictures):
            continue
        picture = open_image(str(pictures[index]))
        picture.thumbnail((SIDE, SIDE))
        axis.imshow(picture)
        axis.set_anchor("S")  # the captions of a row begin at the same height
        line = 0
        for place, (model, text) in enumerate(captions[index]):
            last = place == len(captions[index]) - 1
            color = "black" if last else "0.5"
            if last and right is not None:
                color = "tab:green" if right[index] else "tab:red"
            wrapped = _wrapped(f"{model}: {text}")
            axis.annotate(
                wrapped,
                (0.5, 0),
                (0, -4 - 12 * line),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8.5,
                color=color,
                parse_math=False,
            )
            line += wrapped.count("\n") + 1
    with atomic_write(path, "wb") as file, warnings.catch_warnings():
        # A character that the font lacks, such as an emoji, is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png")


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WRAP, max_lines=3, placeholder=" …"))
