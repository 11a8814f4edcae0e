"""Files that declare, nest, repeat or unpack to more than any machine has: a reason, and the rest goes on."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from captune.core.config import resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import read_json, read_yaml
from captune.core.files.limits import MAX_DEPTH, LimitedGzip, max_unpacked, open_arrays, parse_json, parse_yaml
from captune.core.files.paths import FolderVisits, matches
from captune.datasets.formats import csv_table, hub, jsonl, parquet, webdataset
from captune.datasets.merge import EmbeddedImage, Problem, UnreadableImage
from captune.datasets.sources import hub as bulk_datasets
from captune.datasets.sources import parquet as bulk_parquet
from captune.datasets.sources.listing import walk
from captune.datasets.sources.parquet_pages import TooLarge, rows_at_once
from captune.datasets.sources.tar import CutOff, members
from captune.datasets.tables import images
from captune.datasets.tables.cells import texts_in
from captune.datasets.tables.text import load_json
from captune.evaluation.review import read_captions
from captune.images.metadata import UnsupportedImage
from captune.images.metadata.xmp import read_texts, with_caption
from captune.metrics.ngrams import DocumentFrequencies

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        "[" * 900 + "]" * 900,
        '{"a":' * 500 + "1" + "}" * 500,
        "1" * 5000,
        "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
    ],
)
def test_json_of_any_kind_is_an_error_of_json(text: str, tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)
    path = tmp_path / "captions.json"
    path.write_text(text)
    for read in (read_json, load_json, read_captions):
        with pytest.raises(CaptuneError, match=r"not valid JSON|expected a JSON object"):
            read(path)


def test_json_as_deep_as_ours_is_read() -> None:
    inside = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(f'{{"a": {inside[1:-1]}}}')
    assert parse_json(json.dumps([{"a": [1]}] * 1000)) == [{"a": [1]}] * 1000


@pytest.mark.parametrize(
    "cell", [DEEP, "[" * 50_000 + "]" * 50_000, "[" * 150 + "'a'" + "]" * 150, "[" * 950 + "]" * 950]
)
def test_a_cell_of_brackets_is_the_text_that_it_is(cell: str) -> None:
    assert texts_in(cell, several=True) == [cell]


def test_rows_with_deep_values_are_problems_and_the_rest_is_read(tmp_path: Path) -> None:
    Path(tmp_path / "a.jpg").touch()
    path = tmp_path / "captions.jsonl"
    good = '{"image": "a.jpg", "caption": "A dog."}'
    path.write_text("\n".join([good, '{"image": "a.jpg", "caption": ' + "[" * 900 + "]" * 900 + "}", "[" * 900, good]))
    problems: list[Problem] = []
    assert [row.line for row in jsonl.rows(path, problems)] == [1, 4]
    assert [problem.where for problem in problems] == ["captions.jsonl, line 2", "captions.jsonl, line 3"]
    table = tmp_path / "captions.csv"
    table.write_text(f"image,caption\na.jpg,A dog.\na.jpg,{DEEP}\n")
    assert len(list(csv_table.rows(table, None))) == 2


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "a: &a [*a]",
        "a: &a {b: *a}",
        "[" * 5000,
        "- " * 5000,
        "a: 2024-13-45",
        "a: " + "1" * 5000,
        "a: !!python/object/apply:os.system [ls]",
        "a: !!python/name:os.system",
        "a: !!binary x",
        "a: " + "x" * 500_001,
    ],
    ids=lambda text: text[:20],
)
def test_yaml_of_any_kind_is_an_error_of_yaml(text: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="not valid YAML"):
        resolve("train", file=path)


def test_yaml_with_an_alias_is_read() -> None:
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}


def header(name: str, size: int, kind: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(format=tarfile.GNU_FORMAT)


def whole(name: str) -> bytes:
    return header(name, 3, tarfile.REGTYPE) + b"jpg".ljust(512, b"\0")


TARS: dict[str, bytes] = {
    "GNU name": header("././@LongLink", 3 << 30, tarfile.GNUTYPE_LONGNAME),
    "GNU link": header("././@LongLink", 3 << 30, tarfile.GNUTYPE_LONGLINK),
    "PAX header": header("x", 3 << 30, tarfile.XHDTYPE),
    "PAX header of all": header("x", 3 << 30, tarfile.XGLTYPE),
    "a thousand names": (header("././@LongLink", 2, tarfile.GNUTYPE_LONGNAME) + b"a\0".ljust(512, b"\0")) * 1000,
}


@pytest.mark.parametrize("name", TARS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_whose_header_declares_what_no_header_has(name: str, packed: bool, tmp_path: Path) -> None:
    data = whole("a.jpg") + TARS[name] + whole("b.jpg") + bytes(1024)
    path = tmp_path / ("x.tar.gz" if packed else "x.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    found = list(members(str(path)))
    assert [one.name for one in found if not isinstance(one, CutOff)] == ["a.jpg"]
    assert isinstance(found[-1], CutOff)
    problems: list[Problem] = []
    assert [sample.images for sample in webdataset.scan(path, problems)] == [["a.jpg"]]
    assert "cannot be read on after sample a" in problems[0].reason
    if not packed:
        with pytest.raises(CaptuneError, match="cannot be opened"):
            images.open_archive(path)


def test_the_texts_of_a_shard_have_a_budget(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("a.jpg", "a.txt", "b.jpg", "b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 100
            tar.addfile(entry, io.BytesIO(bytes(100)))
    problems: list[Problem] = []
    assert [len(sample.texts) for sample in webdataset.scan(path, problems, texts=150)] == [1, 0]
    assert problems[0].where == "x.tar.gz, b.txt"


def test_zips_of_images(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.jpg", b"jpg")
        zipped.writestr("b.jpg", bytes(100_000))
    found = images._zip(path, largest=50_000)
    assert found["a.jpg"]() == b"jpg"
    with pytest.raises(UnreadableImage, match="too many for an image"):
        found["b.jpg"]()
    data = path.read_bytes()
    path.write_bytes(data[:30] + bytes(8) + data[38:])
    broken = images.open_archive(path)("a.jpg")
    assert isinstance(broken, EmbeddedImage)
    with pytest.raises(UnreadableImage, match="cannot be read"):
        broken.read()


def parquet_file(path: Path, column: str = "image", **options: Any) -> Path:
    cells = [b"a" * 100, b"b" * 100, bytes(200_000), b"c" * 100]
    table = pa.table({column: cells, "caption": ["one", "two", "three", "four"]})
    pq.write_table(table, path, row_group_size=2, **options)
    return path


WRITERS: dict[str, dict[str, Any]] = {
    "as usual": {},
    "pages of version 2": {"data_page_version": "2.0"},
    "no dictionary": {"use_dictionary": False, "compression": "zstd"},
    "checksums": {"write_page_checksum": True, "write_page_index": True, "compression": "gzip"},
    "prefixes": {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY", "caption": "PLAIN"}},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_cells_of_a_table_are_measured_before_they_are_read(writer: str, tmp_path: Path) -> None:
    path = parquet_file(tmp_path / "x.parquet", **WRITERS[writer])
    with pq.ParquetFile(path) as file:
        assert rows_at_once(path, file, 0, ["image"], largest=1000) > 1
        assert rows_at_once(path, file, 1, ["image"], batch=1000) == 1
        assert rows_at_once(path, file, 1, ["caption"], largest=1000) > 1
        with pytest.raises(TooLarge, match="an image has 1,000 at most"):
            rows_at_once(path, file, 1, ["image"], largest=1000)
    problems: list[Problem] = []
    rows = list(parquet.table_rows(path, ["image", "caption"], problems, largest=1000))
    assert [(number, row["caption"]) for number, row in rows] == [(1, "one"), (2, "two")]
    assert problems[0].where == "x.parquet, rows 3 to 4"


def test_rows_of_a_job_whose_cells_are_too_large(tmp_path: Path) -> None:
    path = parquet_file(tmp_path / "x.parquet")
    (shard,) = bulk_parquet.find(str(path), 100)
    images = list(bulk_parquet.read(shard, largest=1000))
    assert [isinstance(image.source, bytes) for image in images] == [True, True, False, False]
    assert [image.name.rpartition("#")[2] for image in images] == ["0", "1", "2", "3"]


def test_a_list_of_a_million_nothings(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"captions": pa.array([["a"], [None] * 200_000])}), path)
    with pq.ParquetFile(path) as file, pytest.raises(TooLarge, match="200,002 values in 2 rows"):
        rows_at_once(path, file, 0, ["captions"])


@pytest.mark.parametrize("at", [4, 8, 12])
def test_pages_with_damaged_headers(at: int, tmp_path: Path) -> None:
    path = parquet_file(tmp_path / "x.parquet", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff" * 4
    path.write_bytes(bytes(data))
    problems: list[Problem] = []
    rows = list(parquet.table_rows(path, ["image", "caption"], problems))
    assert [number for number, _ in rows] == [3, 4]
    assert problems[0].where == "x.parquet, rows 1 to 2"


def test_a_gzip_that_unpacks_without_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"a" * 1_000_000))
    for read in (lambda file: file.read(), lambda file: io.BufferedReader(file).readline()):
        with LimitedGzip(path, 500_000) as file, pytest.raises(OSError, match="unpacks to more than 500,000 bytes"):
            read(file)
    with LimitedGzip(path, 1_000_000) as file:
        assert len(file.read()) == 1_000_000
    assert max_unpacked(path, free=10, most=5) == 5 * path.stat().st_size


def npz(path: Path, change: Callable[[bytes], bytes] = lambda data: data, **arrays: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as images:
        for name, array in arrays.items():
            made = io.BytesIO()
            np.save(made, array)
            images.writestr(f"{name}.npy", change(made.getvalue()))
    return path


def test_arrays_that_lie(tmp_path: Path) -> None:
    zeros = np.zeros(10_000)
    with open_arrays(npz(tmp_path / "a.npz", a=zeros)) as arrays:
        assert (arrays["a"] == zeros).all()
    lies = npz(tmp_path / "b.npz", lambda data: data.replace(b"(10000,), }", b"(9000000000,), }")[:-5], a=zeros)
    with pytest.raises(ValueError, match="says it has 72,000,000,000 bytes"), open_arrays(lies):
        pass
    with pytest.raises(CaptuneError):
        DocumentFrequencies.load(lies)
    with pytest.raises(ValueError, match="unpacks to"), open_arrays(tmp_path / "a.npz", limit=1000):
        pass
    objects = npz(tmp_path / "c.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError), open_arrays(objects) as arrays:  # noqa: PT011 - pickles, in whatever words
        arrays["a"]


def linked(folder: Path, levels: int) -> Path:
    here = folder
    for _ in range(levels):
        (here / "real").mkdir(parents=True)
        for name in ("one", "two"):
            (here / name).symlink_to("real")
        here = here / "real"
    (here / "a.jpg").touch()
    return folder


def test_folders_that_links_double(tmp_path: Path) -> None:
    few = linked(tmp_path / "few", 2)
    assert len(list(walk(str(few)))) == 9
    assert len(matches(f"{few}/**/*.jpg")) == 9
    many = linked(tmp_path / "many", 22)
    few_visits = (FolderVisits(str(many), most=100) for _ in range(2))
    for listed in (
        lambda: list(walk(str(many), visits=next(few_visits))),
        lambda: matches(f"{many}/**/*.jpg", next(few_visits)),
    ):
        with pytest.raises(CaptuneError, match="lead into the same folders more than"):
            listed()
    visits = FolderVisits("x", most=1)
    visits.enter((1, 1), "a")
    visits.enter((1, 1), "b")
    with pytest.raises(CaptuneError):
        visits.enter((1, 1), "c")


def test_several_stars_are_as_one(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.jpg").touch()
    found = [os.path.join(tmp_path, "a", "b", "c.jpg")]
    assert matches(f"{tmp_path}/**/**/**/*.jpg") == matches(f"{tmp_path}/**/*.jpg") == found


@pytest.mark.parametrize("read", [read_texts, lambda packet: with_caption(packet, "A dog.")])
def test_xmp_that_nests_or_declares(read: Callable[[bytes], Any]) -> None:
    deep = b"<a>" * 5000 + b"</a>" * 5000
    entities = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>'
    for packet, why in ((deep, "nested too deeply"), (entities, "declares entities")):
        with pytest.raises(UnsupportedImage, match=why):
            read(packet)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes("{}".encode("utf-16"))
    for read in (read_json, read_yaml):
        with pytest.raises(CaptuneError, match="cannot be read"):
            read(path)
    with pytest.raises(UsageError, match="not UTF-8"):
        resolve("train", file=path)
    path.write_text(BOMB)
    with pytest.raises(CaptuneError, match="aliases stand for more than"):
        read_yaml(path)


def test_saved_data_sets_whose_cells_lie_outside_their_file(tmp_path: Path) -> None:
    import datasets

    captions = [f"caption number {number}" for number in range(6)]
    datasets.Dataset.from_dict({"image_path": ["a.jpg"] * 6, "caption": captions}).save_to_disk(str(tmp_path / "x"))
    (path,) = (tmp_path / "x").glob("*.arrow")
    offsets = np.arange(0, 7 * 16, 16, dtype="<i4")
    lying = offsets.copy()
    lying[3] = 1 << 30
    data = path.read_bytes()
    assert offsets.tobytes() in data
    path.write_bytes(data.replace(offsets.tobytes(), lying.tobytes()))
    with pytest.raises(CaptuneError, match="the data set is damaged"):
        list(hub.read(tmp_path / "x"))
    (shard,) = bulk_datasets.find(str(tmp_path / "x"), 100)
    with pytest.raises(CaptuneError, match="the data set is damaged"):
        list(bulk_datasets.read(shard))


def test_texts_of_a_table_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"image": ["a.jpg", "b.jpg", "c.jpg"], "caption": ["one", "two", "three"]})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"\x03\0\0\0two", b"\x03\0\0\0\xff\xff\xff"))
    problems: list[Problem] = []
    rows = list(parquet.table_rows(path, ["image", "caption"], problems))
    assert [(number, row["caption"]) for number, row in rows] == [(1, "one"), (3, "three")]
    assert [(problem.where, problem.reason) for problem in problems] == [
        ("x.parquet, row 2", "a text in it is not UTF-8")
    ]


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_in_a_table_is_told(seed: int, tmp_path: Path) -> None:
    """pyarrow ends the process over some footers and hands out texts that are none: neither may be met."""
    path = parquet_file(tmp_path / "x.parquet", compression="zstd")
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), 3):
        data[at] = rng.integers(0, 256)
    path.write_bytes(bytes(data))
    with suppress(CaptuneError):
        list(parquet.read(path, problems=[]))
    with suppress(CaptuneError):
        for shard in bulk_parquet.find(str(path), 100):
            list(bulk_parquet.read(shard))
