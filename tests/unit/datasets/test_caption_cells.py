"""Captions in a cell, columns by their names, and rows of tables with quotes of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from captune.datasets.tables.cells import NotText, texts_in
from captune.datasets.tables.columns import find_columns
from captune.datasets.tables.rows import plain_id
from captune.datasets.tables.text import table_rows


@pytest.mark.parametrize(
    ("value", "several", "texts"),
    [
        ("A dog.", False, ["A dog."]),
        (None, True, []),
        (float("nan"), False, []),
        (["a", "red", "square", "."], False, ["a red square ."]),
        (["dog", "."], False, ["dog ."]),
        (["A dog.", "Two dogs."], False, ["A dog.", "Two dogs."]),
        (["dog", "puppy"], True, ["dog", "puppy"]),
        ([["a", "red", "square"], ["a", "dog"]], True, ["a red square", "a dog"]),
        ([{"raw": "A dog."}, {"tokens": ["a", "dog"]}], True, ["A dog.", "a dog"]),
        ("['a', 'red', 'square']", False, ["a red square"]),
        ("['One dog.' \"Two dogs' tails.\"]", True, ["One dog.", "Two dogs' tails."]),
        ("[illegible]", False, ["[illegible]"]),
        ("[1]", False, ["[1]"]),
        (["一只狗在草地上奔跑", "两个孩子在海滩上"], False, ["一只狗在草地上奔跑", "两个孩子在海滩上"]),
        ([{"role": "user", "content": "?"}, {"role": "assistant", "content": "A dog."}], False, ["A dog."]),
    ],
)
def test_texts_of_a_cell(value: Any, several: bool, texts: list[str]) -> None:
    assert texts_in(value, several=several) == texts


@pytest.mark.parametrize(
    ("value", "several", "reason"),
    [
        (5, False, "is 5, not text"),
        ([7, 8, 9], False, "token ids must be decoded"),
        (["a", "red", "square", "on"], True, "4 single words"),
        (["一只", "狗", "在", "草地", "上"], False, "a list of 5 words"),
        ({"tags": "x"}, False, "expected a text, or one of raw, caption"),
        ([{"from": "gpt", "value": "x"}, {"from": "gpt", "value": "y"}], False, "2 answers"),
    ],
)
def test_what_is_no_caption_says_so(value: Any, several: bool, reason: str) -> None:
    with pytest.raises(NotText, match=reason):
        texts_in(value, several=several)


@pytest.mark.parametrize(
    "value",
    [["red"] * 10, ["no", "dunno", "?"], '["a", "b", "c", "d"]', ["红", "红色", "蓝", "红"], [{"answer": "2"}] * 4],
)
@pytest.mark.parametrize("key", ["answers", "references", "direct_answers", "answer", "ground_truth", "captions"])
def test_each_text_beside_a_question_is_an_answer(key: str, value: Any) -> None:
    row = {"image_path": "a.jpg", "question": "what ?", key: value}
    columns = find_columns(row)
    assert columns is not None
    assert (columns.captions, columns.question) == ((key,), "question")
    assert len(columns.texts(row)) == (10 if len(value) == 10 else 3 if "dunno" in value else 4)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (3, ["3"]),
        (3.0, ["3"]),
        (2.5, ["2.5"]),
        (True, ["true"]),
        ([3, "3", False], ["3", "3", "false"]),
        ([{"answer": 3}, {"answer": "three"}, {"answer": True}], ["3", "three", "true"]),
        (float("nan"), []),
    ],
)
def test_an_answer_that_is_a_number_is_its_text(value: Any, texts: list[str]) -> None:
    for key in ("answer", "answers", "label"):
        columns = find_columns({"image": "a.jpg", "question": "how many?", key: value})
        assert columns is not None
        assert columns.texts({"image": "a.jpg", "question": "how many?", key: value}) == texts


def test_a_question_with_answers_of_a_model_and_of_people() -> None:
    for names, references, captions in (
        ("image question answer prediction", "answer", "prediction"),
        ("image question answer references", "references", "answer"),
        ("image question references models", "references", "models"),
    ):
        for side, wanted in (("references", references), ("captions", captions)):
            columns = find_columns(names.split(), side=side)  # type: ignore[arg-type]
            assert columns is not None
            assert (columns.captions, columns.unclear) == ((wanted,), "")


def test_without_its_question_a_list_of_words_stays_open() -> None:
    row = {"image": "a.jpg", "question": None, "answers": ["a", "red", "square", "on"]}
    columns = find_columns(row)
    assert columns is not None
    with pytest.raises(NotText, match="4 single words"):
        columns.texts(row)


@pytest.mark.parametrize(
    ("names", "references", "captions"),
    [
        ("image reference prediction", "reference", "prediction"),
        ("image caption generated", "caption", "generated"),
        ("image caption reference", "reference", "caption"),
        ("image ground_truth model_output", "ground_truth", "model_output"),
        ("image groundTruth predictedCaption", "groundTruth", "predictedCaption"),
        ("image gt hyp", "gt", "hyp"),
        ("image answer candidate", "answer", "candidate"),
        ("image target pred", "target", "pred"),
        ("image caption target output", "caption", "output"),
        ("image caption captions", "captions", "caption"),
        ("image model caption", "caption", "caption"),
        ("image model_caption human_id text", "text", "model_caption"),
        ("image references models", "references", "models"),
    ],
)
def test_each_side_has_its_column(names: str, references: str, captions: str) -> None:
    for side, wanted in (("references", references), ("captions", captions)):
        columns = find_columns(names.split(), side=side)  # type: ignore[arg-type]
        assert columns is not None
        assert (columns.captions, columns.unclear) == ((wanted,), "")


@pytest.mark.parametrize(
    ("names", "side", "told"),
    [
        ("image pred_a prediction output", "captions", "'prediction' and 'output'"),
        ("image caption text", "captions", "'caption' and 'text'"),
        ("image reference ground_truth", "references", "'reference' and 'ground_truth'"),
        ("image prediction", "references", "'prediction' names what a model wrote"),
        ("image reference", "captions", "'reference' names references"),
        ("image question reference", "captions", "'reference' names references"),
    ],
)
def test_what_is_open_names_the_columns(names: str, side: Any, told: str) -> None:
    columns = find_columns(names.split(), side=side)
    assert columns is not None
    assert told in columns.unclear


def test_numbered_columns_from_any_number() -> None:
    for names in ("caption_0 caption_1", "reference1 reference2", "gt_0 gt_1"):
        columns = find_columns(["image", *reversed(names.split())])
        assert columns is not None
        assert columns.captions == tuple(names.split())


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('a.jpg,"open\nb.jpg,next\n', [["a.jpg", '"open'], ["b.jpg", "next"]]),
        ('a.jpg,"open\nb.jpg,a pipe of 12"\n', [["a.jpg", '"open'], ["b.jpg", 'a pipe of 12"']]),
        ('a.jpg,"open\nb.jpg,"and open\nc.jpg,x\n', [["a.jpg", '"open'], ["b.jpg", '"and open'], ["c.jpg", "x"]]),
        ('a.jpg,"Exit" says a sign\n', [["a.jpg", '"Exit" says a sign']]),
        ('a.jpg,12" of snow\n', [["a.jpg", '12" of snow']]),
        ('a.jpg,"two\nlines, one ""cell"""\nb.jpg,x\n', [["a.jpg", 'two\nlines, one "cell"'], ["b.jpg", "x"]]),
        ('a.jpg, "spaced, quoted"\n', [["a.jpg", "spaced, quoted"]]),
        ('1,"open\n2,next\n', [["1", '"open'], ["2", "next"]]),
        ('a.jpg,"last\n', [["a.jpg", '"last']]),
    ],
)
def test_quotes(text: str, rows: list[list[str]]) -> None:
    for ends in ("\n", "\r\n"):
        lines = enumerate(text.replace("\n", ends).splitlines(keepends=True), start=1)
        found = [fields for _, fields in table_rows(lines, ",", width=2, image=0)]
        assert [[field.replace("\r\n", "\n") for field in fields] for fields in found] == rows


