"""Tars with captions: the input's samples and the rows, the same bytes each time, read by WebDataset's rules."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from captune.captions.writers import CaptionRow, ShardWriter, open_writer
from captune.captions.writers.tar import publish_tar, write_tar
from captune.core.errors import CaptuneError, UsageError
from captune.core.records import Caption
from captune.core.stores.local import open_store
from captune.datasets.formats import read_source
from captune.datasets.sources.input_shards import InputShard, list_input_shards, read_images


def read_tar(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The rows (as `CaptionRow.to_json` made them) of a tar that `write_tar` wrote, in order."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for entry in tar:
            if entry.name.endswith(".json") and not entry.name.endswith(".original.json"):
                content = tar.extractfile(entry)
                assert content is not None
                yield json.loads(content.read())


def row(name: str) -> CaptionRow:
    if "bad" in name or name.endswith(".tar"):
        return CaptionRow(name, (), "error", "damaged", "m")
    return CaptionRow(name, (Caption(f"caption of\n{name}", 0.5),), "ok", None, "m")


def written(part: InputShard) -> bytes:
    file = io.BytesIO()
    write_tar((row(image.name) for image in read_images(part)), part, file)
    return file.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = tar.getmembers()
        assert all(
            (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, 0, "", "") for entry in entries
        )
        assert len({entry.name for entry in entries}) == len(entries)
        return {entry.name: tar.extractfile(entry).read() for entry in entries}  # type: ignore[union-attr]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "in.tar"
    files = {
        "d/000.cls": b"7",
        "d/000.jpg": b"jpg 0",
        "d/000.json": b'{"url": "u"}',
        "d/000.txt": b"a person's words",
        "d/bad.jpg": b"jpg bad",
        "d/two.jpg": b"jpg two",
        "d/two.png": b"png two",
        "d/two.txt": b"both",
    }
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uname = len(data), 1_700_000_000, "somebody"
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_a_tar_with_its_captions(shard: Path) -> None:
    (part,) = list_input_shards([str(shard)])
    data = written(part)
    assert data == written(part)
    found = contents(data)
    assert found["d/000.cls"] == b"7"
    assert found["d/000.jpg"] == b"jpg 0"
    assert found["d/000.txt"].decode() == f"caption of\n\n{shard}/d/000.jpg\n"
    assert (found["d/000.original.txt"], found["d/000.original.json"]) == (b"a person's words", b'{"url": "u"}')
    assert "d/bad.txt" not in found
    assert json.loads(found["d/bad.json"])["error"] == "damaged"
    assert found["d/two.png"] == b"png two"
    assert found["d/two.png.txt"].decode() == f"caption of\n\n{shard}/d/two.png\n"
    assert [value["image"] for value in read_tar(io.BytesIO(data))] == [
        f"{shard}/d/{name}" for name in ("000.jpg", "bad.jpg", "two.jpg", "two.png")
    ]


def test_a_tar_into_a_store(shard: Path, tmp_path: Path) -> None:
    (part,) = list_input_shards([str(shard)])
    store = open_store(str(tmp_path / "out"))
    publish_tar(store, "captions-00000.tar", [row(image.name) for image in read_images(part)], part)
    assert sorted(store.names()) == ["_job/written", "captions-00000.tar"]
    assert store.read("captions-00000.tar") == written(part)


def test_the_format_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("captune.captions.writers.tar.SHARD_SIZE", 2)
    names = ["a.jpg", "b.jpg", "bad.jpg"]
    for name in names[:2]:
        Path(name).write_bytes(name.encode())
    with open_writer("tar", "out") as writer:
        for name in names:
            writer.write(row(name))
    tars = sorted(path for path in Path("out").rglob("*") if path.is_file() and path.parent.name != "_job")
    assert [path.name for path in tars] == ["captions-00000.tar", "captions-00001.tar"]
    first, second = (contents(path.read_bytes()) for path in tars)
    assert list(first) == ["a.jpg", "a.txt", "a.json", "b.jpg", "b.txt", "b.json"]
    assert list(second) == ["bad.json"]
    (part,) = list_input_shards([str(shard)])
    for format in ("tar", "xmp"):
        with open_writer(format, f"{format}s") as writer, pytest.raises(CaptuneError, match="lies in an archive"):
            writer.write(row(f"{shard}/d/000.jpg"))
        assert isinstance(writer, ShardWriter)
        with open_writer(format, f"{format}s"):
            writer.write_shard(part, [row(image.name) for image in read_images(part)])
    assert Path("tars/captions-00000.tar").read_bytes() == written(part)
    assert {path.name for path in Path("xmps").rglob("*.*") if path.is_file()} >= {"000.jpg", "two.png"}
    for out in (None, "one.tar"):
        with pytest.raises(UsageError):
            open_writer("tar", out)


def test_its_pieces_together_are_the_whole(shard: Path) -> None:
    (whole,) = list_input_shards([str(shard)])
    pieces = list(list_input_shards([str(shard)], shard_size=1))
    assert [part.count for part in pieces] == [1, 1, 2]
    assert {name: data for part in pieces for name, data in contents(written(part)).items()} == contents(written(whole))


def test_captune_reads_it_as_webdataset(shard: Path, tmp_path: Path) -> None:
    (part, *_) = list_input_shards([str(shard)], shard_size=1)
    (tmp_path / "out.tar").write_bytes(written(part))
    name, records = read_source(tmp_path / "out.tar")
    (record,) = records
    assert (name, record.references) == ("webdataset", (f"caption of {shard}/d/000.jpg",))


def test_a_tar_that_is_cut_off_keeps_the_row_that_says_so(shard: Path) -> None:
    with open(shard, "r+b") as file:
        file.truncate(5 * 512)
    (part,) = list_input_shards([str(shard)])
    found = contents(written(part))
    assert json.loads(found["cut-off.json"])["image"] == str(shard)
    assert found["d/000.jpg"] == b"jpg 0"


def test_pictures_from_files_and_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.d").mkdir()
    for name in ("a.b.jpg", "a_b.jpg", "a_b.png"):
        Path("in.d", name).write_bytes(name.encode())
    (part,) = list_input_shards(["in.d", "../gone_bad.jpg"])
    found = contents(written(part))
    assert [(name, data) for name, data in found.items() if name.endswith(("jpg", "png"))] == [
        ("in.d/a_b.jpg", b"a.b.jpg"),
        ("in.d/a_b-2.jpg", b"a_b.jpg"),
        ("in.d/a_b-3.png", b"a_b.png"),
    ]
    assert "gone_bad.jpg" not in found
    assert len(list(read_tar(io.BytesIO(written(part))))) == 4


def test_an_input_that_changed_is_not_mixed_up(shard: Path) -> None:
    (part,) = list_input_shards([str(shard)])
    with pytest.raises(CaptuneError, match="It changed"):
        write_tar([row("another.jpg")] * 4, part, io.BytesIO())
