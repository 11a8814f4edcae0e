"""What is read of an object in a store, and what a list says that names files elsewhere."""

from __future__ import annotations

import io
import os
from pathlib import Path

import fsspec
import pytest

from captune.captions.row import CaptionRow
from captune.captions.writers.sidecar import SidecarWriter
from captune.captions.writers.tar import write_tar
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.paths import Listed
from captune.core.records import Caption
from captune.core.stores import files
from captune.datasets.sources.input_shards import InputShard
from captune.datasets.sources.listing import check_listed
from captune.jobs.manifest import Inputs


@pytest.mark.parametrize("size", [0, 9, 10, 11, 12, 40])
def test_objects_come_whole_and_large_ones_wait(size: int) -> None:
    data = os.urandom(size)
    fsspec.filesystem("memory").pipe_file("/limits/photo.jpg", data)
    grown: list[int] = []
    assert files.read("memory://limits/photo.jpg", grown.append, max_bytes=40, small=10) == data
    assert grown == ([11] if size > 10 else [])


def test_an_object_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = fsspec.filesystem("memory")
    endless.pipe_file("/limits/endless.jpg", b"x" * 10_000)
    parts: list[int] = []
    read = type(endless).cat_file

    def counted(self: object, path: str, **places: int) -> bytes:
        parts.append(len(found := read(self, path, **places)))
        return bytes(found)

    monkeypatch.setattr(type(endless), "cat_file", counted)
    with pytest.raises(CaptuneError, match="more than 40 bytes"):
        files.read("memory://limits/endless.jpg", max_bytes=40, small=10)
    assert parts == [11, 31]


def test_a_list_of_ones_own_is_told_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "my photos" / "b").mkdir(parents=True)
    names = [str(tmp_path / "my photos" / name) for name in ("a.jpg", "b/c.jpg")]
    for name in names:
        Path(name).touch()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError) as caught:
        check_listed(names, os.getcwd())
    assert f"captune caption - --images '{tmp_path / 'my photos'}'" in caught.value.hint
    check_listed(names, str(tmp_path / "my photos"))


def test_a_listed_name_that_is_not_there_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Inputs.of([Listed("photo 12"), Listed("a.jpg?../b")]).check_exist()
    for missing in ("photos", Listed("x.tar")):
        with pytest.raises(CaptuneError, match="cannot be read"):
            Inputs.of([missing]).check_exist()


def test_what_is_no_picture_is_not_read_again_for_a_tar(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would never end
    shard = InputShard("files", "", 0, 1, (str(tmp_path / "pipe.jpg"),))
    rows = [CaptionRow(str(tmp_path / "pipe.jpg"), (), "error", "not an image", "x")]
    packed = io.BytesIO()
    write_tar(rows, shard, packed)
    assert b"not an image" in packed.getvalue()


def test_a_pipe_in_the_place_of_a_sidecar_costs_that_one_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    images = [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    with SidecarWriter(None, io.StringIO()) as writer:
        for image in images:
            writer.write(CaptionRow(image, (Caption("a cat", 0.5),), "ok", None, "x"))
    assert (tmp_path / "b.txt").read_text() == "a cat\n"
    assert list(writer.unwritten) == images[:1]
    assert "a pipe" in writer.unwritten[images[0]]
