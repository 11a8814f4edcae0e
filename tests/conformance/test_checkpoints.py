"""A checkpoint is whole or absent, whichever of its files finds the disk full."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file  # not on the small disk: half a compiled module would stay

from captune.core.config import dump, resolve
from captune.core.files import write_json, write_text
from captune.core.machine import DiskFull
from captune.core.progress import SILENT
from captune.core.runs import CONFIG, Run, checkpoint_damage
from captune.training.history import append_history, cut_history, history_digest
from captune.training.loop.checkpoints import last_whole, rotate, set_aside, write_checkpoint
from captune.training.resuming import resume_run

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


# -- damage ------------------------------------------------------------------------------------


def full(folder: Path) -> None:
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        (folder / name).write_bytes(name.encode() * 100)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"a" * 100)


def flip(path: Path, at: int = 50) -> None:
    """Change one bit of a file, which keeps its size and its times."""
    data, times = bytearray(path.read_bytes()), path.stat()
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with two checkpoints."""
    made = Run(tmp_path / "run")
    for step in (4, 8):
        write_checkpoint(made, step, step / 4, full, {"scores": {"loss": 1.0}, "sums": {"nll": 2.5}})
    return made


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", "scheduler.pt", "complete.json"),
        "adapter/adapter_model.safetensors",
    ],
)
def test_a_flipped_bit_falls_back_to_the_last_whole_checkpoint(run: Run, name: str) -> None:
    whole, damaged = last_whole(run)
    assert whole is not None
    assert (whole.step, damaged) == (8, {})
    flip(whole.path / name)
    whole, damaged = last_whole(run)
    assert whole is not None
    assert whole.step == 4
    assert name in damaged["checkpoint-8"]
    set_aside(run, damaged)
    assert sorted(path.name for path in run.checkpoints_folder.iterdir()) == ["checkpoint-4", "damaged-checkpoint-8"]
    assert [c.step for c in run.checkpoints()] == [4]
    assert last_whole(run) == (whole, {})


@pytest.mark.parametrize(("damage", "word"), [("truncate", "bytes"), ("unlink", "missing"), ("mark", "complete.json")])
def test_other_damage_too(run: Run, damage: str, word: str) -> None:
    path = run.checkpoints_folder / "checkpoint-8" / ("complete.json" if damage == "mark" else "optimizer.pt")
    path.unlink() if damage != "truncate" else os.truncate(path, 10)
    whole, damaged = last_whole(run)
    assert whole is not None
    assert (whole.step, list(damaged)) == (4, ["checkpoint-8"])
    assert word in damaged["checkpoint-8"]


def test_a_model_is_whole_without_the_state_of_its_training(run: Run) -> None:
    folder = run.checkpoint("last").path
    flip(folder / "optimizer.pt")
    assert checkpoint_damage(folder, model_only=True) == ""
    assert "optimizer.pt" in checkpoint_damage(folder)
    assert checkpoint_damage(folder, sizes_only=True) == ""
    flip(folder / "model.safetensors")
    assert "model.safetensors is not what was written" in checkpoint_damage(folder, model_only=True)


def test_marks_of_earlier_versions_know_sizes_alone(run: Run) -> None:
    folder = run.checkpoint("last").path
    mark = json.loads((folder / "complete.json").read_text())
    write_json(folder / "complete.json", {"step": 8, "epoch": 2.0, "files": mark["files"]})
    flip(folder / "model.safetensors")
    assert checkpoint_damage(folder) == ""
    os.truncate(folder / "model.safetensors", 3)
    assert "has 3 bytes" in checkpoint_damage(folder)


def test_linked_files_are_hashed_once_and_damage_in_them_is_noticed_in_all(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    write_checkpoint(run, 4, 1.0, full, {})
    first = run.checkpoint("last").path

    def linking(folder: Path) -> None:
        full(folder)
        (folder / "model.safetensors").unlink()
        os.link(first / "model.safetensors", folder / "model.safetensors")

    flip(first / "model.safetensors")
    write_checkpoint(run, 8, 2.0, linking, {})
    whole, damaged = last_whole(run)
    assert whole is None
    assert all("model.safetensors is not what was written" in what for what in damaged.values())


def test_half_deleted_checkpoints_are_swept(run: Run) -> None:
    (run.checkpoints_folder / "checkpoint-4" / "complete.json").unlink()
    rotate(run, 1, lambda step: False)
    assert [path.name for path in run.checkpoints_folder.iterdir()] == ["checkpoint-8"]


def test_what_a_kill_left_to_delete_goes_as_the_training_goes_on(run: Run) -> None:
    config = resolve("train", flags={"keep_checkpoints": 1}).values
    write_text(run.path / CONFIG, dump(config))
    run.write_manifest({"data": "data", "options": config.model_dump(mode="json")})
    checkpoint = run.last()
    assert checkpoint is not None
    resume_run(run, checkpoint, config, {"data": "data"}, {}, SILENT)
    assert [path.name for path in run.checkpoints_folder.iterdir()] == [checkpoint.name]


def test_a_damaged_history_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "history.jsonl").write_bytes(b'{"step": 1}\n\xff\xfe\n7\n{"step": "x"}\n{"step": 2}\n{"st')
    assert run.history() == [{"step": 1}, {"step": 2}]
    before = history_digest(run)
    cut_history(run, 2)
    assert history_digest(run) == before
    assert (tmp_path / "history.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
