"""From a source to a prepared folder that is whole or absent."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captune.core.errors import CaptuneError, UsageError
from captune.core.files.paths import MARK
from captune.core.records import ImageRecord
from captune.datasets.merge import EmbeddedImage, Problem, SourceRecord, merge_records, safe_name
from captune.datasets.prepare import prepare
from captune.datasets.prepared import read_prepared, read_split, staged, write_splits


def photo(number: int) -> bytes:
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    small.resize((64, 48), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def flickr(folder: Path, count: int = 20) -> Path:
    """A small Flickr8k folder with quoted commas and ragged references."""
    (folder / "Images").mkdir(parents=True)
    with open(folder / "captions.txt", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image", "caption"))
        for number in range(count):
            (folder / "Images" / f"{number}.jpg").write_bytes(photo(number))
            for reference in range(1 + number % 3):
                rows.writerow((f"{number}.jpg", f'Image {number}, said "{reference}".'))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return flickr(tmp_path / "flickr")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARK  # it tells this folder from its copies
    }


def test_a_folder_becomes_splits_that_others_can_read(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "data"
    result = prepare(source, out)
    assert result.format == "kaggle"
    assert {name: count.images for name, count in result.splits.items()} == {"train": 16, "val": 2, "test": 2}
    assert sorted(p.name for p in out.iterdir()) == [
        MARK,
        "duplicates.csv", "problems.csv", "splits.json", "test.csv", "test_split.jsonl", "train.csv",
        "train_split.jsonl", "val.csv", "val_split.jsonl",
    ]  # fmt: skip
    records = [record for split in ("train", "val", "test") for record in read_split(out, split)]
    assert len({record.id for record in records}) == 20
    for record in records:
        number = int(Path(record.image).stem)
        assert Path(record.image) == source / "Images" / f"{number}.jpg"
        assert record.references == tuple(f'Image {number}, said "{r}".' for r in range(1 + number % 3))
    with open(out / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    train = read_split(out, "train")
    assert [(row["image_path"], row["caption"]) for row in rows] == [
        (record.image, text) for record in train for text in record.references
    ]
    said = json.loads((out / "splits.json").read_text())
    assert said["splits"]["train"] == {"rows": len(rows), "unique_images": 16}
    assert read_prepared(out).digest == result.digest == said["digest"]
    assert (out / "problems.csv").read_text() == "file,reason\n"


def test_the_same_source_and_seed_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "a")
    prepare(source, tmp_path / "b", workers=2)
    prepare(source, tmp_path / "c", seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_the_digest_follows_content_not_place(source: Path, tmp_path: Path) -> None:
    first = prepare(source, tmp_path / "a").digest
    moved = source.rename(tmp_path / "elsewhere")
    assert prepare(moved, tmp_path / "b").digest == first
    (moved / "Images" / "3.jpg").write_bytes(photo(99))
    assert prepare(moved, tmp_path / "c").digest != first


def test_bad_images_stop_or_are_left_out(source: Path, tmp_path: Path) -> None:
    images = source / "Images"
    (images / "3.jpg").write_bytes(photo(3)[:700])
    (images / "4.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:7b\nsize 3\n")
    (images / "5.jpg").unlink()
    (images / "6.jpg").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(CaptuneError) as caught:
        prepare(source, out)
    assert "4 of 20" in caught.value.message
    assert "Git LFS" in caught.value.message
    assert "--on-bad skip" in caught.value.hint
    assert [path.name for path in out.iterdir()] == ["problems.csv"]
    result = prepare(source, out, on_bad="skip")
    with open(out / "problems.csv", newline="", encoding="utf-8") as file:
        table = {Path(row["file"]).name: row["reason"] for row in csv.DictReader(file)}
    assert sorted(table) == ["3.jpg", "4.jpg", "5.jpg", "6.jpg"]
    assert "truncated" in table["3.jpg"]
    assert "no such file" in table["5.jpg"]
    assert sum(count.images for count in result.splits.values()) == 16
    assert json.loads((out / "splits.json").read_text())["bad"] == 4
    for path in images.iterdir():
        path.write_bytes(b"<html>")
    with pytest.raises(CaptuneError, match="None of the 20"):
        prepare(source, out, on_bad="skip")
    assert len(read_split(out, "train")) == 13, "the folder that was there stays"


def test_images_leave_a_tar_shard_as_they_are(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number in range(6):
            for name, data in ((f"{number}.jpg", photo(number % 5)), (f"{number}.txt", f"image {number}".encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    out = tmp_path / "out"
    prepare(tmp_path / "shard.tar", out, split="80/10/10")
    prepare(tmp_path / "shard.tar", out, split="60/40")
    records = read_split(out, "train") + read_split(out, "val")
    assert len(records) == 5, "equal bytes are one image"
    assert sorted(text for record in records for text in record.references) == [f"image {n}" for n in range(6)]
    for record in records:
        assert Path(record.image).parent == out / "images"
        assert Path(record.image).read_bytes() in [photo(n) for n in range(5)]
    assert not (out / "test.csv").exists()
    paths = [json.loads(line)["image_path"] for line in (out / "train_split.jsonl").read_text().splitlines()]
    assert all(path.startswith("images/") for path in paths)
    out.rename(tmp_path / "moved")
    assert all(Path(record.image).is_file() for record in read_split(tmp_path / "moved", "train"))


def embedded(names: list[str], data: bytes | None = None) -> Iterator[SourceRecord]:
    for number, name in enumerate(names):
        yield SourceRecord(f"id{number}", EmbeddedImage(name, lambda n=number: data or b"%d" % n), (f"c{number}",))


def test_names_in_archives_cannot_leave_the_folder(tmp_path: Path) -> None:
    names = [
        "../../etc/x.jpg",
        "/abs.jpg",
        "..",
        "a\\b.jpg",
        "A.JPG",
        "a.jpg",
        "a.jpg",
        "nul\0\n.jpg",
        "x" * 400,
        ".git",
    ]
    problems: list[Problem] = []
    found = merge_records(embedded(names), tmp_path / "deep" / "images", problems)
    assert problems == []
    assert found.embedded == len(names)
    paths = [Path(record.image) for record in found.records]
    assert {path.parent for path in paths} == {tmp_path / "deep" / "images"}
    assert len({path.name.lower() for path in paths}) == len(names)
    assert [path.read_bytes() for path in paths] == [b"%d" % n for n in range(len(names))]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["images"]
    for long in ("日" * 120 + ".jpg", "x" * 300 + ".jpeg"):
        assert len(safe_name(long).encode()) <= 200
        assert Path(safe_name(long)).suffix == Path(long).suffix
    assert safe_name("C:\\photos\\my dog?.JPG") == "my dog_.JPG"


def test_many_images_go_to_sub_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captune.datasets.merge.FILES_IN_FOLDER", 3)
    found = merge_records(embedded(["a.jpg"] * 9), tmp_path / "images", [])
    folders = [Path(record.image).parent for record in found.records]
    assert folders[:3] == [tmp_path / "images"] * 3
    assert all(len(folder.name) == 2 for folder in folders[3:])


def test_entries_of_one_image_are_joined(tmp_path: Path) -> None:
    a, b = tmp_path / "a.jpg", tmp_path / "b.jpg"
    rows = [
        SourceRecord("1", a, ("one", " "), "train", "line 1"),
        SourceRecord("1", b, ("two",), None, "line 2"),
        SourceRecord("3", tmp_path / "x" / ".." / "a.jpg", ("three", "one"), "train", "line 3"),
        SourceRecord("4", tmp_path / "c.jpg", ("",), None, "line 4"),
    ]
    found = merge_records(iter(rows), tmp_path / "images", [])
    assert found.records == [
        ImageRecord("1", str(a), ("one", "three"), "train"),
        ImageRecord("1 (2)", str(b), ("two",), None),
    ]
    assert (found.merged, found.without_references) == (1, 1)
    rows[2] = SourceRecord("3", a, ("x",), "test", "line 3")
    with pytest.raises(CaptuneError, match=r"in split train \(line 1\) and in test \(line 3\)"):
        merge_records(iter(rows), tmp_path / "images", [])


def test_out_must_be_new_empty_or_prepared(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.doc"):
        prepare(source, out)
    with pytest.raises(UsageError, match="is a file"):
        prepare(source, out / "thesis.doc")
    with pytest.raises(UsageError, match=r"holds other files \(Images, captions\.txt\)"):
        prepare(source, source)
    (out / "thesis.doc").rename(tmp_path / "thesis.doc")
    prepare(source, out)
    (tmp_path / "thesis.doc").rename(out / "thesis.doc")
    prepare(source, out, split="50/50")
    assert sorted(read_prepared(out).splits) == ["train", "val"]
    assert (out / "thesis.doc").read_text() == "precious", "what captune did not write stays"
    assert not (out / "test.csv").exists()


def test_splitting_anew_must_not_eat_its_own_images(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name, data in (("1.jpg", photo(1)), ("1.txt", b"a dog"), ("2.jpg", photo(2)), ("2.txt", b"a cat")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    prepare(tmp_path / "shard.tar", out, split="50/50")
    before = contents(out)
    with pytest.raises(UsageError, match="which --out"):
        prepare(out, out, split="100/0")
    assert contents(out) == before
    assert prepare(out, tmp_path / "again", split="100/0").splits["train"].images == 2


def test_an_error_leaves_the_old_folder_as_it_was(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(source, out)
    before = contents(out)

    def half_way(folder: Path, error: type[BaseException]) -> None:
        with staged(folder) as stage:
            (stage / "train.csv").write_text("new")
            raise error

    with pytest.raises(RuntimeError):
        half_way(out, RuntimeError)
    assert contents(out) == before
    with pytest.raises(KeyboardInterrupt):
        half_way(tmp_path / "new" / "er", KeyboardInterrupt)
    assert not (tmp_path / "new").exists()


def test_a_signal_during_the_exchange_waits(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    prepare(source, out)
    rename = os.rename

    def interrupted(a: Path, b: Path) -> None:
        signal.raise_signal(signal.SIGINT)
        rename(a, b)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, split="50/50")
    monkeypatch.undo()
    assert sorted(read_prepared(out).splits) == ["train", "val"]
    assert not list(out.glob(".preparing*"))


def test_a_failing_exchange_is_undone(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    prepare(source, out)
    before = contents(out)
    rename = os.rename

    def failing(a: Path, b: Path) -> None:
        if Path(b) == out / "train.csv" and ".preparing" in str(a) and ".old" not in str(a):
            raise OSError(28, "No space left on device")
        rename(a, b)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(CaptuneError, match="disk is full"):
        prepare(source, out, seed=9)
    assert contents(out) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_prepare_leaves_the_old_folder_and_can_be_repeated(source: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "out"
    prepare(source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    # One image that takes long, so that the signal comes in the middle.
    Image.new("1", (9900, 9900)).save(source / "Images" / "0.jpg", "PNG")
    code = "import sys; from captune.datasets.prepare import prepare; prepare(sys.argv[1], sys.argv[2], seed=3)"
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not any(path.name.startswith(".preparing") for path in out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode != 0
    after = {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".preparing")}
    assert after == before
    prepare(source, out, seed=3)
    assert not list(out.glob(".preparing*"))


def test_duplicates_across_splits_are_listed(source: Path, tmp_path: Path) -> None:
    (source / "Images" / "1.jpg").write_bytes(photo(0))
    (tmp_path / "train.txt").write_text("\n".join(f"{n}.jpg" for n in range(20) if n != 1))
    (tmp_path / "test.txt").write_text("1.jpg")
    words = f"train={tmp_path / 'train.txt'} test={tmp_path / 'test.txt'}"
    result = prepare(source, tmp_path / "out", split=words)
    assert [(pair.a, pair.b, pair.exact) for pair in result.duplicates] == [("0.jpg", "1.jpg", True)]
    assert (tmp_path / "out" / "duplicates.csv").read_text().splitlines()[1] == "0.jpg,train,1.jpg,test,0,exact"
    assert any("near-duplicates" in note for note in result.notes)
    assert prepare(source, tmp_path / "out2", split=words, duplicates=False).duplicates == ()


def test_a_folder_that_is_not_prepared_says_what_to_do(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="is not prepared") as caught:
        read_split(source, "train")
    assert f"captune prepare {source} --out" in caught.value.hint
    with pytest.raises(CaptuneError, match="does not exist") as caught:
        read_prepared(tmp_path / "no")
    assert "captune prepare SOURCE --out" in caught.value.hint
    prepare(source, tmp_path / "out")
    with pytest.raises(UsageError) as usage:
        read_split(tmp_path / "out", "dev")
    assert "train (16 images), val (2 images), test (2 images)" in usage.value.hint
    with open(tmp_path / "out" / "val_split.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.raises(CaptuneError, match=r"val_split\.jsonl, line 3"):
        read_split(tmp_path / "out", "val")
    (tmp_path / "out" / "splits.json").write_text("{}")
    with pytest.raises(CaptuneError, match="was not written by"):
        read_prepared(tmp_path / "out")


def test_words_of_every_language_survive(tmp_path: Path) -> None:
    record = ImageRecord("猫 1", str(tmp_path / 'ü, "x"\n.jpg'), ('Ein Hund, "sagt" er.', "一只猫\nzwei", "🐕"))
    write_splits(tmp_path / "out", {"train": [record]}, {}, {"source": "x"})
    read = read_split(tmp_path / "out", "train")[0]
    assert (read.id, read.image, read.references) == (record.id, record.image, record.references)
    with open(tmp_path / "out" / "train.csv", newline="", encoding="utf-8") as file:
        assert [row["caption"] for row in csv.DictReader(file)] == list(record.references)


def test_options_are_checked(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"on_bad|on-bad"):
        prepare(source, tmp_path / "out", on_bad="maybe")
    with pytest.raises(UsageError, match="no option"):
        prepare(source, tmp_path / "out", ratio="80/10/10")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CaptuneError, match="There is no file or folder"):
        prepare(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_script_without_a_main_guard_can_prepare(source: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"import captune\nprint(captune.prepare({str(source)!r}, out={str(tmp_path / 'out')!r}).splits)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert "images=16" in done.stdout
    assert done.stderr == ""