def test_a_quote_before_the_image_ends_with_its_line() -> None:
    for text, rows in (
        ('"open,a.jpg\nnext,b.jpg\n', [['"open', "a.jpg"], ["next", "b.jpg"]]),
        ('"two\nlines",a.jpg\nnext,b.jpg\n', [["two\nlines", "a.jpg"], ["next", "b.jpg"]]),
    ):
        found = table_rows(enumerate(text.splitlines(keepends=True), start=1), ",", width=2, image=1)
        assert [fields for _, fields in found] == rows


def test_tabs_and_bars_quote_only_what_has_to_be_quoted() -> None:
    lines = ['a.jpg\t"Exit"\n', 'b.jpg\t"tab\there"\n', '"c.jpg"\t"all"\n', 'd.jpg\t"open\n', "e.jpg\tx\n"]
    found = [fields[1] for _, fields in table_rows(enumerate(lines, start=1), "\t", width=2, image=0)]
    assert found == ['"Exit"', "tab\there", "all", '"open', "x"]


def test_ids_as_numbers() -> None:
    assert {plain_id(value) for value in (1, 1.0, "1", "1.0", "000000000001", " 1 ")} == {"1"}
    assert (plain_id("0"), plain_id("00"), plain_id("1.5"), plain_id("img1")) == ("0", "0", "1.5", "img1")
    assert {plain_id(value) for value in (True, None, 1.5, float("nan"), "")} == {None}
