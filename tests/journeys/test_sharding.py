"""Two processes that share weights, gradients and optimizer state train as one process that has them all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from captune.core.errors import CaptuneError
from captune.core.runs import Run
from captune.inference.processes import Processes
from captune.models import FAMILIES
from copies import run as captune
from training_commands import flags

GENTLE = {"learning_rate": 1e-3, "precision": "fp32"}


def state(run: Run, file: str) -> Any:
    path = run.checkpoint("last").path / file
    return load_file(path) if file.endswith(".safetensors") else torch.load(path)


@pytest.fixture(scope="module")
def runs(warm: str, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """12 images, 8 a step: the last step of an epoch has 4, and nothing for the second process."""
    folder = tmp_path_factory.mktemp("sharding")
    alone = captune(warm, *flags(tiny_data, folder / "one", 8, **GENTLE))
    assert alone.returncode == 0, alone.stderr
    together = captune(warm, *flags(tiny_data, folder / "two", 4, shard=None, **GENTLE), processes=2)
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("validation of") == 1, "one process speaks"
    return Run(folder / "one"), Run(folder / "two")


def test_losses_scores_and_weights_are_those_of_one_process(runs: tuple[Run, Run]) -> None:
    one, two = runs
    for mine, theirs in zip(two.history(), one.history(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5), theirs["step"]
    mine, theirs = state(two, "model.safetensors"), state(one, "model.safetensors")
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-5)


def test_checkpoints_are_those_of_one_process(runs: tuple[Run, Run]) -> None:
    from transformers import BlipForConditionalGeneration

    one, two = runs
    files = [
        {path.name for path in run.checkpoint("last").path.iterdir() if not path.name.startswith("rng_state")}
        for run in (one, two)
    ]
    assert files[0] == files[1]
    mine, theirs = state(two, "optimizer.pt"), state(one, "optimizer.pt")
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"].keys() == theirs["state"].keys()
    for number, values in theirs["state"].items():
        for name, value in values.items():
            torch.testing.assert_close(mine["state"][number][name], value, rtol=1e-3, atol=1e-7)
    plain = BlipForConditionalGeneration.from_pretrained(two.path / "best-metric").state_dict()
    ours = FAMILIES["blip"].load(two.checkpoint("best-metric").path).model.state_dict()
    assert all(torch.equal(plain[name], value) for name, value in ours.items())


def resumed(warm: str, run: Run, folder: Path, *more: str) -> tuple[Run, Any]:
    stopped = Run(folder / "stopped")
    shutil.copytree(run.path, stopped.path, symlinks=True)
    shutil.rmtree(stopped.last().path)
    return stopped, captune(
        warm, "train", "--resume", "--out", str(stopped.path), "--device", "cpu", *more, processes=2
    )


def assert_same_end(one: Run, two: Run) -> None:
    mine, theirs = (state(run, "model.safetensors") for run in (one, two))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    mine, theirs = (state(run, "optimizer.pt")["state"] for run in (one, two))
    for number, values in theirs.items():
        assert all(torch.equal(mine[number][name], value) for name, value in values.items())


def test_a_run_resumes_exactly(warm: str, runs: tuple[Run, Run], tmp_path: Path) -> None:
    stopped, done = resumed(warm, runs[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_end(stopped, runs[1])


def test_a_run_goes_on_as_it_began(warm: str, runs: tuple[Run, Run], tmp_path: Path) -> None:
    _, done = resumed(warm, runs[1], tmp_path, "--no-shard")
    assert done.returncode != 0
    assert "began with shard = True, not False" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"lora": "r=2", "cache_features": None, "freeze": "vision", "part_learning_rates": "bridge=1e-4"},
        {"stage": "scst", "scst_references": 0.1, "gradient_accumulation": 2},
    ],
    ids=["lora", "scst"],
)
def test_other_ways_to_train_work_in_shards(
    warm: str, options: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    """As accelerate's launcher asks for it."""
    words = flags(tiny_data, tmp_path / "run", 4, max_steps=3, **GENTLE, **options)
    done = captune(warm, *words, processes=2, ACCELERATE_USE_FSDP="true", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "run")
    assert run.last().step == 3
    assert yaml.safe_load((run.path / "config.yaml").read_text())["train"]["shard"] is True
    if "lora" in options:  # adapters are loaded another way than weights
        stopped, done = resumed(warm, run, tmp_path)
        assert done.returncode == 0, done.stderr
        assert_same_end(stopped, run)


def test_every_family_learns_in_shards(warm: str) -> None:
    done = captune(warm, script=Path(__file__).parent.parent / "shards.py", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("learns in shards") == len(FAMILIES) + 2


def test_one_process_has_nothing_to_share(warm: str, tiny_data: Path, tmp_path: Path) -> None:
    done = captune(warm, *flags(tiny_data, tmp_path / "run", 4, shard=None))
    assert done.returncode == 2
    assert "there is one" in done.stderr
    assert "torchrun" in done.stderr


def test_deepspeed_is_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(CaptuneError, match="DeepSpeed is not in this version"):
        Processes.join("cpu")
