"""Which column holds the image, the captions, the split and the id, by the usual names."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.stores import is_result
from captune.datasets.tables.cells import NotText, texts_in
from captune.datasets.tables.rows import Row, Side, id_text

# "restval": Karpathy's COCO images that belong to no evaluation split.
SPLIT_WORDS = {
    "train": "train", "training": "train", "restval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def normalize_split(word: str) -> str | None:
    """`train`, `val` or `test` for a usual word, else the word itself in lower case; None for nothing."""
    word = word.strip().lower()
    return SPLIT_WORDS.get(word, word) or None


def split_from_name(name: str) -> str | None:
    """The split that a file or folder name such as `captions_val2017` speaks of, or None."""
    splits = {SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 else None


def image_set(path: Path) -> str:
    """Which of COCO's sets of images a file speaks of: `train2014` of `v2_mscoco_train2014_annotations.json`, or ""."""
    match = re.search(r"(train|val|test)\d*", path.stem)
    return match[0] if match else ""


IMAGE = (
    "image_path", "file_name", "filename", "filepath", "file_path", "image_name", "image_file", "image_filename",
    "image", "img_path", "img_name", "img_file", "img", "path", "file", "picture", "photo",
)  # fmt: skip
ADDRESS = ("url", "image_url", "img_url", "image_link")
CAPTION = (
    "caption", "text", "caption_text", "description", "comment", "sentence", "alt_text", "title",
    "tokens", "caption_tokens", "conversations", "messages",
)  # fmt: skip
CAPTIONS = ("captions", "sentences", "raw", "texts", "comments", "descriptions", "alt_texts")
QUESTION = ("question", "question_text")
# Beside a question these are what captions are elsewhere.
ANSWER = ("answer", "answer_text", "multiple_choice_answer", "label")
ANSWERS = ("answers", "direct_answers")
SPLIT = ("split", "subset", "partition", "set")
# A plain `id` may number the rows, the others name the image.
ID = ("image_id", "img_id", "imgid", "imageid", "cocoid", "image_key", "key", "__key__", "id")
# Set by those who made the data: this caption is spam, or a ready-made sentence for an image that shows nothing.
REJECTED = ("is_rejected", "rejected", "is_precanned", "precanned", "is_pre_canned", "pre_canned", "is_spam", "spam")
ACCEPTED = ("is_accepted", "is_valid")
# What captune itself writes beside a caption.
BESIDE = (
    "confidence", "original", "flags", "provenance", "provenance_written_by", "provenance_captions"
)  # fmt: skip
# Where captune evaluated, the captions of every model stand in one key.
MODELS = "models"


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PREDICTED = _set(
    "pred preds prediction predictions predicted hyp hyps hypo hypothesis hypotheses generated generation generations "
    "gen candidate candidates cand cands output outputs response responses decoded"
)
_TRUE = _set("reference references ref refs gt gts groundtruth truth gold golden")
_TARGET = _set("target targets answer answers")
_WORDS = _set("caption captions text texts description descriptions sentence sentences comment comments")
_ALONGSIDE = _WORDS | {"ground", "model", "system"}
_PLURAL = _set(
    "predictions preds hypotheses hyps generations candidates cands outputs responses references refs gts targets "
    "answers captions texts descriptions sentences comments"
)
# Of two such columns it is open which one is meant, where they can only be told apart by guessing.
_EQUAL = frozenset(("caption", "text", "caption_text", "description", "sentence"))
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NUMBERED = re.compile(r"(.*[a-z])_?(\d+)")
_YES = ("1", "true", "yes", "y", "t")


