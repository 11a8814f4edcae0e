"""Want of memory and room in a training, told with the settings that learn the same; batches that are halved."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from captune.core.config import resolve
from captune.core.errors import CaptuneError
from captune.core.machine import DiskFull, Halving, OutOfMemory
from captune.core.progress import SILENT
from captune.core.runs import CONFIG, HISTORY, MANIFEST, Run
from captune.training.folder import StartGuard, clear_untrained, locked_run
from captune.training.plan import explained_limits
from captune.training.resuming import equal_steps

CARD = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79 GiB.")


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that has begun."""
    monkeypatch.chdir(tmp_path)
    begun = Run(Path("runs/x"))
    begun.path.mkdir(parents=True)
    begun.write_manifest({"data_digest": "x"})
    (begun.path / CONFIG).write_text("")
    return begun


def after(error: Exception, where: str = "runs/x", **options: Any) -> CaptuneError:
    """What a training ends with in which `error` was raised."""
    config = resolve("train", flags=options).values
    with pytest.raises(CaptuneError) as caught, explained_limits(Run(where), config, "to train"):
        raise error
    return caught.value


def test_the_message_names_the_same_step_in_less_memory() -> None:
    found = after(CARD)
    assert isinstance(found, OutOfMemory)
    assert "not memory enough to train: CUDA out of memory" in found.message
    assert "captune train --resume --out runs/x --batch-size 4 --gradient-accumulation 2 --gradient-checkpointing" in (
        found.hint
    )
    assert "--cache-features" in found.hint
    assert "--captions-per-image 1" in found.hint
    # There is no run yet to go on with.
    assert "the same command --batch-size 4 --gradient-accumulation 2" in after(CARD, "runs/y").hint


def test_what_is_used_already_or_changes_the_sums_is_not_named() -> None:
    assert "--gradient-checkpointing" not in after(CARD, gradient_checkpointing=True).hint
    found = after(CARD, batch_size=1, gradient_checkpointing=True, flip=True, lora="on", captions_per_image=1)
    assert "--resume" not in found.hint
    assert not {"--cache-features", "--lora", "--captions-per-image"} & set(found.hint.replace(",", "").split())
    assert "--batch-size" not in after(CARD, stage="scst").hint


@pytest.mark.parametrize(
    ("batch", "parts", "flags"), [(8, 1, (4, 2)), (6, 2, (3, 4)), (9, 1, (3, 3)), (7, 1, (1, 7)), (2, 8, (1, 16))]
)
def test_equal_steps(batch: int, parts: int, flags: tuple[int, int]) -> None:
    assert equal_steps(batch, parts) == "--batch-size {} --gradient-accumulation {}".format(*flags)
    assert flags[0] * flags[1] == batch * parts
    assert equal_steps(1, parts) == ""


def test_room_and_readers() -> None:
    found = after(DiskFull("The disk is full: cannot write x.", "Free some space and run the command again."))
    assert isinstance(found, DiskFull)
    assert found.hint == "Free some space, then: captune train --resume --out runs/x"
    assert "--resume" in after(OSError(errno.ENOSPC, "No space left on device", "f")).hint
    found = after(RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."))
    assert "--resume --out runs/x --loader-workers 0" in found.hint
    with pytest.raises(KeyError):
        after(KeyError("a bug"))
    assert after(CaptuneError("no", "do")).hint == "do"


def test_batches_are_halved_until_they_have_room() -> None:
    sizes = []

    def run(start: int, end: int) -> list[int]:
        sizes.append(end - start)
        if end - start > 3 or start <= 5 < end:
            raise CARD
        return list(range(start, end))

    assert Halving("less").results(8, run) == [0, 1, 2, 3, 4, None, 6, 7]
    assert sizes == [8, 4, 2, 2, 2, 1, 1, 1, 1]


def test_no_room_for_any_ends_it() -> None:
    def run(start: int, end: int) -> list[int]:
        raise MemoryError

    with pytest.raises(OutOfMemory, match="one image at a time") as caught:
        Halving("use less").results(100, run)
    assert caught.value.hint == "use less"


# -- a start that is refused, and one that begins again ------------------------------------------


def began(run: Run) -> None:
    """What a training writes before its first step."""
    run.path.mkdir(parents=True, exist_ok=True)
    run.write_manifest({"data_digest": "x"})
    (run.path / CONFIG).write_text("")
    (run.path / "tensorboard").mkdir()
    (run.path / "checkpoints" / "checkpoint-0").mkdir(parents=True)


def fails(run: Run, error: Exception, *, learning: bool = False) -> None:
    """A training that ends with `error`, perhaps after it has learned something."""
    with locked_run(run, SILENT, first=True), StartGuard(run, first=True) as start:
        began(run)
        if learning:
            start.keep()
        raise error


REFUSED = CaptuneError("There is no CUDA device here.")


@pytest.mark.parametrize("there", [None, "runs", "runs/new"])
def test_a_refused_start_leaves_the_folders_that_were_there(tmp_path: Path, there: str | None) -> None:
    run = Run("lots/of/folders" if there is None else "runs/new")
    if there is not None:
        Path(there).mkdir(parents=True, exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CaptuneError):
        fails(run, REFUSED)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_has_learned_or_can_go_on_stays() -> None:
    for number, error in enumerate((OutOfMemory("no"), DiskFull("no"), CaptuneError("not finite"))):
        run = Run(f"new-{number}")
        with pytest.raises(CaptuneError):
            fails(run, error, learning=type(error) is CaptuneError)
        assert Run.is_run(run.path)


def test_a_refused_resume_takes_nothing(run: Run) -> None:
    with pytest.raises(CaptuneError), StartGuard(run, first=True):
        raise REFUSED
    assert Run.is_run(run.path)


def test_an_untrained_folder_begins_again_and_what_is_somebodys_stays(run: Run) -> None:
    began(run)
    (run.path / HISTORY).write_text('{"step": 1}\n')
    (run.path / "notes.txt").write_text("mine")
    clear_untrained(run, SILENT)
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]
    with pytest.raises(CaptuneError, match="not empty"):  # of captune there is nothing any more
        clear_untrained(run, SILENT)


@pytest.mark.parametrize("written", [(), (MANIFEST,), (MANIFEST, CONFIG), (f".{MANIFEST}.7.part", ".lock")])
def test_a_start_that_was_killed_between_any_two_files_begins_again(tmp_path: Path, written: tuple[str, ...]) -> None:
    run = Run(tmp_path / "new")
    run.path.mkdir()
    for name in written:
        (run.path / name).write_text('{"data_digest": "x"}' if name == MANIFEST else "")
    with locked_run(run, SILENT, first=True):
        clear_untrained(run, SILENT)
        assert [path.name for path in run.path.iterdir()] == [".lock"]


def test_room_is_made_from_the_manifest_last(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    began(run)
    removed: list[str] = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (removed.append(path.name), unlink(path, **how))[1])
    clear_untrained(run, SILENT)
    assert removed[-1] == MANIFEST


def test_a_trained_folder_and_anothers_do_not(run: Run) -> None:
    (run.path / "checkpoints" / "checkpoint-20").mkdir(parents=True)  # not whole, but weights may be there
    with pytest.raises(CaptuneError, match="not empty") as caught:
        clear_untrained(run, SILENT)
    assert "--resume" in caught.value.hint
    (run.path / "checkpoints" / "checkpoint-20").rmdir()
    run.write_manifest({"name": "some other program's"})
    with pytest.raises(CaptuneError, match="not empty"):
        clear_untrained(run, SILENT)
