"""A temperature, top_k or top_p samples or is refused; it is never left aside without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from captune.core.config import as_given, dump, resolve, with_sampling
from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.core.options.verbs import config_of
from captune.decoding.generate import MIN_TEMPERATURE, normalized, temperatures


@pytest.mark.parametrize("config", ["caption", "train", "serve"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_it_turns_sampling_on_wherever_it_is_given(config: Any, name: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"generation: {{{name}: 1}}\n", encoding="utf-8")
    for given in (
        {"flags": {name: 1}},
        {"sets": [f"generation.{name}=1"]},
        {"environment": {f"CAPTUNE_{name.upper()}": "1"}},
        {"file": file},
        {"flags": {name: 1}, "base": config_of(config)()},
    ):
        resolved = resolve(config, **given)  # type: ignore[arg-type]
        assert resolved.values.generation.sample is True
        assert resolved.sources["generation.sample"] == resolved.sources[f"generation.{name}"]


def test_what_was_not_given_turns_nothing_on() -> None:
    assert not resolve("caption", flags={"num_beams": 2, "sample_seed": 1}).values.generation.sample
    assert not resolve("train", preset="flickr8k-quick").values.generation.sample


@pytest.mark.parametrize("given", [{"flags": {"sample": False, "top_p": 0.5}}, {"sets": ["sample=no", "top_k=3"]}])
def test_both_at_once_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is for captions that are sampled, but sample is off"):
        resolve("caption", **given)


def test_the_later_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("generation: {temperature: 0.7}\n", encoding="utf-8")
    off = resolve("caption", file=file, flags={"sample": False}).values.generation
    assert (off.sample, off.temperature) == (False, 0.7)
    # A whole configuration, as a run keeps it, says what it means; a flag beside it is newer.
    file.write_text(dump(resolve("caption", file=file, flags={"sample": False}).values), encoding="utf-8")
    assert not resolve("caption", file=file).values.generation.sample
    assert resolve("caption", file=file, flags={"temperature": 0.9}).values.generation.sample


def test_a_models_saved_defaults_give_way_to_what_is_given() -> None:
    saved = {"sample": False, "temperature": 0.6}
    assert not resolve("caption").with_defaults("generation", saved).generation.sample
    asked = resolve("caption", flags={"top_p": 0.5}).with_defaults("generation", saved).generation
    assert (asked.sample, asked.temperature, asked.top_p) == (True, 0.6, 0.5)


def test_options_as_a_request_gives_them() -> None:
    assert with_sampling({"temperature": 0.5}) == {"temperature": 0.5, "sample": True}
    # Generated clients send every field with its default.
    every = GenerationOptions().model_dump()
    assert with_sampling(every) == every
    assert with_sampling({"variations": 3, "temperature": 0.5}) == {"variations": 3, "temperature": 0.5}
    with pytest.raises(UsageError):
        with_sampling({"sample": False, "temperature": 0.5})
    saved = GenerationOptions(temperature=0.6)
    assert with_sampling(as_given(saved)) == as_given(saved)
    assert as_given(GenerationOptions(sample=True, temperature=0.6))["temperature"] == 0.6


def test_more_captions_than_beams_widen_the_search_with_and_without_chance() -> None:
    for sample in (False, True):
        wide = normalized(GenerationOptions(num_captions=33, num_beams=3, sample=sample))
        assert (wide.num_beams, wide.num_captions) == (33, 33)
    drawn = normalized(GenerationOptions(num_captions=33, num_beams=1, sample=True))
    assert (drawn.num_beams, drawn.num_captions) == (1, 33)


def test_no_temperature_is_so_low_that_scores_overflow() -> None:
    assert temperatures(GenerationOptions(temperature=1e-320), 2) == [MIN_TEMPERATURE] * 2
    assert temperatures(GenerationOptions(temperature=1e-320, variations=3), 3) == [MIN_TEMPERATURE] * 3
    assert temperatures(GenerationOptions(temperature=0.7), 2) == [0.7] * 2


def test_a_seed_is_one_that_every_source_of_chance_takes() -> None:
    assert GenerationOptions(sample_seed=2**64 - 1).sample_seed == 2**64 - 1
    with pytest.raises(ValidationError, match="less than or equal"):
        GenerationOptions(sample_seed=2**64)