@dataclass(frozen=True)
class Columns:
    """The names, as the source spells them, of the columns that matter.

    `by_id` says that no column names the image's file, so that `image` is an id. `unclear` says why the captions
    cannot be told (two columns that could be meant; only those of the other side), "" where they can.
    """

    image: str
    captions: tuple[str, ...]
    several: bool
    split: str | None
    id: str | None
    name: str | None = None
    question: str | None = None
    rejected: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    status: str | None = None
    by_id: bool = False
    unclear: str = ""
    beside: tuple[str, ...] = ()

    def texts(self, row: Mapping[str, Any]) -> list[str]:
        """The captions of a row. Raises `NotText` with the reason where there is something else."""
        captions: list[str] = []
        answers = self.question_of(row) != ""
        for column in self.captions:
            value = row.get(column)
            try:
                if column == MODELS and isinstance(value, Mapping) and value:
                    value = next(iter(value.values()))
                tokens = plain_name(column).endswith("tokens")
                cell = {"tokens": value} if tokens and value else value
                captions += texts_in(cell, several=self.several, answers=answers)
            except NotText as error:
                raise NotText(f"'{column}' {error}") from None
        return captions

    def question_of(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.question) if self.question else None
        return value.strip() if isinstance(value, str) else ""

    def split_of(self, row: Mapping[str, Any]) -> str | None:
        value = row.get(self.split) if self.split else None
        return normalize_split(value) if isinstance(value, str) else None

    def id_of(self, row: Mapping[str, Any]) -> str | None:
        return id_text(row.get(self.id)) if self.id else None

    def is_rejected(self, row: Mapping[str, Any]) -> bool:
        """Whether the source marks the captions of the row as unfit."""
        return any(_true(row.get(name)) for name in self.rejected) or any(
            row.get(name) not in (None, "") and not _true(row[name]) for name in self.accepted
        )

    def row(self, file: Path, line: int, entry: Mapping[str, Any], split: str | None = None, unit: str = "line") -> Row:
        """The row that an entry states; what is wrong with it stands in its `bad`."""
        value = entry.get(self.image)
        name = id_text(value) if self.by_id else value if isinstance(value, str) else None
        stated_split, question = self.split_of(entry) or split, self.question_of(entry)
        row = Row(file, line, name or "", (), stated_split, self.id_of(entry), unit, question)
        if self.id is not None and plain_name(self.id) == "id" and not self.several and not self.by_id:
            row = row._replace(loose_id=True)
        if self.beside:
            row = row._replace(beside={plain_name(column): entry.get(column) for column in self.beside})
        if name is None and value is not None:
            what = "an id" if self.by_id else "a file name"
            return row._replace(bad=f"'{self.image}' is not {what} but {str(value)[:60]!r}")
        if self.status is not None and entry.get(self.status) == "error":
            return row._replace(error=str(entry.get("error") or "failed"))
        if self.unclear:
            return row._replace(bad=self.unclear)
        try:
            texts = self.texts(entry)
        except NotText as error:
            return row._replace(bad=str(error))
        if self.is_rejected(entry):
            return row._replace(rejected=max(1, len(texts)))
        values = [entry.get(column) for column in self.captions]
        if all(value is None or value != value for value in values):
            return row._replace(bad=f"the caption of {name} is {'null' if values[0] is None else 'NaN'}, not text")
        return row._replace(captions=texts)


def plain_name(name: object) -> str:
    """A column's name in lower case with underscores: `Image ID`, `image-id` and `imageId` are `image_id`."""
    return re.sub(r"[\s\-.]+", "_", _CAMEL.sub("_", str(name).strip())).lower()


def find_columns(names: Iterable[str], *, image: str | None = None, side: Side = "references") -> Columns | None:
    """The columns by name (case, spaces and hyphens do not matter), or None where image or captions are missing.

    `image` is the column of the images themselves where the types tell it; a column of
    file names then gives their `name`. `side` says whose captions are wanted where a file has those of people and
    those of a model.
    """
    plain = {plain_name(name): str(name) for name in reversed(list(names))}
    plain = dict(reversed(plain.items()))
    id = _first(plain, ID)
    named = _first({key: value for key, value in plain.items() if value != image}, IMAGE)
    column, name = (image, named) if image is not None else (named or id, None)
    if column is None:
        return None
    by_id = image is None and named is None
    status = plain.get("status") if "error" in plain else None
    flags = tuple(plain[key] for key in REJECTED if key in plain), tuple(plain[key] for key in ACCEPTED if key in plain)
    split = _first(plain, SPLIT)
    question = _first(plain, QUESTION)
    taken = {column, name, split, question}
    texts = _texts(plain, taken, side) if question is None else _answers(plain, taken, side)
    if texts is None:
        return None
    if question is not None:
        id = _first(plain, ("question_id", *ID))
    beside = tuple(plain[key] for key in BESIDE if key in plain and plain[key] not in (column, *texts.columns))
    return Columns(
        column, texts.columns, texts.several, split, id, name, question, *flags, status, by_id, texts.unclear, beside
    )


def columns_of(entry: Mapping[str, Any], side: Side = "references") -> Columns | None:
    """The columns of an object of JSON; most objects of a file have the same keys."""
    return _columns_of(tuple(entry), side)


@lru_cache(maxsize=256)
def _columns_of(keys: tuple[str, ...], side: Side) -> Columns | None:
    return find_columns(keys, side=side)


def expected() -> str:
    """What a header must have, for messages."""
    return (
        f"an image column ({', '.join(IMAGE[:4])}, image, …) and a caption column ({', '.join(CAPTION[:3])}, …), "
        "or `question` and `answer`"
    )


def columns_missing(where: object, names: Sequence[str]) -> CaptuneError:
    """The error for a table of these columns in which `find_columns` finds none."""
    return CaptuneError(f"{where}: expected {expected()}; found {', '.join(names[:12])}.", "Rename its columns.")


@dataclass(frozen=True)
class _Texts:
    """Columns of captions of one kind: `true`, `predicted`, `caption` (either), `target` (either, weakly)."""

    kind: str
    columns: tuple[str, ...]
    several: bool
    unclear: str = ""


