"""The variables of the documents work wherever they could."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import captune
from captune.cli.main import load
from captune.core.config import leaves, resolve
from captune.core.environment import UNREPORTED, heed_hub_token, report_nothing
from captune.core.errors import UsageError, about_variables
from captune.core.options.verbs import configs


@pytest.mark.parametrize(
    ("given", "token"),
    [
        ({"HUGGINGFACE_TOKEN": "a"}, "a"),
        ({"HUGGINGFACE_TOKEN": "a", "HF_TOKEN": "b"}, "b"),
        ({"HUGGINGFACE_TOKEN": "a", "HF_TOKEN": ""}, "a"),
        ({"HUGGINGFACE_TOKEN": "a", "HUGGING_FACE_HUB_TOKEN": "c"}, None),
        ({"HUGGINGFACE_TOKEN": " "}, None),
        ({}, None),
    ],
)
def test_a_token_by_its_other_name(given: dict[str, str], token: str | None) -> None:
    heed_hub_token(given)
    assert given.get("HF_TOKEN") == token


def test_the_hubs_client_finds_it() -> None:
    code = "import captune; captune.prepare; from huggingface_hub import get_token; print(get_token())"
    environment = {**os.environ, "HUGGINGFACE_TOKEN": "hf_other"}
    environment.pop("HF_TOKEN", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "hf_other\n"


def test_libraries_report_nothing_unless_they_are_asked_to() -> None:
    given = {"RAY_USAGE_STATS_ENABLED": "1"}
    report_nothing(given)
    assert given == {**UNREPORTED, "RAY_USAGE_STATS_ENABLED": "1"}
    code = "import captune; captune.train; import os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    around = {name: value for name, value in os.environ.items() if name not in UNREPORTED}
    done = subprocess.run([sys.executable, "-c", code], env=around, capture_output=True, text=True, check=True)
    assert done.stdout == "true\n"


@pytest.mark.parametrize("verb", [verb for verb, config in configs().items() if "device" in leaves(config)])
def test_the_device_of_every_verb_that_has_one(verb: str) -> None:
    values = resolve(configs()[verb], environment={"DEVICE": "cuda:3"}).values
    assert values.run_on.device == "cuda:3"  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", ["train", "tune", "caption", "video"])
def test_the_batch_size(verb: str) -> None:
    config = configs()[verb]
    section = leaves(config)["batch_size"].section
    assert getattr(resolve(config, environment={"BATCH_SIZE": "3"}).values, section).batch_size == 3


@pytest.mark.parametrize("verb", ["train", "tune", "evaluate", "capfilt"])
def test_the_data(verb: str) -> None:
    (data,) = (parameter for parameter in load(verb).params if parameter.name == "data")
    assert data.envvar == "DATA_DIR"


def test_pushing_while_it_trains_takes_the_repository_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="HF_REPO_NAME, which is not set"):
        captune.train("data", "new:blip-tiny", tmp_path / "run", push_to="auto", environment={})
    with pytest.raises(UsageError, match="'nonsense' is not a repository"):
        captune.train("d", "new:blip-tiny", tmp_path / "run", push_to="auto", environment={"HF_REPO_NAME": "nonsense"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CAPTUNE_LR", "CAPTUNE_LEARNING_RATE"),
        ("CAPTUNE_BATCHSIZE", "CAPTUNE_BATCH_SIZE"),
        ("CAPTUNE_TRACEBAK", "CAPTUNE_TRACEBACK"),
        ("CAPTUNE_EPOCH", "CAPTUNE_EPOCHS"),
    ],
)
def test_a_misspelled_variable_is_told(name: str, meant: str) -> None:
    assert about_variables({name: "1"}) == [f"The environment variable {name} is not read. Did you mean '{meant}'?"]
    assert about_variables({name: ""}) == []


def test_variables_that_are_read_or_somebodys_own_are_no_mistakes() -> None:
    given = [
        "CAPTUNE_EPOCHS",
        "CAPTUNE_MODEL",
        "CAPTUNE_PORT",
        "CAPTUNE_CPUS",
        "CAPTUNE_TEST_DATA",
        "CAPTUN_LR",
        "HOME",
    ]
    assert about_variables(dict.fromkeys(given, "1")) == []
