"""Tables, lists and archives that name files of this machine: those outside of their folder are refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captune.captions.row import CaptionRow
from captune.captions.writers.tar import write_tar
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.paths import MARK, Boundary, Images, Listed, Refused, is_open_address
from captune.core.options import TableOptions
from captune.core.progress import Silent
from captune.core.records import Caption, ImageRecord
from captune.core.text import member_name
from captune.datasets.formats import read_source
from captune.datasets.merge import Problem
from captune.datasets.prepared import read_split, write_splits
from captune.datasets.sources.input_shards import InputShard, list_input_shards, read_images
from captune.evaluation.review import review
from captune.inference.match import inside


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(path.name), 90, 9)).save(path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stranger's folder with one good photo, beside a person's own, which is the working folder."""
    photo(tmp_path / "own" / "private.jpg")
    (tmp_path / "own" / "key").write_text("a secret key")
    photo(tmp_path / "sent" / "good.jpg")
    os.symlink(tmp_path / "own" / "private.jpg", tmp_path / "sent" / "link.jpg")
    os.symlink(tmp_path / "own", tmp_path / "sent" / "linked")
    monkeypatch.chdir(tmp_path / "own")
    return tmp_path


def outside(place: Path) -> list[str]:
    """The person's photo and key, in every spelling that a table could try."""
    own = place / "own"
    return [
        str(own / "private.jpg"), "../own/private.jpg", "link.jpg", "linked/private.jpg", "private.jpg", "key",
        f"file://{own}/key", f"FILE://{own}/key", f"local://{own}/key", f"file:{own}/key", f"{own}/key",
        "~/key", "/etc/passwd", "//etc/passwd", "sub/../../own/key", "linked/../own/key",
        f"simplecache::file://{own}/key", f"zip://a.jpg::{own}/x.zip", f"zip://a.jpg::file://{own}/x.zip",
        "C:\\Users\\me\\private.jpg", "\\\\server\\share\\private.jpg", f"file://{own}/%6bey", "%2e%2e/own/key",
        "ftp://127.0.0.1/key", "sftp://127.0.0.1/key", "a\0b.jpg",
    ]  # fmt: skip


def sources(pieces: Iterator[InputShard]) -> dict[str, object]:
    return {image.name: image.source for shard in pieces for image in read_images(shard)}


def test_a_parquet_of_a_job_names_files_in_its_folder_alone(place: Path) -> None:
    table = place / "sent" / "a.parquet"
    names = ["good.jpg", str(place / "sent" / "good.jpg"), *outside(place)]
    for column in (names, [{"bytes": None, "path": name} for name in names]):
        pq.write_table(pa.table({"image": column}), table)
        good, absolute, *refused = sources(list_input_shards([table])).values()
        assert (good, absolute) == (str(place / "sent" / "good.jpg"),) * 2
        for source in refused:
            with pytest.raises(Refused, match=r"lies outside of .*sent: .*--images.*--allow-outside"):
                source()  # type: ignore[operator]


def test_a_folder_that_is_named_or_the_option_takes_them(place: Path) -> None:
    table = place / "sent" / "a.parquet"
    pq.write_table(pa.table({"image": ["private.jpg", str(place / "own/private.jpg"), "good.jpg"]}), table)
    own = str(place / "own" / "private.jpg")
    found = list(sources(list_input_shards([table], images=str(place / "own"))).values())
    assert found[:2] == [own, own]
    assert list(sources(list_input_shards([table], allow_outside=True)).values())[1:] == [
        own,
        str(place / "sent/good.jpg"),
    ]
    (shard,) = list_input_shards([table], images="../own")
    assert InputShard.from_json(json.loads(json.dumps(shard.to_json()))) == shard  # a job that goes on knows it
    assert "inside" not in InputShard("files", "", 0, 1, ("a.jpg",)).to_json()


def test_a_list_names_files_in_the_working_folder_alone(place: Path) -> None:
    own, other = Listed("private.jpg"), Listed(str(place / "sent" / "good.jpg"))
    table = Listed(str(place / "sent" / "a.parquet"))
    found = sources(list_input_shards([own, other, table, Listed("file:///etc/passwd"), "../sent/good.jpg"]))
    assert found.pop("private.jpg") == "private.jpg"
    assert found.pop("../sent/good.jpg") == "../sent/good.jpg"  # named by the user
    assert len(found) == 3
    for source in found.values():
        with pytest.raises(Refused, match="--allow-outside"):
            source()  # type: ignore[operator]
    with pytest.raises(UsageError, match=r"names no file inside of .*own.*good.jpg") as caught:
        list(list_input_shards([other]))
    assert f"captune caption - --images {place / 'sent'}" in caught.value.hint
    assert "--allow-outside" in caught.value.hint
    assert sources(list_input_shards([other], images="../sent")) == {str(other): str(other)}
    assert sources(list_input_shards([other], allow_outside=True)) == {str(other): str(other)}