def _texts(plain: Mapping[str, str], taken: set[str | None], side: Side) -> _Texts | None:
    if side == "captions" and MODELS in plain:
        return _Texts("predicted", (plain[MODELS],), True)
    kinds: dict[str, dict[str, list[tuple[int | None, str]]]] = {}
    for key, column in plain.items():
        if column in taken:
            continue
        match = _NUMBERED.fullmatch(key)
        base, number = (match[1], int(match[2])) if match else (key, None)
        kind = _kind(base)
        if kind is not None:
            kinds.setdefault(kind, {}).setdefault(base, []).append((number, column))
    order = ("true", "caption", "target") if side == "references" else ("predicted", "caption", "target")
    kind = next((kind for kind in order if kind in kinds), None)
    if kind is not None:
        return _chosen(kind, kinds[kind], side)
    for other in ("predicted", "true"):
        if other in kinds:
            first = next(iter(kinds[other].values()))[0][1]
            what, side_s = ("what a model wrote", "references") if other == "predicted" else ("references", "captions")
            unclear = f"'{first}' names {what}, and no column of {side_s} is known; call that one 'caption'"
            return _Texts(other, (first,), False, unclear)
    return None


def _answers(plain: Mapping[str, str], taken: set[str | None], side: Side) -> _Texts | None:
    """The columns of the answers to a question: those that name the wanted side before answers and captions."""
    texts = _texts(plain, taken, side)
    kind = "true" if side == "references" else "predicted"
    if texts is not None and texts.kind == kind and not texts.unclear:
        return texts
    answers, answer = _first(plain, (*ANSWERS, *CAPTIONS)), _first(plain, (*ANSWER, *CAPTION))
    column = answers or answer
    return _Texts("caption", (column,), answers is not None) if column else texts


def _kind(base: str) -> str | None:
    words = base.split("_")
    if base in CAPTION or base in CAPTIONS or set(words) <= _WORDS:
        return "caption"
    for kind, marks in (("predicted", _PREDICTED), ("true", _TRUE), ("target", _TARGET)):
        if any(word in marks for word in words) and all(word in marks or word in _ALONGSIDE for word in words):
            return kind
    # `model_caption` is what a model wrote, `model` alone is its name.
    return "predicted" if set(words) & {"model", "system"} and set(words) & _WORDS else None


def _chosen(kind: str, by_base: Mapping[str, list[tuple[int | None, str]]], side: Side) -> _Texts:
    """Of columns of one kind: lists before numbered ones before single ones for references, single ones else."""
    single = {base: column for base, columns in by_base.items() for number, column in columns if number is None}
    lists = {base: column for base, column in single.items() if base in CAPTIONS or base.split("_")[-1] in _PLURAL}
    single = {base: column for base, column in single.items() if base not in lists}
    numbered = {
        base: tuple(
            column for _, column in sorted(((-1 if number is None else number), column) for number, column in columns)
        )
        for base, columns in by_base.items()
        if any(number is not None for number, _ in columns)
    }
    single, lists = _ranked(single, CAPTION), _ranked(lists, CAPTIONS)
    ways: list[tuple[Mapping[str, tuple[str, ...]], bool]] = [
        ({base: (column,) for base, column in lists.items()}, True),
        (numbered, False),
        ({base: (column,) for base, column in single.items()}, False),
    ]
    if side == "captions":
        ways = [ways[2], *ways[:2]]
    choices, several = next((bases, several) for bases, several in ways if bases)
    first, *others = choices
    rivals = [base for base in others if kind in ("true", "predicted") or (side == "captions" and base in _EQUAL)]
    unclear = ""
    if rivals:
        names = " and ".join(f"'{choices[base][0]}'" for base in (first, rivals[0]))
        what = "the references" if side == "references" else "the captions to score"
        unclear = f"{names} could both be {what}: leave one of them in the file"
    return _Texts(kind, choices[first], several, unclear)


def _ranked(columns: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    known = {base: columns[base] for base in order if base in columns}
    return {**known, **columns}


def _first(plain: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((plain[name] for name in names if name in plain), None)


def _true(value: Any) -> bool:
    return value.strip().lower() in _YES if isinstance(value, str) else bool(value)


def choose(source: Path, paths: Sequence[Path], kind: str) -> list[Path]:
    """The one file, the shards of a job, or the files whose names speak of splits (`train.csv`, `val.csv`).

    Raises `CaptuneError` where there is none, or where it is open which one is meant.
    """
    if source.is_file():
        return [source]
    parts = [path for path in paths if is_result(path.name)]
    if parts:  # of very many files only some were looked at
        return sorted(path for path in parts[0].parent.glob(f"captions-*{parts[0].suffix}") if is_result(path.name))
    if len(paths) <= 1:
        if not paths:
            raise CaptuneError(f"There are no {kind} with captions in {source}.", "Name the caption file itself.")
        return list(paths)
    by_split = [path for path in paths if split_from_name(path.stem)]
    if by_split and len({split_from_name(path.stem) for path in by_split}) == len(by_split):
        return by_split
    names = ", ".join(str(path.relative_to(source)) for path in paths[:6])
    raise CaptuneError(f"{source} holds several {kind}: {names}.", "Name the one that is meant instead of the folder.")


def job_format(folder: Path) -> str | None:
    """The format of the shards of captions that a job left in a folder; None of any other."""
    names = os.listdir(folder) if folder.is_dir() else []
    endings = {Path(name).suffix[1:] for name in names if is_result(name)} - {"tar"}
    return endings.pop() if len(endings) == 1 else None
