"""Prompts as templates, and which of several an image gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from captune.captions.prompts.choice import Choice, Prompts, read_choices
from captune.captions.prompts.template import LONGEST, Template
from captune.core.errors import CaptuneError, UsageError
from captune.decoding.encoding import prompt_for

DESCRIBE = "Describe this photo[ of {names}][ taken in {place}]."


@pytest.mark.parametrize(
    ("template", "values", "prompt"),
    [
        (DESCRIBE, {}, "Describe this photo."),
        (DESCRIBE, {"names": "Anna", "place": ""}, "Describe this photo of Anna."),
        (DESCRIBE, {"names": "Anna", "place": "Oslo"}, "Describe this photo of Anna taken in Oslo."),
        ("In {place}: [{names} at {date}]", {"names": "Anna"}, "In : "),
        ("{{names}} [[{names}]] [INST] [1, 2]", {"names": "Anna"}, "{names} [Anna] [INST] [1, 2]"),
        ('As JSON: {"a": {"b": [1]}} {} { }', {}, 'As JSON: {"a": {"b": [1]}} {} { }'),
        ("{exif.fnumber}", {"exif.FNumber": "2.8"}, "2.8"),
        ("{names}", {"names": "a {place} [b\n\x1b[1m c}"}, "a {place} [b [1m c}"),
    ],
)
def test_templates(template: str, values: dict[str, str], prompt: str) -> None:
    assert Template.of(template).filled({"place": "", **values}) == prompt


def test_values_are_short_enough() -> None:
    template = Template.of("Say what {tags} is in[ {names}].")
    long = {"tags": "word " * 200, "names": "Anna"}
    assert len(template.filled(long)) <= LONGEST + len("Say what  is in Anna.")
    assert len(template.fitted(long, lambda prompt: len(prompt) < 60)) < 60
    assert template.fitted(long, lambda prompt: len(prompt) < 30) == "Say what  is in."


def test_a_question_is_no_template() -> None:
    question = "what {is} [this {names}]?"
    assert prompt_for("Q: {question} A:", question) == f"Q: {question} A:"
    assert prompt_for("a photo[ of {names}]", question) == f"a photo {question}"
    filled = Template.of("{names}: {question}").asking(question, {"names": "{question}"})
    assert filled == f"{{question}}: {question}"
    assert prompt_for("Q: {question}", "") == "Q: {question}"


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"no field \{nmes\}") as error:
        Prompts("A photo[ of {nmes}]")
    assert "{names}" in error.value.hint


def text(prompts: Prompts, name: str) -> str | None:
    return prompts.text(name, lambda fields: dict.fromkeys(fields, "x"))


def test_a_prompt_without_fields_reads_nothing() -> None:
    def never(fields: object) -> dict[str, str]:
        raise AssertionError

    assert Prompts("a photo").text("a.jpg", never) == "a photo"
    assert Prompts(None, "a photo").text("a.jpg", never) is None
    assert Prompts("{{names}}").text("a.jpg", never) == "{names}"
    assert text(Prompts(None, "a photo of {names}"), "a.jpg") == "a photo of x"


def test_weights_choose_by_name_and_seed_alone() -> None:
    prompts = Prompts(choices=(Choice("A", 3), Choice("B"), Choice("C {stem}")), seed=1)
    names = [f"photos/{number:04}.jpg" for number in range(2000)]
    chosen = {name: text(prompts, name) for name in names}
    counts = Counter(chosen.values())
    assert [round(counts[prompt] / 2000, 1) for prompt in ("A", "B", "C x")] == [0.6, 0.2, 0.2]
    elsewhere = {name: text(prompts, f"/data/{name}") for name in reversed(names)}
    assert elsewhere == chosen
    other = Prompts(choices=prompts.choices, seed=2)
    assert {name: text(other, name) for name in names} != chosen
    # Fixed for ever: a job that goes on with a later captune has the same prompts.
    assert [text(prompts, name) for name in names[:8]] == ["B", "A", "A", "C x", "A", "A", "B", "A"]


def test_a_folder_has_prompts_of_its_own() -> None:
    prompts = Prompts("other", choices=(Choice("cats", folder="cats"), Choice("old", folder="arch*/19??")))
    assert text(prompts, "data/cats/tabby/1.jpg") == "cats"
    assert text(prompts, "/data/archive/1987/1.jpg") == "old"
    assert text(prompts, "dogs/1.jpg") == "other"
    assert text(Prompts("other", choices=(*prompts.choices, Choice("any"))), "dogs/1.jpg") == "any"


def test_files_of_prompts(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("- {prompt: 'A {names}', weight: 2}\n- B\n- {prompt: C, folder: cats/}\n")
    (tmp_path / "p.json").write_text('[{"prompt": "A {names}", "weight": 2}, "B", {"prompt": "C", "folder": "cats"}]')
    (tmp_path / "p.txt").write_text("A {names}\n\n  B: c\n")
    expected = (Choice("A {names}", 2.0), Choice("B"), Choice("C", folder="cats"))
    assert read_choices(str(tmp_path / "p.yaml")) == read_choices(str(tmp_path / "p.json")) == expected
    assert read_choices(str(tmp_path / "p.txt")) == (Choice("A {names}"), Choice("B: c"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- {prompt: A, weight: 0}", "entry 1: the weight 0"),
        ("- {prompt: A, weight: .nan}", "entry 1: the weight nan"),
        ("- A\n- {weight: 1}", "entry 2: there is no prompt"),
        ("- {prompt: A, wieght: 1}", "no key 'wieght'"),
        ("- 'A {nmes}'", "entry 1: There is no field"),
        ("a: 1", "no list of prompts"),
        ("- [", "no YAML"),
        ("", "no list of prompts"),
    ],
)
def test_what_is_no_file_of_prompts(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    with pytest.raises(CaptuneError, match=message):
        read_choices(str(path))
    with pytest.raises(CaptuneError, match="Cannot read the prompts"):
        read_choices(str(tmp_path / "none.yaml"))
