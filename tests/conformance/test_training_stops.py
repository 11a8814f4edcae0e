"""What ends a training early - a full disk, want of memory - loses nothing, and --resume goes on."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import captune
from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.machine import DiskFull
from captune.core.records import ImageRecord
from captune.core.runs import CONFIG, Run
from captune.inference.batches import Augmentation, CaptionDataset, EpochOrder, make_examples, training_loader
from captune.models.blip import Blip
from recorded import RecordedProgress
from trained import assert_same, train, weights


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_data, tmp_path_factory.mktemp("finished") / "run")


@pytest.mark.parametrize(("most", "file"), [(100_000, "config.json"), (400_000, "optimizer.pt")])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_says_so(
    tiny_data: Path, finished: Run, tmp_path: Path, most: int, file: str
) -> None:
    run, validations = Run(tmp_path / "run"), 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(scores: Mapping[str, float]) -> None:
        nonlocal validations
        validations += 1
        if validations == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))

    try:
        with pytest.raises(
            DiskFull, match=rf"(?s)Checkpoint 8 .* after .*{file}: the disk is full .*free there"
        ) as caught:
            train(tiny_data, run.path, watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"captune train --resume --out {run.path}" in caught.value.hint
    assert "checkpoint-4 is whole" in caught.value.hint
    assert [c.step for c in run.checkpoints()] == [0, 4]
    assert not list(run.checkpoints_folder.glob(".*"))
    captune.train(out=run.path, resume=True, environment={})
    assert_same(weights(run), weights(finished))
    assert run.history() == finished.history()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_is_named_from_loader_workers_too(tmp_path: Path, workers: int) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "there.png")
    backbone = Blip.tiny()
    records = [
        ImageRecord(name, str(tmp_path / name), ("a red circle",), "train") for name in ("there.png", "gone.png")
    ]
    examples = CaptionDataset(make_examples(records, backbone, max_tokens=9), backbone.pixels, Augmentation())
    batches = list(training_loader(examples, EpochOrder(2, 1), 1, workers, backbone.pad_token_id))
    (error,) = (batch for batch in batches if isinstance(batch, CaptuneError))
    assert "gone.png" in error.message
    assert "--on-bad skip" in error.hint
    assert [batch["owner"].tolist() for batch in batches if not isinstance(batch, CaptuneError)] == [[0]]


# -- less memory, the same mathematics ------------------------------------------------------


class Stopped(Exception):
    """What a test ends a training with."""


@pytest.fixture(scope="module")
def begun(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training of 8 steps that was ended behind step 4, in the middle of an epoch of 3 steps."""
    run, validations = Run(tmp_path_factory.mktemp("begun") / "run"), iter((None, Stopped))

    def end(scores: Mapping[str, float]) -> None:
        error = next(validations)
        if error is not None:
            raise error

    with pytest.raises(Stopped):
        train(tiny_data, run.path, **FOURS, watch=end)
    assert [c.step for c in run.checkpoints()] == [0, 4]
    return run


FOURS = {"batch_size": 4, "learning_rate": 1e-4}


def test_a_run_goes_on_in_smaller_batches_to_the_same_weights(tiny_data: Path, begun: Run, tmp_path: Path) -> None:
    whole = train(tiny_data, tmp_path / "whole", **FOURS)
    progress = RecordedProgress()
    captune.train(
        out=begun.path, resume=True, batch_size=2, gradient_accumulation=2, gradient_checkpointing=True,
        eval_batch_size=1, environment={}, progress=progress,
    )  # fmt: skip
    assert [
        text for text in progress.lines if "batch_size 2 instead of 4, gradient_accumulation 2 instead of 1" in text
    ]
    first, second = weights(whole), weights(begun)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-5, msg=name)
    losses = [[line["loss"] for line in run.history() if "loss" in line] for run in (whole, begun)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    # What has changed is the run's from now on, and stands in it.
    saved = resolve("train", file=begun.path / CONFIG).values
    assert (saved.train.batch_size, saved.train.gradient_accumulation, saved.eval.eval_batch_size) == (2, 2, 1)
    (changed,) = begun.manifest()["changed"]
    assert changed == {
        "step": 4,
        "batch_size": [4, 2],
        "gradient_accumulation": [1, 2],
        "gradient_checkpointing": [False, True],
        "eval_batch_size": [16, 1],
    }


@pytest.mark.parametrize(
    ("options", "told", "hint"),
    [
        ({"batch_size": 1}, "1 × 1 = 1 would be others", "--batch-size 1 --gradient-accumulation 2"),
        ({"batch_size": 4}, "4 × 1 = 4 would be others", "--batch-size 1 --gradient-accumulation 2"),
        ({"gradient_accumulation": 2}, "2 × 2 = 4 would be others", "Give both"),
        ({"cache_features": True}, "rounded", "Leave it out"),
        ({"precision": "bf16"}, "other numbers", "Leave it out"),
        ({"epochs": 9.0}, "planned length", "Leave it out"),
    ],
)
def test_other_changes_are_refused_with_the_reason(
    finished: Run, options: dict[str, Any], told: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        captune.train(out=finished.path, resume=True, environment={}, **options)
    assert hint in caught.value.hint


def test_rewards_go_on_in_the_batches_that_they_began_with(tmp_path: Path) -> None:
    from captune.core.config import dump

    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.write_manifest({"data": "x", "model": "y", "processes": 1})
    saved = resolve("train", flags={"stage": "scst"}).values
    (run.path / CONFIG).write_text(dump(saved))
    with pytest.raises(UsageError, match="means of batches"):
        captune.train(out=run.path, resume=True, batch_size=4, gradient_accumulation=2, environment={})


@pytest.mark.parametrize(
    "options",
    [
        {"device": "cuda:9"},
        {"precision": "fp16", "device": "cpu"},
        {"min_new_tokens": 9},
        {"train_prompt": "a " * 200},
        {"quantize": "4bit", "lora": "on"},
        {"lora": "r=none"},
        {"cache_features": True},
    ],
)
def test_a_refused_start_leaves_no_folder(tiny_data: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(CaptuneError):
        train(tiny_data, tmp_path / "runs" / "a", **options)
    assert list(tmp_path.iterdir()) == []
