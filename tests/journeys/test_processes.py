"""Two processes train as one does: the same losses and weights, one writer, exact resume."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Sampler

from captune.core.runs import Run
from captune.inference.batches import EpochOrder, SharedBatches
from captune.models import FAMILIES
from copies import run as captune
from tiny_vlms import lively
from training_commands import LAUNCHER, PORT, flags


@pytest.fixture(scope="module")
def runs(warm: str, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """12 images, 8 a step: the last step of an epoch has 4, and nothing for the second process."""
    folder = tmp_path_factory.mktemp("processes")
    alone = captune(warm, *flags(tiny_data, folder / "one", 8))
    assert alone.returncode == 0, alone.stderr
    together = captune(warm, *flags(tiny_data, folder / "two", 4), processes=2)
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("validation of") == 1, "one process speaks"
    return Run(folder / "one"), Run(folder / "two")


def test_losses_scores_and_weights_are_those_of_one_process(runs: tuple[Run, Run]) -> None:
    one, two = runs
    for mine, theirs in zip(two.history(), one.history(), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, rel=1e-5), (theirs["step"], name)
    weights = [FAMILIES["blip"].load(run.checkpoint("last").path).model.state_dict() for run in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
    assert (one.manifest()["processes"], two.manifest()["processes"]) == (1, 2)


def test_images_in_their_own_aspect_train_as_in_one_process(warm: str, tiny_data: Path, tmp_path: Path) -> None:
    lively("qwen2_5_vl").save(tmp_path / "model")
    more = {"model": tmp_path / "model", "learning_rate": 1e-3, "max_steps": 4, "precision": "fp32"}
    for name, batch, processes in (("one", 8, 1), ("two", 4, 2)):
        done = captune(warm, *flags(tiny_data, tmp_path / name, batch, **more), processes=processes)
        assert done.returncode == 0, done.stderr
    one, two = (Run(tmp_path / name) for name in ("one", "two"))
    for mine, theirs in zip(two.history(), one.history(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5), theirs["step"]
    weights = [FAMILIES["vlm"].load(run.checkpoint("last").path).model.state_dict() for run in (one, two)]
    for name, value in weights[0].items():
        if not name.endswith("k_proj.bias"):  # no attention depends on it: its gradient is rounding alone
            torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_run_of_two_resumes_exactly_and_only_with_two(warm: str, runs: tuple[Run, Run], tmp_path: Path) -> None:
    _, two = runs
    stopped = Run(tmp_path / "stopped")
    shutil.copytree(two.path, stopped.path, symlinks=True)
    shutil.rmtree(stopped.last().path)
    refused = captune(warm, "train", "--resume", "--out", str(stopped.path))
    assert refused.returncode == 2
    assert "began with 2 processes" in refused.stderr
    done = captune(warm, "train", "--resume", "--out", str(stopped.path), "--device", "cpu", processes=2)
    assert done.returncode == 0, done.stderr
    first, second = (FAMILIES["blip"].load(run.checkpoint("last").path).model.state_dict() for run in (two, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_evaluation_is_that_of_one_process(warm: str, runs: tuple[Run, Run], tiny_data: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(runs[0].path), "--data", str(tiny_data), "--split", "train", "--metrics", "bleu,cider",
             "--resamples", "20", "--no-draw-report", "--device", "cpu", "--json"]  # fmt: skip
    alone = captune(warm, *words, "--out", str(tmp_path / "one"))
    together = captune(warm, *words, "--out", str(tmp_path / "two"), processes=2)
    assert together.returncode == 0, together.stderr
    one, two = (next(iter(json.loads(done.stdout)["models"].values())) for done in (alone, together))
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-5)
    assert two["images"] == 12
    files = [(tmp_path / name / "eval_per_image.jsonl").read_text() for name in ("one", "two")]
    said = [
        [row["models"][str(runs[0].path)]["caption"] for row in map(json.loads, text.splitlines())] for text in files
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "options", [{"cache_features": None, "freeze": "vision"}, {"stage": "scst", "scst_guard": 1}, {"lora": "r=2"}]
)
def test_other_ways_to_train_work_together(warm: str, options: dict[str, Any], tiny_data: Path, tmp_path: Path) -> None:
    done = captune(warm, *flags(tiny_data, tmp_path / "run", 4, **options), processes=2)
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "run").last().step == 5


def test_a_signal_to_the_launcher_keeps_a_checkpoint(tiny_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = flags(tiny_data, out, 4, max_steps=5000, eval_steps=5000, validation_images=0)
    started = subprocess.Popen(
        [*LAUNCHER, str(PORT + 1), "-m", "captune", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (out / "history.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.2)
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=120)
    finally:
        started.kill()
    run = Run(out)
    assert run.last() is not None
    assert run.last().step > 0
    assert json.loads((run.last().path / "complete.json").read_text())["step"] == run.last().step


@pytest.mark.parametrize(("visits", "size", "count"), [(12, 4, 2), (13, 4, 2), (9, 2, 4), (3, 4, 2), (16, 4, 2)])
def test_shares_are_the_batches_of_one(visits: int, size: int, count: int) -> None:
    order = EpochOrder(visits, seed=3)
    whole = list(SharedBatches(order, size * count))
    parts = [list(SharedBatches(order, size, rank, count)) for rank in range(count)]
    assert isinstance(SharedBatches(order, size), Sampler)
    assert {len(part) for part in parts} == {len(whole)} == {len(SharedBatches(order, size, 0, count))}
    for step, batch in enumerate(whole):
        shared = [index for part in parts for index in part[step] if index[1] >= 0]
        assert shared == batch, "each visit once, none more"
