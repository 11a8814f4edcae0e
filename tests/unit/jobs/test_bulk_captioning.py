"""Result shards made with a function as the model: short memory, failed rows, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.machine import is_out_of_memory
from captune.core.records import Caption
from captune.core.stores.local import open_store
from captune.datasets.sources.input_shards import list_input_shards
from captune.images.duplicates import find_duplicate_images, read_fingerprints
from captune.jobs.decode_ahead import ShardTask
from captune.jobs.shard_captioner import BatchCaptioner, FinishedShard, ShardOptions, caption_shards
from captune.jobs.shards import PLAIN
from jobs import PREPROCESSING, pictures, say


class Model:
    """Has room for `most` images at once, and at a time refuses those in `never`, counted from 0."""

    def __init__(self, most: int, error: BaseException, never: tuple[int, ...] = ()) -> None:
        self.most, self.error, self.never = most, error, never
        self.asked: list[int] = []
        self.single = 0

    def __call__(self, pixels: np.ndarray, prompts: object) -> list[list[Caption]]:
        self.asked.append(len(pixels))
        if len(pixels) > self.most:
            raise self.error
        if len(pixels) == 1:
            self.single += 1
            if self.single - 1 in self.never:
                raise self.error
        return [say(image) for image in pixels]


def caption(tmp_path: Path, model: Any, *, batch_size: int = 8, size: int = 10, **more: Any) -> list[FinishedShard]:
    shards = list(list_input_shards([tmp_path / "pics"], shard_size=size))
    options = ShardOptions(PLAIN, len(shards), batch_size=batch_size, workers=1)
    tasks = [ShardTask(number, shard) for number, shard in enumerate(shards)]
    return list(
        caption_shards(BatchCaptioner(model, PREPROCESSING), tasks, open_store(str(tmp_path / "out")), options, **more)
    )


def rows(tmp_path: Path, number: int) -> list[CaptionRow]:
    name = f"captions-{number:05}.jsonl"
    return list(PLAIN.decode((tmp_path / "out" / name).read_bytes(), name))


SHORT = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("error", [SHORT, MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you")])
def test_a_batch_without_room_is_halved(tmp_path: Path, error: BaseException) -> None:
    pictures(tmp_path / "pics", 20)
    model = Model(3, error)
    assert [each.failed for each in caption(tmp_path, model)] == [(), ()]
    # Eight, four, two: from there on two at a time, until the next shard tries again.
    assert model.asked == [8, 4, 2, 2, 2, 2, 2] * 2
    every = rows(tmp_path, 0) + rows(tmp_path, 1)
    assert [row.captions[0].text for row in every[:4]] == [
        f"a picture of something that is {colour}" for colour in ("red", "green", "blue", "white")
    ]


def test_a_picture_without_room_by_itself_is_a_row(tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 6)
    (finished,) = caption(tmp_path, Model(1, SHORT, never=(2, 4)))
    assert [row.status for row in rows(tmp_path, 0)] == ["ok", "ok", "error", "ok", "error", "ok"]
    assert [row.image[-7:] for row in finished.failed] == ["002.png", "004.png"]
    assert "memory" in str(finished.failed[0].error)


def test_a_model_that_has_no_room_at_all_stops(tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 20)
    with pytest.raises(CaptuneError, match="not memory enough"):
        caption(tmp_path, Model(0, SHORT))
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_other_errors_of_the_model_are_not_swallowed(tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 20)
    with pytest.raises(RuntimeError, match="device-side assert"):
        caption(tmp_path, Model(0, RuntimeError("CUDA error: device-side assert triggered")))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_missing_pictures_are_asked_about_before_they_are_written(tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 20)
    shards = list(list_input_shards([tmp_path / "pics"], shard_size=10))
    (tmp_path / "pics" / "012.png").unlink()
    options = ShardOptions(PLAIN, len(shards), workers=1)

    model = BatchCaptioner(Model(9, SHORT), PREPROCESSING)

    def gone() -> None:
        raise CaptuneError("the disk is gone")

    tasks = [ShardTask(number, shard) for number, shard in enumerate(shards)]
    with pytest.raises(CaptuneError, match="the disk is gone"):
        list(caption_shards(model, tasks, open_store(str(tmp_path / "out")), options, check_inputs=gone))
    assert [path.name for path in (tmp_path / "out").glob("*.jsonl")] == ["captions-00000.jsonl"]


def test_pictures_are_counted_as_they_are_done(tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 20, bad=(1,))
    heard: list[int] = []
    finished = caption(tmp_path, Model(9, SHORT), advance=heard.append)
    assert sum(heard) == 20
    assert [(each.number, each.images, len(each.failed)) for each in finished] == [(0, 10, 1), (1, 10, 0)]


def test_flags_and_looks(tmp_path: Path) -> None:
    pictures(tmp_path / "pics", 8, bad=(1,))
    copy = tmp_path / "pics" / "006.png"
    copy.write_bytes((tmp_path / "pics" / "003.png").read_bytes())
    words = iter(["", "a dog and a dog", "a cat", "a cat", "собака и green dog на траве", "a", "b"])
    caption(tmp_path, lambda pixels, prompts: [[Caption(next(words), 0.5)] for _ in pixels], batch_size=2, size=3)
    flags = [row.flags for number in range(3) for row in rows(tmp_path, number)]
    # The second could not be read, and has no words of the model's.
    assert flags == [("empty",), (), ("repeats",), (), (), ("language",), (), ()]
    store = open_store(str(tmp_path / "out"))
    assert [len(read_fingerprints(store, number)) for number in range(4)] == [3, 3, 2, 0]
    duplicates = find_duplicate_images(store, range(3))
    assert duplicates is not None
    assert [(pair.earlier, pair.later, pair.exact) for pair in duplicates] == [((1, 0), (2, 0), True)]
    assert find_duplicate_images(store, range(3), most=5) is None
