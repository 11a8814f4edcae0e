"""A sheet of pictures with the captions of one or more models beside each."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path

from captune.core.files import atomic_file
from captune.data.images import open_image

WRAP = 34
LINE = 12  # points from one line to the next
MOST_LINES = 200  # a caption of some 6,000 letters: more than that would make a figure that no one can open
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
    depths = [sum(len(_wrapped(f"{model}: {text}")) for model, text in each) for each in captions]
    # A row is as high as its longest captions need.
    heights = [2.6 + LINE * max(depths[row * columns : (row + 1) * columns]) / 72 for row in range(rows)]
    figure = Figure(figsize=(3 * columns, sum(heights)), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for index, axis in enumerate(axes.flat):
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
                "\n".join(wrapped),
                (0.5, 0),
                (0, -4 - LINE * line),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8.5,
                color=color,
                parse_math=False,
            )
            line += len(wrapped)
    with atomic_file(path, "wb") as file, warnings.catch_warnings():
        # A character that the font lacks, such as an emoji, is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="png")


def _wrapped(text: str) -> list[str]:
    """A caption as lines that fit beneath its picture; the whole of it, unless it is longer than `MOST_LINES`."""
    lines = [""]
    for word in text.split():
        if lines[-1] and _width(f"{lines[-1]} {word}") <= WRAP:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for sign in word:  # a word that is longer than a line is broken
            if _width(lines[-1] + sign) > WRAP:
                lines.append("")
            lines[-1] += sign
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "…"]


def _width(text: str) -> int:
    """Columns that a text takes: two for a wide sign, as of Chinese or Japanese, none for a mark above another sign."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text
    )
