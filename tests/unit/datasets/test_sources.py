"""`prepare` and `caption` find the same images in the same container, with the same bytes and the same errors."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captune.core.errors import CaptuneError, ImageError
from captune.datasets.formats import read_source
from captune.datasets.merge import EmbeddedImage, Problem
from captune.datasets.sources.input_shards import list_input_shards, read_images
from sources import jpeg, tar, write

SAMPLES = {name: data for n in range(5) for name, data in ((f"{n}.jpg", jpeg(n)), (f"{n}.txt", f"text {n}"))}


def captioned(source: Path) -> tuple[dict[str, bytes], list[str]]:
    """What `caption` finds: the bytes of each image by its name, and the reasons of what cannot be read."""
    images: dict[str, bytes] = {}
    reasons = []
    for shard in list_input_shards([str(source)]):
        for image in read_images(shard):
            try:
                data = image.source() if callable(image.source) else image.source
            except ImageError as error:
                reasons.append(error.reason)
                continue
            images[Path(image.name).name] = data if isinstance(data, bytes) else Path(data).read_bytes()
    return images, reasons


def prepared(source: Path) -> tuple[dict[str, bytes], list[str]]:
    """The same of what `prepare` finds."""
    images: dict[str, bytes] = {}
    problems: list[Problem] = []
    for record in read_source(source, None, None, problems)[1]:
        data = record.image.read() if isinstance(record.image, EmbeddedImage) else record.image.read_bytes()
        images[record.where.rpartition(", ")[2]] = data
    return images, [problem.reason for problem in problems]


def damaged(path: Path) -> None:
    """Overwrite the header of the third sample's image."""
    with tarfile.open(path) as shard:
        at = shard.getmember("2.jpg").offset
    data = bytearray(path.read_bytes())
    data[at : at + tarfile.BLOCKSIZE] = bytes(range(256)) * 2
    path.write_bytes(bytes(data))


def without_end(path: Path) -> None:
    with tarfile.open(path) as shard:
        last = shard.getmembers()[-1]
    os.truncate(path, last.offset_data + tarfile.BLOCKSIZE)


def compressed(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def compressed_and_cut(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes())[:-40])


@pytest.mark.parametrize(
    "change", [None, damaged, without_end, compressed, compressed_and_cut, lambda path: os.truncate(path, 7000)]
)
def test_a_tar_has_the_same_images_and_errors_for_both(tmp_path: Path, change: object) -> None:
    path = tmp_path / "a.tar"
    tar(path, SAMPLES)
    if callable(change):
        change(path)
    images, reasons = captioned(path)
    there, problems = prepared(path)
    with_caption = {name: data for name, data in images.items() if name in there}
    assert there == with_caption
    assert list(images)[: len(there)] == list(there)
    assert len(images) - len(there) <= 1  # the image before the damage may have lost its text
    assert len(there) == 5 if change in (None, compressed, without_end) else len(there) < 5
    assert [reason for reason in problems if "cannot be read on" in reason] == reasons


def test_links_in_a_tar_are_refused_with_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    tar(path, SAMPLES)
    with tarfile.open(path, "a") as shard:
        entry = tarfile.TarInfo("link.jpg")
        entry.type, entry.linkname = tarfile.SYMTYPE, "0.jpg"
        shard.addfile(entry, io.BytesIO())
    (_, (reason,)), (_, (problem,)) = captioned(path), prepared(path)
    assert problem == f"{reason}; unpack the tar and name the folder"


def of_rows(source: Path) -> tuple[dict[int, bytes | str], dict[int, bytes | str]]:
    """What `caption` and `prepare` make of each row of a table, by its number: bytes, or why there are none."""
    caption: dict[int, bytes | str] = {}
    for shard in list_input_shards([str(source)], shard_size=3):
        for image in read_images(shard):
            number = int(re.findall(r"#(\d+)", image.name)[0])
            try:
                data = image.source() if callable(image.source) else image.source
                caption[number] = data if isinstance(data, bytes) else Path(data).read_bytes()
            except ImageError as error:
                caption[number] = error.reason
    problems: list[Problem] = []
    prepare: dict[int, bytes | str] = {}
    for record in read_source(source, None, None, problems)[1]:
        data = record.image.read() if isinstance(record.image, EmbeddedImage) else record.image.read_bytes()
        prepare[int(record.where.rpartition(" ")[2]) - 1] = data
    for problem in problems:
        first, *last = map(int, re.findall(r"(?<= )\d+", problem.where))
        prepare |= dict.fromkeys(range(first - 1, (last or [first])[0]), problem.reason)
    return caption, dict(sorted(prepare.items()))