@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "jsonl", "coco", "karpathy", "parquet", "cells", "metadata", "prepared"]
)
def test_sources_of_prepare_name_files_in_their_folder_alone(place: Path, kind: str) -> None:
    sent = place / "sent"
    names = ["good.jpg", str(sent / "good.jpg"), *(name for name in outside(place) if "\0" not in name)]
    source = table(sent, kind, names)
    problems: list[Problem] = []
    records = list(read_source(source, None, None, problems)[1])
    for image in (record.image for record in records):
        if isinstance(image, Path):  # else bytes, of the one good photo
            assert Boundary([sent]).holds(image)
        assert image.name == "good.jpg" or not os.path.exists(image)  # type: ignore[arg-type]
    assert sum("--allow-outside" in problem.reason for problem in problems) >= 10
    assert any("private.jpg lies outside of" in problem.reason for problem in problems)
    with pytest.raises(CaptuneError, match="lies outside"):
        list(read_source(source, None, None, None)[1])
    taken = {str(record.image) for record in read_source(source, None, None, [], allow_outside=True)[1]}
    assert len(taken) > len({str(record.image) for record in records})


def table(folder: Path, kind: str, names: list[str]) -> Path:
    rows = [{"image": name, "caption": f"Caption {number}."} for number, name in enumerate(names)]
    file = folder / {"cells": "a.parquet", "metadata": "metadata.jsonl", "prepared": "train_split.jsonl"}.get(
        kind, f"a.{kind}"
    )
    if kind in ("csv", "tsv"):
        sign = "," if kind == "csv" else "\t"
        lines = [f"{row['image']}{sign}{row['caption']}" for row in rows]
        file.write_text("\n".join([f"image{sign}caption", *lines]) + "\n")
    elif kind in ("jsonl", "metadata"):
        file.write_text("".join(json.dumps({"file_name": row["image"], "text": row["caption"]}) + "\n" for row in rows))
    elif kind == "prepared":
        (folder / "splits.json").write_text('{"version": 1, "splits": {}, "digest": ""}')
        file.write_text(
            "".join(
                json.dumps({"id": r["image"], "image_path": r["image"], "references": [r["caption"]]}) + "\n"
                for r in rows
            )
        )
    elif kind == "coco":
        images = [{"id": number, "file_name": row["image"]} for number, row in enumerate(rows)]
        notes = [{"id": n, "image_id": n, "caption": row["caption"]} for n, row in enumerate(rows)]
        file = folder / "a.json"
        file.write_text(json.dumps({"images": images, "annotations": notes}))
    elif kind == "karpathy":
        images = [{"filename": row["image"], "split": "train", "sentences": [{"raw": row["caption"]}]} for row in rows]
        file = folder / "a.json"
        file.write_text(json.dumps({"images": images}))
    else:
        cells = [{"bytes": None, "path": name} for name in names] if kind == "cells" else names
        pq.write_table(pa.table({"image": cells, "caption": [row["caption"] for row in rows]}), file)
    return folder if kind in ("metadata", "prepared") else file


def test_a_file_of_captions_beside_a_photo_is_no_link_to_elsewhere(place: Path) -> None:
    sent = place / "sent"
    (sent / "linked").unlink()
    (sent / "link.txt").write_text("A link to a private photo.\n")
    os.symlink(place / "own" / "key", sent / "good.txt")
    photo(sent / "more.jpg")
    (sent / "more.txt").write_text("Another.\n")
    problems: list[Problem] = []
    (record,) = read_source(sent, "sidecar", None, problems)[1]
    assert record.references == ("Another.",)
    assert sorted(problem.reason.split(" lies")[0].removeprefix("its caption is ") for problem in problems) == [
        "good.txt", "link.jpg"
    ]  # fmt: skip
    assert len(list(read_source(sent, "sidecar", None, [], allow_outside=True)[1])) == 3


