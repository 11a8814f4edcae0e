"""A checkpoint is whole or absent, whichever of its files finds the disk full."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captune.core.disk import DiskFull
from captune.core.files import write_json
from captune.core.runs import Run
from captune.engine.checkpoints import write_checkpoint
from captune.engine.history import append_history

LIMIT = 4096


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond a few kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def weights(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(LIMIT)}, folder / "model.safetensors")


def optimizer(folder: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(LIMIT)}, folder / "optimizer.pt")


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({f"w{n}": n for n in range(LIMIT)}, unk_token="w0")).save(str(folder / "tokenizer.json"))


def config(folder: Path) -> None:
    write_json(folder / "config.json", {"words": ["x"] * LIMIT})


def state(folder: Path) -> None:
    (folder / "rng_state.pth").write_bytes(b"x" * 2 * LIMIT)


@pytest.mark.parametrize("file", [weights, optimizer, tokenizer, config, state])
def test_any_file_that_does_not_fit_is_named_and_nothing_is_left(tmp_path: Path, file: Callable[[Path], None]) -> None:
    run = Run(tmp_path / "run")
    small = lambda folder: (folder / "a.json").write_text("{}")
    write_checkpoint(run, 2, 0.5, small, {})
    with small_disk(), pytest.raises(DiskFull, match=r"Checkpoint 4 .*the disk is full \(.* free there") as caught:
        write_checkpoint(run, 4, 1.0, lambda folder: (small(folder), file(folder))[1], {})
    assert "checkpoint-2 is whole" in caught.value.hint
    assert f"--resume --out {run.path}" in caught.value.hint
    assert [path.name for path in run.checkpoints_folder.iterdir()] == ["checkpoint-2"]
    assert write_checkpoint(run, 4, 1.0, file, {}).step == 4


def test_the_mark_and_the_history_too(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    more: dict[str, Any] = {"scores": ["x"] * LIMIT}
    with small_disk(), pytest.raises(DiskFull, match=r"Checkpoint 2 .* full") as caught:
        write_checkpoint(run, 2, 0.5, config_of_nothing, more)
    assert "no earlier checkpoint" in caught.value.hint
    assert run.checkpoints() == []
    with small_disk(), pytest.raises(DiskFull, match=r"history\.jsonl: .* larger than .*free there"):
        append_history(run, more)
    assert run.history() == []


def config_of_nothing(folder: Path) -> None:
    (folder / "a.json").write_text("{}")
