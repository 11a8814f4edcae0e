"""What ends a training early - a full disk, want of memory - loses nothing, and --resume goes on."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

import pytest

import captune
from captune.core.disk import DiskFull
from captune.core.runs import Run
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
