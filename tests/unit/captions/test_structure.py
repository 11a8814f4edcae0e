"""Structured captions: the one object in an answer, a schema that it fits, and its fields in rows and tables."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captune.captions.row import CaptionRow, row_of
from captune.captions.structure import Structure, UnstructuredError, object_in
from captune.captions.writers import open_writer
from captune.core.errors import UsageError
from captune.core.records import Caption
from captune.jobs.shards import SHARD_FORMATS

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "description": {"type": "string", "maxLength": 40},
        "objects": {"type": "array", "items": {"type": "string"}},
        "people": {"type": "integer", "minimum": 0},
        "score": {"type": ["number", "null"]},
        "indoors": {"type": "boolean"},
        "light": {"enum": ["day", "night"]},
        "boxes": {"type": "array", "items": {"$ref": "#/$defs/box"}},
    },
    "required": ["description", "objects"],
    "additionalProperties": False,
    "$defs": {"box": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}},
}
FIELDS: dict[str, Any] = {
    "description": '=a "dog", 12', "objects": ["dog", "3"], "people": 0, "score": 0.5, "indoors": False, "light": "day",
    "boxes": [[0, 1, 2.5, 3]],
}  # fmt: skip


@pytest.fixture
def structure() -> Structure:
    return Structure.read(json.dumps(SCHEMA))


@pytest.mark.parametrize(
    "answer",
    [
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        'Sure, here is the JSON:\n```\n{"a": 1}\n```\nLet me know if you need more.',
        'The object is {"a": 1} (and again {"a": 1})',
    ],
)
def test_the_object_in_an_answer(answer: str) -> None:
    assert object_in(answer) == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a dog on the beach", "no JSON object"),
        ('["a", "b"]', "no JSON object"),
        ('{"a": 1, "b": "a dog', "not whole"),
        ("{'a': 1}", "not whole"),
        ('{"a": 1} or {"a": 2}', "several"),
        ('{"a": 1} and {"b"', "not whole"),
        ('{"a": NaN}', "NaN is no value"),
        ('{"a": 1, "a": 2}', "names a field twice"),
        ('{"a": 9223372036854775808}', "64 bits"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_object_is_never_mended(answer: str, reason: str) -> None:
    with pytest.raises(UnstructuredError, match=reason):
        object_in(answer)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"objects": None}, "objects: None is not of type 'array'"),
        ({"people": -1}, "people: -1 is less than the minimum of 0"),
        ({"colour": "red"}, "'colour' was unexpected"),
        ({"objects": ["dog", 3]}, r"objects\[1\]: 3 is not of type 'string'"),
        ({"boxes": [[1, 2]]}, r"boxes\[0\]: \[1, 2\] is too short"),
        ({"description": "x" * 999}, "is too long|description: 'xxx"),
    ],
)
def test_an_answer_that_does_not_fit_says_where(structure: Structure, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnstructuredError, match=reason) as raised:
        structure.fields_in(json.dumps({**FIELDS, **change}))
    assert len(str(raised.value)) <= 300


def test_the_text_of_a_caption(structure: Structure) -> None:
    assert structure.text_of(structure.fields_in(json.dumps(FIELDS))) == FIELDS["description"]
    both = Structure.read('{"properties": {"alt": {"type": "string"}, "caption": {"type": ["string", "null"]}}}')
    assert [both.text_of({"alt": "a", "caption": text}) for text in ("c", None)] == ["c", ""]
    neither = Structure.read('{"properties": {"tags": {"type": "array"}, "caption": {"type": "array"}}}')
    assert neither.text_of({"tags": ["ä"]}) == '{"tags": ["ä"]}'


def test_the_prompt_has_the_schema_and_what_was_wrong(structure: Structure) -> None:
    prompt = structure.prompt("What is it?", "people: -1 is too small")
    assert prompt.startswith("What is it?\n\n")
    assert json.loads(prompt.split("nothing else:\n")[1].split("\n\n")[0]) == SCHEMA
    assert prompt.endswith("An earlier answer was refused: people: -1 is too small.")


def test_a_schema_that_no_answer_could_fit(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    for text, message in (
        ("{", "is no JSON"),
        ('["a"]', "does not describe an object"),
        ('{"type": "string"}', "does not describe an object"),
        ('{"type": "object", "properties": {"a": {"type": "text"}}}', r"at properties\.a\.type, 'text' is not"),
        ('{"properties": {"a": {"$ref": "https://example.org/a.json"}}}', "nothing is fetched"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            Structure.read(str(file))
    file.write_text(json.dumps(SCHEMA, indent=4))
    assert Structure.read(str(file)).digest == Structure.read(json.dumps(SCHEMA)).digest


def rows() -> list[CaptionRow]:
    texts = ["12", "true", "", '{"a": 1}', "'=x"]
    some = [FIELDS, *({"description": text, "objects": []} for text in texts)]
    captions = [Caption(str(fields["description"]) or "-", 0.5, fields=fields) for fields in some]
    good = [CaptionRow(f"{number}.jpg", (each,), "ok", None, "", ()) for number, each in enumerate(captions)]
    return [*good, CaptionRow("bad.jpg", (), "error", "the answer does not fit", "", ())]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_shards_have_the_fields_and_give_them_back(structure: Structure, format: str) -> None:
    shard = SHARD_FORMATS[format]
    decoded = list(shard.decode(shard.encode(rows(), False, structure.columns), "shard"))
    assert [row.captions[0].fields for row in decoded[:-1]] == [row.captions[0].fields for row in rows()[:-1]]
    assert [row.to_json() for row in decoded] == [row.to_json() for row in rows()]


def test_tables_have_a_column_for_each_property(structure: Structure, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("captions.csv", "captions.parquet"):
        with open_writer(Path(name).suffix[1:], tmp_path / name, fields=structure.columns) as writer:
            for row in rows():
                writer.write(replace(row, flags=None))
    table = pq.read_table(tmp_path / "captions.parquet")
    expected = [pa.string(), pa.list_(pa.string()), pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.string()]
    assert [table.schema.field(f"fields.{name}").type for name in SCHEMA["properties"]] == expected
    first = {name: table[f"fields.{name}"][0].as_py() for name in SCHEMA["properties"]}
    assert first == {**FIELDS, "boxes": "[[0, 1, 2.5, 3]]"}
    head, line = (tmp_path / "captions.csv").read_text().splitlines()[:2]
    assert head.endswith("error,fields.description,fields.objects,fields.people,fields.score,"
                         "fields.indoors,fields.light,fields.boxes")  # fmt: skip
    assert line.endswith(""",ok,,"'=a ""dog"", 12","[""dog"", ""3""]",0,0.5,false,day,"[[0, 1, 2.5, 3]]\""""), (
        "a cell that a spreadsheet would execute is guarded"
    )


def test_rows_of_json() -> None:
    stream = io.StringIO()
    with open_writer("json", None, stream) as writer:
        writer.write(rows()[0])
    (value,) = json.loads(stream.getvalue())
    assert (value["caption"], value["fields"]) == (FIELDS["description"], FIELDS)
    assert row_of(value, "row 1").captions[0].fields == FIELDS
