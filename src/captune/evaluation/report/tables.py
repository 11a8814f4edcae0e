"""What a report sets in tables, as plain rows for HTML and Markdown, and the table of all images."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from captune.core.runs import ending_text
from captune.evaluation.report.data import ReportData, showable
from captune.evaluation.report.markup import text
from captune.evaluation.report.scores import (
    SCALE_NOTE,
    better,
    is_likelihood,
    label,
    p_value,
    ranking_key,
    relative,
    repeated,
    shown,
    signed,
)

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
    key = ranking_key(data)
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


FILES_NOTE = "All captions and scores of single images stand in eval_per_image.jsonl, beside this report."

TESTS_NOTE = (
    "Paired tests on the same images: the interval is that of the paired bootstrap; p is the probability of a "
    "difference at least as large if the two models were equally good."
)
VARIETY_LABELS = {
    "distinct": "Distinct captions",
    "vocabulary": "Different words",
    "mean_length": "Mean length in tokens",
    "empty": "Empty captions",
    "distinct_1": "Distinct words (distinct-1)",
    "distinct_2": "Distinct word pairs (distinct-2)",
    "repeated": "Captions said of several images",
    "novel": "Captions that no training reference equals",
}


@dataclass(frozen=True)
class Cell:
    """Words of a cell; `small` stands behind them, `best` marks the best of a row."""

    words: str
    small: str = ""
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: its caption, its columns (the first names the rows) and its rows; `note` says how to read it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: bool = True
    note: str = ""


def score_grid(data: ReportData) -> Grid:
    """Every score of every model."""
    rows = []
    for key in data.keys:
        best = better(key, (model.scores.get(key) for model in data.models))
        cells = [Cell(label(key))]
        for model in data.models:
            value, interval = model.scores.get(key), model.intervals.get(key)
            between = f"[{shown(key, interval[0])}, {shown(key, interval[1])}]" if interval else ""
            cells.append(Cell(shown(key, value), between, best is not None and value == best))
        rows.append(tuple(cells))
    words = [SCALE_NOTE]
    if any(model.intervals for model in data.models):
        words.append("In brackets: 95 % bootstrap intervals over pictures.")
    if len(data.models) > 1:
        words.append("The best of each row is bold.")
    left_out = data.models[0].settings.get("left_out") or {}
    words += [f"{name} was left out: {str(reason).splitlines()[0]}" for name, reason in left_out.items()]
    words += [
        f"{count:,} sentences are in {language} without spaces and count as one word each, for METEOR as signs."
        for language, count in (data.models[0].settings.get("unsegmented") or {}).items()
    ]
    caption = "Scores × 100 of " + ("all models" if len(data.models) > 1 else data.models[0].label)
    return Grid(caption, ("Score", *(model.label for model in data.models)), tuple(rows), note=" ".join(words))


def difference_grids(data: ReportData) -> list[Grid]:
    """What the first model has over each other one."""
    first = data.models[0]
    grids = []
    for other in data.models[1:]:
        found = data.differences[other.name]
        sampled = any(one.p_randomisation is not None for one in found.values())
        rows = []
        for key, one in found.items():
            between = ""
            if one.low is not None and one.high is not None:
                between = f"[{signed(key, one.low)}, {signed(key, one.high)}]"
            tests = (Cell(p_value(one.p_randomisation)), Cell(p_value(one.p_bootstrap))) if sampled else ()
            change = Cell(relative(key, first.scores[key], other.scores[key]))
            rows.append((Cell(label(key)), Cell(signed(key, one.value), between), change, *tests))
        head = ("Score", "Difference", "Relative", *(("p, randomisation", "p, bootstrap") if sampled else ()))
        plain = " (loss and perplexity as they are)" if any(map(is_likelihood, found)) else ""
        grids.append(Grid(f"{first.label} minus {other.label}, × 100{plain}", head, tuple(rows)))
    return grids


def variety_grid(data: ReportData) -> Grid | None:
    """How varied each model's captions are; None where that was not counted."""
    counted: list[Mapping[str, Any]] = [model.settings.get("captions") or {} for model in data.models]
    keys = dict.fromkeys(key for one in counted for key, value in one.items() if isinstance(value, int | float))
    rows = [
        (Cell(VARIETY_LABELS.get(key, key.replace("_", " "))), *(Cell(_quantity(key, one.get(key))) for one in counted))
        for key in keys
    ]
    if not rows:
        return None
    return Grid("Captions of all images together", ("", *(model.label for model in data.models)), tuple(rows))