def write_table(path: Path, cells: list[object], **options: object) -> Path:
    table = pa.table({"image": cells, "caption": [f"text {n}" for n in range(len(cells))]})
    pq.write_table(table, path, compression="none", use_dictionary=False, **options)
    return path


def test_cells_of_parquet_are_the_same_for_both(tmp_path: Path) -> None:
    (tmp_path / "beside.jpg").write_bytes(jpeg(9))
    cells: list[object] = [
        {"bytes": jpeg(1), "path": "../../a.jpg"},
        {"bytes": None, "path": "beside.jpg"},
        {"bytes": b"", "path": "beside.jpg"},
        {"bytes": None, "path": "/etc/hostname"},
        None,
        {"bytes": jpeg(2), "path": None},
    ]
    caption, prepare = of_rows(write_table(tmp_path / "a.parquet", cells))
    assert caption == {
        0: jpeg(1),
        1: jpeg(9),
        2: jpeg(9),
        3: caption[3],
        4: "there is no image in this row",
        5: jpeg(2),
    }
    assert "lies outside of" in str(caption[3])
    del caption[2]  # the same image as the row before: for `prepare` a second caption
    assert prepare == caption


@pytest.mark.parametrize("column", ["Image", "imageBytes", "image-data", "JPG"])
def test_both_know_the_same_columns_of_images(tmp_path: Path, column: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({column: [jpeg(1)], "caption": ["A"]}), path)
    assert of_rows(path) == ({0: jpeg(1)}, {0: jpeg(1)})


def test_damage_in_parquet_is_told_in_the_same_words(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", [jpeg(n) for n in range(10)], row_group_size=5)
    second = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[second : second + 200] = bytes(200)
    path.write_bytes(bytes(data))
    caption, prepare = of_rows(path)
    assert caption == prepare
    assert [caption[n] for n in range(5)] == [jpeg(n) for n in range(5)]
    assert all("cannot be read here" in str(caption[n]) for n in range(5, 10))


def test_a_file_name_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    for name in ("a.jpg", "ccc.jpg"):
        (tmp_path / name).write_bytes(jpeg(len(name)))
    path = write_table(tmp_path / "a.parquet", ["a.jpg", "bb.jpg", "ccc.jpg"])
    path.write_bytes(path.read_bytes().replace(b"bb.jpg", b"\xff\xff.jpg"))
    caption, prepare = of_rows(path)
    assert caption == prepare == {0: jpeg(5), 1: "a text in it is not UTF-8", 2: jpeg(7)}


def test_a_saved_data_set_has_the_same_images_for_both(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pair = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"image": pair, "caption": datasets.Value("string")})
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "beside.jpg").write_bytes(jpeg(9))
    cells = [
        {"bytes": jpeg(1), "path": "a.jpg"}, {"bytes": None, "path": "beside.jpg"}, None,
        {"bytes": None, "path": "/etc/hostname"}, {"bytes": jpeg(2), "path": None},
    ]  # fmt: skip
    rows = {"image": cells, "caption": [f"text {n}" for n in range(5)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    caption, prepare = of_rows(tmp_path / "set")
    assert caption == prepare
    assert [caption[n] for n in (0, 1, 4)] == [jpeg(1), jpeg(9), jpeg(2)]


def test_a_folder_has_the_same_images_for_both(tmp_path: Path) -> None:
    """Hidden files, what a Mac leaves and links that go round are left out by both."""
    source = tmp_path / "source"
    names = ["b.jpg", "A.PNG", "one/c.webp", "._b.jpg", ".hidden/d.jpg", "__MACOSX/b.jpg", "one/.e.jpg"]
    for number, name in enumerate(names):
        write(source / name, jpeg(number))
        write((source / name).with_suffix(".txt"), f"text {number}")
    (source / "one" / "again").symlink_to(source)
    shards = list(list_input_shards([str(source)]))
    caption = [os.path.relpath(image.source, source) for shard in shards for image in read_images(shard)]  # type: ignore[arg-type]
    problems: list[Problem] = []
    records = list(read_source(source, None, None, problems)[1])
    assert problems == []
    assert [record.image.relative_to(source).as_posix() for record in records] == caption  # type: ignore[union-attr]
    assert caption == ["A.PNG", "b.jpg", "one/c.webp"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_opened_is_an_error_for_both(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", jpeg(1))
    write(tmp_path / "a.txt", "text")
    (tmp_path / "closed").mkdir(mode=0)
    for read in (lambda: list(list_input_shards([str(tmp_path)])), lambda: list(read_source(tmp_path)[1])):
        with pytest.raises(CaptuneError, match="Cannot look into"):
            read()
    (tmp_path / "closed").chmod(0o700)
