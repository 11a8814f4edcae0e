"""Sources of strangers that say they hold more than they do, or name files elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captune.core.errors import CaptuneError
from captune.datasets.formats import hub, parquet, read_source
from captune.datasets.merge import Problem
from captune.datasets.sources import hub as bulk_datasets
from captune.datasets.sources import parquet as bulk_parquet
from captune.datasets.sources.hub import check_saved

ARROW = "data-00000-of-00001.arrow"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import datasets

    folder = tmp_path_factory.mktemp("honest") / "set"
    images = [{"bytes": b"an image", "path": None}] * 3
    datasets.Dataset.from_dict({"image": images, "caption": ["a cat", "a dog", "a cow"]}).save_to_disk(str(folder))
    return folder


@pytest.fixture
def saved(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "sent" / "set"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def write_stream(path: Path, table: pa.Table, compression: str | None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema, options=options) as stream:
        stream.write_table(table)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("shared", [False, True])
def test_packed_columns_are_refused_before_they_are_unpacked(saved: Path, compression: str, shared: bool) -> None:
    zeros = pa.array([b"\0" * 1_000_000] * 2)
    images = zeros.dictionary_encode() if shared else zeros
    table = pa.table({"image": images, "caption": ["a", "b"]})
    write_stream(saved / ARROW, table, None)
    check_saved(saved)
    write_stream(saved / ARROW, table, compression)
    assert os.path.getsize(saved / ARROW) < 50_000
    before = pa.total_allocated_bytes()
    for read in (hub.read, lambda folder: bulk_datasets.find(str(folder), 100)):
        with pytest.raises(CaptuneError, match="packed columns"):
            list(read(saved))
    assert pa.total_allocated_bytes() - before < 100_000


def test_a_saved_set_names_files_of_its_own_folder_alone(honest: Path, saved: Path) -> None:
    assert len(list(hub.read(saved))) == 1
    for name in (str(honest / ARROW), os.path.relpath(honest / ARROW, saved), "link.arrow"):
        if name.startswith("link"):
            os.symlink(honest / ARROW, saved / name)
        edit(saved / "state.json", _data_files=[{"filename": name}])
        with pytest.raises(CaptuneError, match="names a file outside"):
            list(hub.read(saved))
    (saved.parent / "dataset_dict.json").write_text(json.dumps({"splits": [os.path.relpath(honest, saved.parent)]}))
    with pytest.raises(CaptuneError, match="names a file outside"):
        list(hub.read(saved.parent))


def test_a_file_of_labels_is_not_read(saved: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would never end
    label = {"_type": "ClassLabel", "names_file": str(tmp_path / "pipe")}
    told = json.loads((saved / "dataset_info.json").read_text())
    edit(saved / "dataset_info.json", features={**told["features"], "caption": label})
    with pytest.raises(CaptuneError, match="names a file of labels"):
        list(hub.read(saved))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state.json", "[]"), ("state.json", "{}"), ("state.json", '{"_data_files": 7}'),
        ("state.json", '{"_data_files": []}'), ("state.json", "["),
        ("state.json", '{"_data_files": [{"filename": 7}]}'),
        ("dataset_info.json", "7"), ("dataset_info.json", '{"features": 7}'),
        ("dataset_info.json", '{"features": {"image": 7}}'), (ARROW, "no Arrow"), (ARROW, ""),
    ],
)  # fmt: skip
def test_damaged_saved_sets_are_named(saved: Path, name: str, text: str) -> None:
    (saved / name).write_text(text)
    with pytest.raises(CaptuneError) as caught:
        list(hub.read(saved))
    assert str(saved) in caught.value.message


def test_a_saved_format_hides_no_columns(saved: Path) -> None:
    edit(saved / "state.json", _format_columns=[])
    assert [record.references for record in hub.read(saved)] == [("a cat", "a dog", "a cow")]


def test_more_rows_than_the_bytes_of_a_table_can_hold(tmp_path: Path, saved: Path) -> None:
    same = pa.DictionaryArray.from_arrays(np.zeros(500_000, np.int32), ["a.jpg"])
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": same, "caption": same}), path, compression="zstd")
    assert path.stat().st_size < 50_000
    for read in (lambda: parquet.read(path), lambda: bulk_parquet.find(str(path), 100)):
        with pytest.raises(CaptuneError, match="says it has 500,000 rows in"):
            list(read())
    write_stream(saved / ARROW, pa.table({"image": pa.nulls(10**7), "caption": pa.nulls(10**7)}), None)
    (saved / "dataset_info.json").write_text("{}")
    with pytest.raises(CaptuneError, match="says it has 10,000,000 rows"):
        list(read_source(saved)[1])


def test_pipes_and_sockets_beside_captions_are_told(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,a cat\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "more").mkdir()
    for name in ("captions.csv", "more/x.tar"):
        os.mkfifo(tmp_path / name)
    problems: list[Problem] = []
    assert [record.references for record in read_source(tmp_path, problems=problems)[1]] == [("a cat",)]
    assert [one.where for one in problems] == ["captions.csv", "more/x.tar"]
    assert all("not opened" in one.reason for one in problems)
