"""Names of the documents and of other tools are taken or answered; wrong names find the right ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captune.cli.main import load, run
from captune.core.aliases import ALIASES, ANSWERS, FORMER, ORIGINS, VERBS_ELSEWHERE
from captune.core.config import leaves, resolve
from captune.core.errors import UsageError, about_option, about_variables, about_verb, did_you_mean, edits, nearest
from captune.core.options import Options
from captune.core.options.verbs import configs
from captune.core.verbs import VERBS

OPTIONS = {name for config in configs().values() for name in leaves(config)}
ARGUMENTS = {parameter.name for verb in configs() for parameter in load(verb).params}


def value_of(config: type[Options], key: str, **given: Any) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(resolve(config, **given).values, section), name)


@pytest.mark.parametrize("name", ALIASES)
def test_an_alias_means_something_that_captune_has_and_nothing_else(name: str) -> None:
    assert set(ALIASES[name]) <= OPTIONS | ARGUMENTS | {"work", "source"}
    assert name not in OPTIONS
    assert name not in ANSWERS


def test_every_other_name_stands_once_and_answers_name_flags_that_exist() -> None:
    names = [name for origin in ORIGINS for name in (*origin.aliases, *origin.answers)]
    assert len(names) == len(set(names))
    assert set(VERBS_ELSEWHERE.values()) <= set(VERBS)
    flags = {flag for verb in VERBS for p in load(verb).params for flag in (*p.opts, *p.secondary_opts)}
    words = {word.strip(".,;:()") for text in ANSWERS.values() for word in text.split() if word.startswith("--")}
    assert {word for word in words if word not in flags} == set()


@pytest.mark.parametrize(
    ("config", "name", "key", "value"),
    [
        ("train", "lr", "train.learning_rate", 1e-4),
        ("train", "per_device_train_batch_size", "train.batch_size", 2),
        ("train", "per_device_eval_batch_size", "eval.eval_batch_size", 2),
        ("train", "grad_accum", "train.gradient_accumulation", 8),
        ("train", "max_length", "data.max_caption_tokens", 20),
        ("caption", "max_length", "generation.max_new_tokens", 20),
        ("evaluate", "num_samples", "eval.limit_images", 5),
        ("train", "eval_strategy", "train.best_metric", "pareto"),
        ("train", "save_to_hf", "train.push_to", "me/model"),
        ("push", "hf_private", "push.private", True),
        ("caption", "do_sample", "generation.sample", True),
        ("caption", "pixels", "run_on.preprocessing", "fast"),
        ("export", "least_identical", "export.min_identical", 0.25),
        ("video", "looks_per_second", "video.sample_fps", 2.0),
        ("video", "least_scene", "video.min_scene_seconds", 3.0),
    ],
)
def test_an_alias_is_taken_by_every_source(
    config: type[Options], name: str, key: str, value: Any, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{key.partition('.')[0]}: {{{name}: {value}}}\n", encoding="utf-8")
    for given in ({"flags": {name: value}}, {"sets": [f"{name}={value}"]}, {"file": file}):
        assert value_of(config, key, **given) == value


@pytest.mark.parametrize("former", FORMER)
def test_a_former_name_is_read_everywhere_and_shown_nowhere(
    former: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    verb, config = next((verb, c) for verb, c in configs().items() if FORMER[former] in leaves(c))
    leaf = leaves(config)[FORMER[former]]
    value = {"preprocessing": "fast", "min_identical": 0.25}.get(leaf.name, 2.0)
    variable = f"CAPTUNE_{former.upper()}"
    assert value_of(config, leaf.key, environment={variable: str(value)}) == value
    assert value_of(config, leaf.key, environment={variable: "wrong", f"CAPTUNE_{leaf.name.upper()}": str(value)})
    assert about_variables({variable: "1"}) == []
    saved = {section: group.model_dump() for section, group in resolve(config).values}
    saved[leaf.section][former] = value
    del saved[leaf.section][leaf.name]
    assert getattr(getattr(config.model_validate(saved), leaf.section), leaf.name) == value  # a manifest of 0.1.0
    assert run([verb, "--help"]) == 0
    assert f"--{former.replace('_', '-')}" not in capsys.readouterr().out


def test_one_option_by_two_names_is_refused() -> None:
    with pytest.raises(UsageError, match="'lr' and 'learning_rate' are the same option"):
        resolve("train", flags={"lr": 1.0, "learning_rate": 2.0})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--no-eval"], ["train has no option --no-eval", "--validation-images 0"]),
        (["train", "--wandb"], ["--trackers wandb"]),
        (["train", "--wandb-project", "x"], ["WANDB_PROJECT"]),
        (["train", "--hf-token", "x"], ["HF_TOKEN"]),
        (["train", "--load-best-model-at-end"], ["RUN@best-loss"]),
        (["train", "--set", "eval_strategy=epoch", "--print-config"], ["--eval-every"]),
        (["train", "--data", "d", "--eval-strategy", "epoch"], ["'epoch' is not one of", "--eval-every"]),
        (["train", "--data", "d", "--eval_strategy=no"], ["--eval-every"]),
        (["train", "--data", "d", "--eval-strategy", "other"], ["Try 'captune train --help'"]),
        (["train", "--save-to-hf"], ["'--save-to-hf' requires an argument", "Try 'captune train --help'"]),
        (["caption", "--sample=false"], ["does not take a value", "Try 'captune caption --help'"]),
        (["train", "--lrs", "3"], ["Did you mean '--learning-rate'?"]),
        (["train", "--no-flp"], ["'--no-flip'"]),
        (["caption", "--epochs", "3"], ["--epochs is an option of captune train, captune tune, captune learn."]),
        (["caption", "--lr", "3"], ["--learning-rate is an option of captune train"]),
        (["finetune"], ["captune calls it 'train'", "Try 'captune --help'"]),
        (["debug-infer"], ["captune calls it 'inspect'"]),
    ],
)
def test_a_name_that_is_not_taken_is_answered(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert len(error) < 500


def test_flags_of_other_tools_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    given = "--lr 1e-4 --num_train_epochs 3 --learning_rate 2e-4 --no_flip --do-sample --output_dir x --print-config"
    assert run(["train", *given.split()]) == 0
    shown = capsys.readouterr().out
    for line in (["train.learning_rate", "0.0002"], ["train.epochs", "3.0"], ["generation.sample", "true"]):
        assert line in [row.split()[:2] for row in shown.splitlines()]


@pytest.mark.parametrize(
    ("given", "known", "meant"),
    [
        ("lr", ["lora", "learning_rate"], []),
        ("beams", ["num_beams", "batch_size"], ["num_beams"]),
        ("Learning-Rate", ["learning_rate", "lora"], ["learning_rate"]),
        ("trian", VERBS, ["train"]),
        ("evalaute", VERBS, ["evaluate"]),
        ("quick", ["flickr8k-quick", "flickr8k-long"], ["flickr8k-quick"]),
        ("flickr8k", ["flickr8k-quick", "flickr8k-long", "demo"], ["flickr8k-long", "flickr8k-quick"]),
        ("blip2", ["blip", "blip-2", "git"], ["blip-2"]),
        ("CIDEr-D", ["cider", "bleu"], ["cider"]),
        ("spcie", ["spice", "bleu"], ["spice"]),
    ],
)
def test_the_nearest_names(given: str, known: list[str], meant: list[str]) -> None:
    assert nearest(given, known) == meant


def test_edits_count_swapped_neighbours_once() -> None:
    assert [edits(*pair) for pair in (("trian", "train"), ("", "abc"), ("kitten", "sitting"))] == [1, 3, 3]


def test_a_long_list_is_not_shown_beside_a_suggestion() -> None:
    many = [f"name_{number}" for number in range(50)]
    assert did_you_mean("name_7x", many) == "Did you mean 'name_7'?"
    assert did_you_mean("jsnl", ["csv", "jsonl"]) == "Did you mean 'jsonl'? Known: csv, jsonl."
    assert about_option("verson", many) == "The command's --help lists its options."
    assert about_verb("eval", ["train", "evaluate"]) == "captune calls it 'evaluate'."