def repeated_grid(data: ReportData) -> Grid | None:
    """Captions that a model gives to several images; None where there are none."""
    rows = [
        (Cell(model.label), Cell(caption), Cell(f"{times:,}"))
        for place, model in enumerate(data.models)
        for caption, times in repeated(data, place)
    ]
    if not rows:
        return None
    return Grid("Captions given to several images", ("Model", "Caption", "Pictures"), tuple(rows), numbers=False)


def settings_grids(data: ReportData) -> list[Grid]:
    """How the scores came about: what all models share, then what differs between them."""
    flat = [_flat({k: v for k, v in model.settings.items() if k != "captions"}) for model in data.models]
    keys = dict.fromkeys(key for one in flat for key in one)
    same = [key for key in keys if all(key in one and one[key] == flat[0][key] for one in flat)]
    shared = tuple((Cell(key), Cell(flat[0][key])) for key in same)
    other = tuple((Cell(key), *(Cell(one.get(key, "–")) for one in flat)) for key in keys if key not in same)
    grids = []
    if other:
        head = ("Setting", *(model.label for model in data.models))
        grids.append(Grid("Settings and versions that differ", head, other, numbers=False))
    if shared:
        caption = "Settings and versions" + (" of all models" if len(data.models) > 1 else "")
        grids.append(Grid(caption, ("Setting", "Value"), shared, numbers=False))
    return grids


def source_grid(data: ReportData) -> Grid:
    """Where everything came from, the commands included."""
    found: dict[str, Any] = {"Model": data.models[0].name}
    for place, model in enumerate(data.models[1:], start=1):
        found["Against" if place == 1 else f"Against ({place})"] = model.name
    found["Data"] = data.evaluation.get("data")
    found["Digest of the data"] = data.evaluation.get("data_digest")
    found["Split"] = data.split
    found["Evaluated"] = data.evaluation.get("created")
    found["Command of the evaluation"] = _command(data.evaluation.get("command"))
    found["Trained"] = data.manifest.get("created")
    found["Training ended"] = ending_text(data.manifest) if data.manifest else ""
    found["Command of the training"] = _command(data.manifest.get("command"))
    found["Trained from"] = data.manifest.get("model")
    found["Parameters"] = _thousands(data.manifest.get("parameters"))
    found["Parameters trained"] = _thousands(data.manifest.get("trained_parameters"))
    found["Seed"] = data.manifest.get("seed")
    found["This report again"] = shlex.join(["captune", "report", str(data.folder)])
    rows = tuple((Cell(name), Cell(str(value))) for name, value in found.items() if value not in (None, ""))
    return Grid("Where this comes from", ("", ""), rows, numbers=False)


def _quantity(key: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    if key.startswith(("distinct", "novel", "repeated")) and 0 <= value <= 1:
        return f"{100 * value:.1f} %"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested settings under dotted names, as words; what is unset is left out."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        elif value is not None:
            found[f"{before}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found


def _command(command: Any) -> str:
    if isinstance(command, list):
        words = [str(word) for word in command]
        # The path of the program says nothing to a reader elsewhere.
        return shlex.join([words[0].rsplit("/", 1)[-1], *words[1:]]) if words else ""
    return str(command or "")


def _thousands(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""
