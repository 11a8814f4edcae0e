"""The table of all images: its data as JSON, its controls as HTML; `report.js` fills and sorts it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from captune.evaluation.report.data import ReportData, showable
from captune.evaluation.report.markup import text
from captune.evaluation.report.scores import is_likelihood, label, ranking_key
from captune.evaluation.report.tables import FILES_NOTE

DIGITS = 4


def explorer_data(data: ReportData, thumbnails: Mapping[str, str], *, boxes: bool = True) -> str:
    """JSON that may stand inside a script element: no `<`, `>` or `&` in it.

    `pictures` holds for each: id and question `i`, file name `f`, references `r`, captions `c` (one a model,
    null where there is none), scores `s` (one list a model, in the order of `keys`), thumbnail `t`.
    With `boxes` an image without a thumbnail gets a box in its place.
    """
    keys = list(data.picture_keys)
    value: dict[str, Any] = {
        "boxes": boxes,
        "models": [model.label for model in data.models],
        "keys": keys,
        "labels": [label(key) for key in keys],
        "plain": [is_likelihood(key) for key in keys],
        "pictures": [
            {
                "i": image.title,
                "f": showable(PurePath(image.image).name),
                "r": image.references,
                "c": image.captions,
                "s": [[_rounded(scores.get(key)) for key in keys] for scores in image.scores],
                "t": thumbnails.get(image.id),
            }
            for image in data.pictures
        ],
    }
    words = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return words.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def explorer(data: ReportData, *, note: str = "") -> str:
    """The controls and the empty table, hidden until the script has filled it; a `note` stands above."""
    key = ranking_key(key for key in data.picture_keys if key != "confidence")
    scores = _options([(one, label(one)) for one in data.picture_keys], key)
    return "\n".join(
        (
            f"<noscript><p>This table needs JavaScript. {FILES_NOTE}</p></noscript>",
            '<div id="explorer" hidden>',
            f'<p class="note">{text(note)}</p>' if note else "",
            '<form id="filters" role="search" aria-label="Filter the images">',
            '<label>Text<input type="search" name="text" placeholder="in captions, references, names"></label>',
            f'<label>Score<select name="key">{scores}</select></label>',
            f'<label{_alone(data, 2)}>of<select name="model">{_models(data, 0)}</select></label>',
            '<label>at least<input type="number" name="least" step="any"></label>',
            '<label>at most<input type="number" name="most" step="any"></label>',
            f'<label{_alone(data, 3)}>Difference to<select name="other">{_models(data, 1)}</select></label>',
            '<button type="reset">Clear</button>',
            "</form>",
            '<p id="found" role="status"></p>',
            '<div class="scroll" tabindex="0" role="group" aria-label="Captions and scores of each image">',
            '<table id="pictures-table" role="table"><caption class="hidden">Captions and scores of each image; '
            "the buttons in the column headers sort</caption>",
            '<thead role="rowgroup"><tr role="row"></tr></thead><tbody role="rowgroup"></tbody></table>',
            "</div>",
            '<nav class="pages" aria-label="Pages of the table"><button type="button" data-step="-1">Previous</button>'
            '<span id="page"></span><button type="button" data-step="1">Next</button></nav>',
            "</div>",
        )
    )


def _alone(data: ReportData, least: int) -> str:
    """A choice between fewer models than `least` is none."""
    return "" if len(data.models) >= least else " hidden"


def _models(data: ReportData, first: int) -> str:
    return _options([(str(place), model.label) for place, model in enumerate(data.models)][first:], None)


def _options(choices: list[tuple[str, str]], chosen: str | None) -> str:
    return "".join(
        f'<option value="{text(value)}"{" selected" if value == chosen else ""}>{text(words)}</option>'
        for value, words in choices
    )


def _rounded(value: float | None) -> float | int | None:
    if value is None:
        return None
    short = round(value, DIGITS)
    return int(short) if short == int(short) else short
