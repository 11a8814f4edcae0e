from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captune.core.config import dump, leaves, resolve
from captune.core.errors import EXIT_USAGE, UsageError
from captune.core.options import Options, option


def said(**given: Any) -> str:
    """The message of the error that `resolve` raises."""
    with pytest.raises(UsageError) as caught:
        resolve(given.pop("config", "train"), **given)
    assert caught.value.code == EXIT_USAGE
    return str(caught.value)


def test_the_later_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train: {epochs: 4}\n", encoding="utf-8")
    sources: dict[str, Any] = {
        "preset": "flickr8k-quick",
        "file": file,
        "environment": {"CAPTUNE_EPOCHS": "5"},
        "flags": {"epochs": 6.0},
        "sets": ["train.epochs=7"],
    }
    expected = [
        ({}, 5.0, None),
        ({"preset"}, 2.0, "preset flickr8k-quick"),
        ({"preset", "file"}, 4.0, str(file)),
        ({"preset", "file", "environment"}, 5.0, "environment variable CAPTUNE_EPOCHS"),
        ({"preset", "file", "environment", "flags"}, 6.0, "--epochs"),
        (set(sources), 7.0, "--set train.epochs"),
    ]
    for given, value, source in expected:
        resolved = resolve("train", **{name: sources[name] for name in given})
        assert resolved.values.train.epochs == value
        assert resolved.sources.get("train.epochs") == source


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    resolved = resolve("train", flags={"epochs": None, "flip": False}, environment={"CAPTUNE_EPOCHS": ""})
    assert resolved.values.train.epochs == 5.0
    assert resolved.sources == {"data.flip": "--flip"}


def test_a_path_is_taken_for_its_text(tmp_path: Path) -> None:
    assert resolve("export", flags={"check_on": tmp_path}).values.export.check_on == str(tmp_path)


def test_other_tools_variables_count_and_captunes_own_wins() -> None:
    environment = {"BATCH_SIZE": "16", "NUM_EPOCHS": "3", "DEVICE": "cpu"}
    values = resolve("train", environment=environment).values
    assert (values.train.batch_size, values.train.epochs, values.run_on.device) == (16, 3.0, "cpu")
    own = resolve("train", environment={**environment, "CAPTUNE_BATCH_SIZE": "32"})
    assert own.values.train.batch_size == 32


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("0.5", 0.5), ("3", 3.0)], ids=["exponent", "fraction", "whole"]
)
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    assert resolve("train", sets=[f"train.learning_rate={text}"]).values.train.learning_rate == value


@pytest.mark.parametrize("value", ["vision,text", ["vision", "text"], ("vision", "text"), "vision, text"])
def test_lists_come_with_commas_or_as_lists(value: Any) -> None:
    assert resolve("train", flags={"freeze": value}).values.model.freeze == ("vision", "text")


def test_an_unknown_key_names_its_source_and_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train:\n  epoch: 4\n", encoding="utf-8")
    assert said(file=file).startswith(f"{file}: there is no option 'train.epoch'.\nDid you mean 'epochs'?")
    assert "Did you mean 'num_beams'?" in said(sets=["generation.num_beam=3"])


def test_a_right_name_in_the_wrong_section_is_an_error() -> None:
    assert "there is no option 'model.epochs'" in said(sets=["model.epochs=3"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"flags": {"num_beams": 0}}, ["--num-beams", "0", "greater than or equal to 1"]),
        ({"environment": {"BATCH_SIZE": "many"}}, ["environment variable BATCH_SIZE", "'many'", "integer"]),
        ({"sets": ["train.schedule=cosin"]}, ["--set train.schedule", "'cosin'", "'cosine'"]),
        ({"flags": {"freeze": ("vison",)}}, ["--freeze", "'vison'", "'vision'"]),
        ({"flags": {"device": "gpu"}}, ["--device", "'gpu'"]),
        ({"sets": ["train.epochs"]}, ["--set train.epochs: expected KEY=VALUE", "--set train.epochs=3"]),
        ({"preset": "flickr9k-quick"}, ["no preset 'flickr9k-quick'", "Did you mean 'flickr8k-quick'?"]),
        ({"file": "not-there.yaml"}, ["Cannot read the configuration not-there.yaml", "No such file"]),
    ],
)
def test_a_bad_value_says_where_it_came_from(given: dict[str, Any], words: list[str]) -> None:
    message = said(**given)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"), [("train: {epochs: 3\n", ["line 2", "not valid YAML"]), ("- 1\n", ["expected sections"])]
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    message = said(file=file)
    assert all(word in message for word in [str(file), *words]), message


def test_what_is_dumped_resolves_to_itself(tmp_path: Path) -> None:
    first = resolve("train", preset="flickr8k-long", sets=["generation.prompt=an image of"]).values
    file = tmp_path / "config.yaml"
    file.write_text(dump(first), encoding="utf-8")
    assert resolve("train", file=file).values == first


def test_a_preset_leaves_out_what_a_verb_does_not_take() -> None:
    values = resolve("evaluate", preset="flickr8k-quick").values
    assert values.generation.num_beams == 5
    assert values.eval.limit_images == 500


@pytest.mark.parametrize("config", ["train", "evaluate", "caption", "prepare"])
def test_defaults_are_allowed_values(config: type[Options]) -> None:
    resolved = resolve(config)
    assert resolved.sources == {}
    for leaf in leaves(config).values():
        assert getattr(getattr(resolved.values, leaf.section), leaf.name) == leaf.default


def test_two_options_of_one_name_are_refused() -> None:
    class One(Options):
        seed: int = option(1, "One.")

    class Two(Options):
        seed: int = option(2, "Two.")

    class Both(Options):
        one: One = One()
        two: Two = Two()

    with pytest.raises(TypeError, match="two options named seed"):
        leaves(Both)


def test_a_flag_that_does_nothing_without_another_is_refused(tmp_path: Path) -> None:
    for flag, needed in (("schema_retries", "schema"), ("prompt_seed", "prompts")):
        name, other = flag.replace("_", "-"), needed.replace("_", "-")
        assert f"--{name} does nothing without --{other}." in said(config="caption", flags={flag: 3})
        assert f"does nothing without --{other}." in said(config="caption", sets=[f"{name_of(flag)}=3"])
        assert resolve("caption", flags={flag: 3, needed: "{}"}).sources
        file = tmp_path / "whole.yaml"  # a whole configuration says all options
        file.write_text(dump(resolve("caption").values), encoding="utf-8")
        resolve("caption", file=file, environment={f"CAPTUNE_{flag.upper()}": "3"})


def name_of(option: str) -> str:
    return leaves("caption")[option].key
