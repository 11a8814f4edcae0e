"""Where a job keeps its files: a folder, and an S3 server on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from captune.captions.writers import CaptionRow, ShardWriter, check_existing, open_writer
from captune.core.errors import CaptuneError, ImageError
from captune.core.files.locks import Locked
from captune.core.records import Caption
from captune.core.stores.files import filesystem
from captune.core.stores.local import LocalStore, Store, check_written, open_store
from captune.core.stores.remote import RemoteLedger
from captune.datasets.sources.input_shards import list_input_shards, read_images


@pytest.fixture(params=["local", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_store("s3://photos/out/")
    return open_store(str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/out")


def test_files_by_name(store: Store, tmp_path: Path) -> None:
    assert store.names() == []
    store.publish("b.jsonl", b"1\n")
    store.publish("_job/manifest.json", b"{}")
    store.publish("b.jsonl", b"2\n")
    (tmp_path / "big").write_bytes(os.urandom(6_000_000))  # of several parts on S3
    store.publish("a.bin", tmp_path / "big")
    assert store.names() == ["_job/manifest.json", "a.bin", "b.jsonl"]
    assert store.read("b.jsonl") == b"2\n"
    assert store.read("a.bin") == (tmp_path / "big").read_bytes()
    store.delete("a.bin")
    store.delete("a.bin")
    assert store.names() == ["_job/manifest.json", "b.jsonl"]
    with pytest.raises(CaptuneError, match=r"a\.bin"):
        store.read("a.bin")
    with store.lock("_job/lock"):
        pass


SHARD, TAR = "captions-00000.jsonl", "captions-00001.tar"


def test_what_somebody_else_wrote_or_changed_is_known(store: Store) -> None:
    assert store.not_written([SHARD]) == []
    store.publish(SHARD, b"1\n")
    store.publish(TAR, b"2\n")
    store.publish("_job/manifest.json", b"{}")
    again = open_store(store.location)
    assert again.not_written([SHARD, TAR, "captions-00009.csv"]) == []
    by_hand(store, TAR, b"3\n")
    by_hand(store, "captions-00002.csv", b"4\n")
    assert again.not_written([SHARD, TAR, "captions-00002.csv"]) == [TAR, "captions-00002.csv"]
    again.publish(TAR, b"5\n")  # what a person had a part in stays known as such
    assert again.not_written([TAR]) == [TAR]
    by_hand(store, SHARD, b"1\n")  # the same words
    assert open_store(store.location).not_written([SHARD]) == []
    with pytest.raises(CaptuneError, match=r"changed since: captions-00001\.tar\.") as caught:
        check_written(again, [SHARD, TAR], "Take another.")
    assert caught.value.hint == "Take another."
    with pytest.raises(CaptuneError, match="did not write"):
        check_existing("tar", store.location)
    check_existing("tar", store.location, "replace")


def test_a_job_of_an_earlier_captune_says_so(store: Store) -> None:
    store.publish("_job/manifest.json", b"{}")
    by_hand(store, TAR, b"1\n")
    with pytest.raises(CaptuneError, match="begun by an earlier captune, which did not note what it wrote"):
        check_existing("tar", store.location)


def test_what_many_runs_noted_counts_together() -> None:
    files: dict[str, bytes] = {}
    for _ in range(2):
        ledger = RemoteLedger(lambda: files.values(), files.__setitem__)
        for number in range(1500):
            ledger.add(f"{number:016x}")
        ledger.later("f" * 16)
    assert len(files) == 4
    assert max(map(len, files.values())) == 17_000
    seen = RemoteLedger(lambda: files.values(), files.__setitem__)
    seen.refresh()
    assert [seen.has(f"{number:016x}") for number in (0, 999, 1000, 1499, 1500)] == [True] * 4 + [False]
    assert not seen.has("f" * 16)  # it saved time, no more


def by_hand(store: Store, name: str, data: bytes) -> None:
    """As a person writes a file, past captune."""
    if isinstance(store, LocalStore):
        (store.folder / name).write_bytes(data)
    else:
        fs, folder = filesystem(store.location)
        fs.pipe_file(f"{folder}/{name}", data)


def test_a_folder_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "out"))
    store.publish("a", b"1")
    with pytest.raises(CaptuneError):
        store.publish("a", tmp_path / "gone")
    assert store.read("a") == b"1"
    assert os.listdir(tmp_path / "out") == ["a"]
    with store.lock("lock"), pytest.raises(Locked), open_store(str(tmp_path / "out")).lock("lock"):
        pytest.fail("both hold it")


def test_a_place_that_cannot_be_used(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptuneError, match="there is no bucket 'nowhere'"):
        open_store("s3://nowhere/out").names()
    with pytest.raises(CaptuneError, match="does not exist"):
        open_store("s3://nowhere/out").publish("a", b"1")
    with pytest.raises(CaptuneError, match="is no name in"):
        open_store("s3://photos/out").publish("../a", b"1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    type(s3).clear_instance_cache()
    with pytest.raises(CaptuneError, match="there are no credentials") as caught:
        open_store("s3://photos/out").names()
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    type(s3).clear_instance_cache()


def test_pictures_from_s3(s3: Any) -> None:
    s3.touch("photos/in/")  # what a console makes of a folder
    for name in ("b.jpg", "two/c.jpg", "one/a.jpg", "notes.txt"):
        s3.pipe(f"photos/in/{name}", name.encode())
    s3.pipe("photos/in/empty.jpg", b"")
    (shard,) = list_input_shards(["s3://photos/in"])
    found = {image.name: image.source() for image in read_images(shard) if callable(image.source)}
    assert list(found) == [f"s3://photos/in/{n}" for n in ("b.jpg", "empty.jpg", "one/a.jpg", "two/c.jpg")]
    assert found["s3://photos/in/one/a.jpg"] == b"one/a.jpg"
    assert [p.names for p in list_input_shards(["s3://photos/in/{one,two}/*.jpg"])] == [
        ("s3://photos/in/one/a.jpg", "s3://photos/in/two/c.jpg")
    ]
    s3.rm("photos/in/b.jpg")
    (lost,) = [p.source for p in read_images(shard) if p.name.endswith("b.jpg")]
    assert callable(lost)
    with pytest.raises(ImageError, match="does not exist"):
        lost()
    with pytest.raises(CaptuneError, match="does not exist"):
        list(list_input_shards(["s3://photos/none/"]))


def test_tars_to_s3(s3: Any, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    with open_writer("tar", "s3://photos/tars") as writer:
        assert isinstance(writer, ShardWriter)
        for shard in list_input_shards([str(tmp_path)], shard_size=1):
            writer.write_shard(shard, [CaptionRow(shard.names[0], (Caption("a dog", 0.5),), "ok", None, "m")])
            assert s3.ls("photos/tars", refresh=True)[-1].endswith(f"captions-{shard.start:05d}.tar")
    assert b"a dog" in s3.cat("photos/tars/captions-00001.tar")


def fail(out: str, row: CaptionRow) -> None:
    with open_writer("csv", out) as writer:
        writer.write(row)
        raise ConnectionError


@pytest.mark.parametrize("out", ["captions.csv", "texts"])
def test_captions_to_s3(s3: Any, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = CaptionRow("in/a.jpg", (Caption("a dog", 0.5),), "ok", None, "m")
    with pytest.raises(ConnectionError):
        fail(f"s3://photos/{out}", row)
    assert s3.ls("photos", refresh=True) == []
    with open_writer("csv" if out.endswith("csv") else "sidecar", f"s3://photos/{out}") as writer:
        writer.write(row)
    written = "photos/captions.csv" if out.endswith("csv") else "photos/texts/in/a.txt"
    assert b"a dog" in s3.cat(written)
    with pytest.raises(CaptuneError, match="no bucket"), open_writer("csv", "s3://nowhere/a.csv"):
        pytest.fail("opened")
    assert os.listdir(tmp_path) == []
