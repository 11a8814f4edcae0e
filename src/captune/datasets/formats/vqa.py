"""VQA's pairs of files: `questions`, and `annotations` that answer them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captune.core.errors import CaptuneError
from captune.core.files.paths import Images
from captune.datasets.merge import Problems, SourceRecord
from captune.datasets.tables.cells import NotText, texts_in
from captune.datasets.tables.columns import image_set, split_from_name
from captune.datasets.tables.files import find_caption_files
from captune.datasets.tables.rows import Row, Side, group, note
from captune.datasets.tables.text import head, json_list, load_json

DESCRIPTION = "VQA's `*_questions.json` with the `*_annotations.json` that answer them, beside `train2014/` …"
RANK = 80
_HINT = "Is it a file of VQA?"


def sniff(source: Path, images: Path | None = None) -> str | None:
    paths = [path for path in _questions(source) if _answers_of(path)]
    return f"{paths[0].name} has VQA's questions, and its annotations are there" if paths else None


def read(source: Path, *, images: Images | None = None, problems: Problems = None) -> Iterator[SourceRecord]:
    folders = dict.fromkeys(path.parent / image_set(path) for path, _ in _pairs(source))
    near = [folder for folder in folders if folder.is_dir()]
    return group(rows(source, problems), source, images, problems, near=near)


def rows(source: Path, problems: Problems, side: Side = "references") -> Iterator[Row]:
    return (row for pair in _pairs(source) for row in _rows(*pair, problems))


def _pairs(source: Path) -> list[tuple[Path, Path]]:
    pairs = [(path, answers) for path in _questions(source) if (answers := _answers_of(path))]
    if not pairs:
        raise CaptuneError(
            f"There are no questions with answers in {source}.",
            "Expected v2_OpenEnded_mscoco_train2014_questions.json and v2_mscoco_train2014_annotations.json.",
        )
    return pairs


def _questions(source: Path) -> list[Path]:
    return find_caption_files(source, ("*questions*.json",), lambda path: '"questions"' in (head(path) or ""))


def _answers_of(questions: Path) -> Path | None:
    """The annotations beside a file of questions whose names speak of the same images."""
    paths = [
        path for path in sorted(questions.parent.glob("*annotations*.json")) if image_set(path) == image_set(questions)
    ]
    return paths[0] if paths else None


def _rows(questions: Path, annotations: Path, problems: Problems) -> Iterator[Row]:
    questions_by_id: dict[Any, tuple[Any, str]] = {
        entry["question_id"]: (entry.get("image_id"), entry["question"])
        for entry in json_list(questions, load_json(questions), "questions", _HINT)
        if isinstance(entry, dict) and "question_id" in entry and isinstance(entry.get("question"), str)
    }
    split = split_from_name(questions.stem)
    for position, entry in enumerate(json_list(annotations, load_json(annotations), "annotations", _HINT), start=1):
        number = entry.get("question_id") if isinstance(entry, dict) else None
        where = f"{annotations.name}, annotation {position}"
        if number not in questions_by_id:
            note(problems, where, f"answers question {number}, which is not in {questions.name}")
            continue
        image, question = questions_by_id[number]
        name = image if isinstance(image, str) else f"COCO_{image_set(questions)}_{image:012d}.jpg"
        row = Row(annotations, position, name, (), split, str(number), "annotation", question.strip())
        try:
            answers = texts_in(entry.get("answers"), several=True, answers=True)
            answers = answers or texts_in(entry.get("multiple_choice_answer"), several=False, answers=True)
        except NotText as error:
            yield row._replace(bad=f"'answers' {error}")
            continue
        yield row._replace(captions=answers)