def test_the_links_of_a_snapshot_of_the_hub_lead_to_its_own_files(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "datasets--a--b" / "snapshots" / "1f", tmp_path / "datasets--a--b" / "blobs"
    photo(blobs / "0a.jpg")
    snapshot.mkdir(parents=True)
    os.symlink("../../blobs/0a.jpg", snapshot / "a.jpg")
    os.symlink(photo(tmp_path / "b.jpg"), snapshot / "b.jpg")
    assert Boundary([snapshot]).holds(snapshot / "a.jpg")
    assert not Boundary([snapshot]).holds(snapshot / "b.jpg")


def test_a_folder_of_captions_finds_photos_beside_it_and_nothing_else(tmp_path: Path) -> None:
    photo(tmp_path / "Images" / "a.jpg")
    photo(tmp_path / "b.jpg")
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "captions.csv"
    file.write_text("image,caption\na.jpg,A.\nb.jpg,B.\n../b.jpg,B.\nImages/a.jpg,C.\n")
    problems: list[Problem] = []
    found = [record.image for record in read_source(file, None, None, problems)[1]]
    assert [image for image in found if Path(str(image)).exists()] == [tmp_path / "Images" / "a.jpg"] * 2
    assert [problem.where for problem in problems] == ["captions.csv, line 3", "captions.csv, line 4"]


def test_a_prepared_folder_from_elsewhere_names_photos_inside_of_it_alone(tmp_path: Path) -> None:
    image = str(photo(tmp_path / "photos" / "a.jpg"))
    folder = tmp_path / "data"
    folder.mkdir()
    write_splits(folder, {"train": [ImageRecord("a", image, ("A dog.",))]}, {}, {})
    assert read_split(folder, "train")[0].image == image
    moved = folder.rename(tmp_path / "moved")
    assert read_split(moved, "train")[0].image == image  # it is still the one that was prepared here
    sent = tmp_path / "sent"
    sent.mkdir()
    for name in (MARK, "splits.json", "train_split.jsonl"):
        (sent / name).write_bytes((moved / name).read_bytes())
    with pytest.raises(CaptuneError, match=r"train_split.jsonl, line 1: .*a.jpg lies outside of") as caught:
        read_split(sent, "train")
    assert "--allow-outside" in caught.value.hint
    assert read_split(sent, "train", allow_outside=True)[0].image == image
    (sent / MARK).write_text("[]")
    with pytest.raises(CaptuneError, match="lies outside"):
        read_split(sent, "train")


def test_what_failed_is_not_copied_and_names_stay_below_the_folder(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    names = ["../../up.jpg", "/etc/root.jpg", "a/../b.jpg", "C:\\x\\..\\c.jpg", "../key.txt", "broken.jpg"]
    with tarfile.open(archive, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
    (shard,) = list_input_shards([archive])
    found = [image.name for image in read_images(shard)]
    assert [name.removeprefix(f"{archive}/") for name in found] == [
        "up.jpg", "etc/root.jpg", "a/b.jpg", "x/c.jpg", "broken.jpg"
    ]  # fmt: skip
    rows = [CaptionRow(name, (Caption("A dog.", 0.5),), "ok", None, "m") for name in found[:-1]]
    rows.append(CaptionRow(found[-1], (), "error", "damaged", "m"))
    file = io.BytesIO()
    write_tar(rows, shard, file)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        written = tar.getnames()
    assert not [name for name in written if ".." in name or name.startswith("/") or ":" in name]
    assert "broken.jpg" not in written
    assert "broken.json" in written
    assert "up.jpg" in written


def test_names_and_addresses() -> None:
    assert member_name("./a/b.jpg") == "a/b.jpg"
    assert member_name("a..b/c.jpg") == "a..b/c.jpg"
    assert member_name("../..") == "unnamed"
    assert all(map(is_open_address, ["https://x/a.jpg", "s3://b/a.jpg", "zip://a.jpg::hf://datasets/x/y.zip"]))
    assert not any(
        map(is_open_address, ["file:///a", "a.jpg", "zip://a::b.zip", "http::file:///x", "s3://b::file://x"])
    )
    assert Images().boundary().holds("a.jpg") is False  # no folder of this machine, no file


@pytest.mark.parametrize("trusted", [False, True])
def test_a_review_shows_photos_of_its_folder_alone(place: Path, trusted: bool) -> None:
    rows = [
        {"image": name, "caption": "A dog.", "confidence": 0.5} for name in ("good.jpg", str(place / "own/private.jpg"))
    ]
    (place / "sent" / "captions.json").write_text(json.dumps(rows))
    warned = Warned()
    review(place / "sent" / "captions.json", html="page.html", progress=warned, allow_outside=trusted)
    assert Path("page.html").read_text().count("data:image/jpeg") == (2 if trusted else 1)
    assert ["--allow-outside" in text for text in warned.texts] == ([] if trusted else [True])


class Warned(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


def test_embeddings_name_photos_of_their_folder_alone(place: Path) -> None:
    names = (str(place / "sent" / "good.jpg"), "private.jpg", "/etc/passwd")
    embedded = Embedded(names, np.arange(6).reshape(3, 2), {})
    found = inside(embedded, str(place / "sent" / "a.npz"), TableOptions())
    assert (found.images, found.vectors.tolist()) == (names[:1], [[0, 1]])
    assert [name for name in found.failed if "--allow-outside" in found.failed[name]] == list(names[1:])
    assert inside(embedded, str(place / "sent" / "a.npz"), TableOptions(allow_outside=True)).images == names
    assert inside(embedded, "a.npz", TableOptions(images="../sent")).images == names[:1]


@dataclass(frozen=True)
class Embedded:
    images: tuple[str, ...]
    vectors: np.ndarray
    failed: dict[str, str]
