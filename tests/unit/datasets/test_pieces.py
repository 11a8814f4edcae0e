"""Every kind of input in pieces: all images once, in order, the same each time, bad ones with their reason."""

from __future__ import annotations

import gzip
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captune.core.errors import CaptuneError, ImageError, UsageError
from captune.core.files.paths import STEP
from captune.datasets.sources.input_shards import InputShard, list_input_shards, read_images
from captune.datasets.sources.listing import find_image_paths, is_image_file


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 9, 9)).save(file, "JPEG")
    return file.getvalue()


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as shard:  # type: ignore[call-overload]
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            shard.addfile(entry, io.BytesIO(data))
    return path


def samples(count: int) -> list[tuple[str, bytes]]:
    """Texts before and behind the image, as WebDataset's members are sorted by name."""
    kinds = ("cls", "jpg", "txt")
    return [(f"{n:04}.{kind}", jpeg(n) if kind == "jpg" else b"text") for n in range(count) for kind in kinds]


def found(*inputs: object, recursive: bool = True, shard_size: int = 1000) -> list[list[tuple[str, object]]]:
    """Names and contents (or the reason why there are none) by piece."""
    pieces = list(list_input_shards([str(one) for one in inputs], recursive=recursive, shard_size=shard_size))
    assert pieces == list(list_input_shards([str(one) for one in inputs], recursive=recursive, shard_size=shard_size))
    read = []
    for shard in pieces:
        assert InputShard.from_json(shard.to_json()) == shard
        images: list[tuple[str, object]] = []
        for image in read_images(shard):
            source: object = image.source
            if callable(source):
                try:
                    source = source()
                except ImageError as error:
                    source = error.reason
            images.append((image.name, source))
        assert shard.count in (None, len(images))
        read.append(images)
    names = [name for images in read for name, _ in images]
    assert len(names) == len(set(names))
    return read


def names(pieces: list[list[tuple[str, object]]]) -> list[list[str]]:
    return [[name for name, _ in images] for images in pieces]


def test_a_tree_is_cut_into_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", "two/d.webp", "two/c.jpg", "one/deep/e.gif"):
        put(Path("photos", name))
    order = ["photos/a.PNG", "photos/b.jpg", "photos/one/deep/e.gif", "photos/two/c.jpg", "photos/two/d.webp"]
    assert names(found("photos", shard_size=2)) == [order[:2], order[2:4], order[4:]]
    assert found("photos")[0][0] == ("photos/a.PNG", "photos/a.PNG")
    assert names(found("photos", recursive=False)) == [order[:2]]
    assert names(found("photos/b.jpg", "photos", "missing.jpg")) == [
        ["photos/b.jpg", order[0], *order[2:], "missing.jpg"]
    ]
    assert names(found("photos/{b,a}.*", "photos/**/e.gif")) == [["photos/b.jpg", "photos/a.PNG", order[2]]]


def test_links_that_go_round_are_walked_once(tmp_path: Path) -> None:
    put(tmp_path / "photos" / "a.jpg")
    put(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "photos")
    there = [[f"{tmp_path}/photos/a.jpg", f"{tmp_path}/photos/other/b.jpg"]]
    assert names(found(tmp_path / "photos")) == there


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_opened_is_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(CaptuneError, match="Cannot look into"):
        found(tmp_path)
    closed.chmod(0o700)


def test_nothing_to_find(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="no images in the folder"):
        found(tmp_path)
    with pytest.raises(UsageError, match=r"No file matches .*2\.tar"):
        found(tar(tmp_path / "1.tar", samples(1)).with_name("{1..2}.tar"))
    with pytest.raises(UsageError, match="There are no images in"):
        found(tar(tmp_path / "texts.tar", [("a.txt", b"text")]))
    with pytest.raises(UsageError, match="No images were given"):
        found()
    with pytest.raises(CaptuneError, match=r"There is no file gone\.tar"):
        found("gone.tar")
    with pytest.raises(CaptuneError, match=r"There is no file gone\.parquet"):
        found("gone.parquet")


def test_images_go_before_archives(tmp_path: Path) -> None:
    archive = tar(tmp_path / "only" / "a.tar", samples(2)) if (tmp_path / "only").mkdir() is None else None
    assert names(found(tmp_path / "only")) == [[f"{archive}/0000.jpg", f"{archive}/0001.jpg"]]
    put(tmp_path / "only" / "z.jpg")
    assert names(found(tmp_path / "only")) == [[f"{tmp_path}/only/z.jpg"]]
    assert find_image_paths([tmp_path / "only" / "a.tar"]) == [str(archive)]  # verbs that open no archives
    assert not is_image_file(str(archive))
    assert is_image_file(f"{tmp_path}/only/z.jpg")


def test_tar_pieces_split_no_sample(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [*samples(7), ("0006.b.jpg", b"second"), ("readme.md", b""), ("._x.jpg", b"mac")])
    pieces = list(list_input_shards([str(path)], shard_size=3))
    assert [shard.count for shard in pieces] == [3, 3, 2]
    with open(path, "rb") as file:
        file.seek(pieces[1].start)
        assert file.read(8) == b"0003.cls"  # a sample's first member, not its image
    read = found(path, shard_size=3)
    assert [data for images in read for _, data in images] == [*(jpeg(n) for n in range(7)), b"second"]
    (both,) = list_input_shards([str(path)], shard_size=7)  # the second image of a sample stays with the first
    assert both.count == 8


def test_a_name_twice_in_a_tar(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("x.jpg", b"1"), ("y.jpg", b"2"), ("x.jpg", b"3"), ("x.jpg", b"4")])
    for size in (1, 2, 1000):
        read = [one for images in found(path, shard_size=size) for one in images]
        assert [data for _, data in read] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("cut", [500, 1536, 2000, 7000, 8192])
@pytest.mark.parametrize("size", [2, 3, 1000])
def test_a_tar_that_is_cut_off(tmp_path: Path, cut: int, size: int) -> None:
    path = tar(tmp_path / "a.tar", samples(5))
    with tarfile.open(path) as shard:
        ends = [one.offset_data + one.size for one in shard if one.name.endswith("jpg")]
    with open(path, "r+b") as file:
        file.truncate(cut)
    read = [one for images in found(path, shard_size=size) for one in images]
    assert read[-1][0] == str(path)
    assert "cannot be read on" in str(read[-1][1])
    assert [data for _, data in read[:-1]] == [jpeg(n) for n in range(len(read) - 1)]
    assert len(read) - 1 == sum(end <= cut for end in ends)
    pieces = list(list_input_shards([str(path)], shard_size=size))
    tar(path, samples(5))  # copied again
    names = [image.name for shard in pieces for image in read_images(shard)]
    assert names == [f"{path}/{n:04}.jpg" for n in range(5)]


def test_a_tar_without_its_end_mark_and_none_at_all(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", samples(2))
    whole = 6 * 512 + sum(-(-len(data) // 512) * 512 for _, data in samples(2))
    os.truncate(path, whole)
    read = found(path)[0]
    assert [name for name, _ in read] == [f"{path}/0000.jpg", f"{path}/0001.jpg", str(path)]
    assert "its end is missing" in str(read[2][1])
    os.truncate(path, 0)
    path.write_bytes(b"this is no tar at all" * 100)
    ((row,),) = found(path)
    assert row[0] == str(path)
    assert "at its beginning" in str(row[1])


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_with_garbage_in_it(tmp_path: Path, mode: str) -> None:
    path = tar(tmp_path / "plain.tar", samples(4))
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as shard:
        third = shard.getmember("0002.cls").offset
    data[third : third + 512] = bytes(range(256)) * 2
    path = put(tmp_path / ("a.tar" if mode == "w" else "a.tgz"), bytes(data))
    if mode == "w:gz":
        path.write_bytes(gzip.compress(bytes(data)))
    (read,) = found(path)
    assert [data for _, data in read[:-1]] == [jpeg(0), jpeg(1)]
    assert read[-1][0] == str(path)


def test_a_compressed_tar_is_one_piece(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", samples(4), "w:gz")
    (read,) = found(path, shard_size=2)
    assert [data for _, data in read] == [jpeg(n) for n in range(4)]
    path.write_bytes(path.read_bytes()[:-300])
    (read,) = found(path)
    assert read[-1][0] == str(path)
    with gzip.open(tmp_path / "b.tgz", "wb") as file:
        file.write(b"")
    assert len(found(tmp_path / "b.tgz")) == 1


def test_parquet_by_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(50)], "n": range(50)}), path, row_group_size=7)
    for size in (5, 7, 20, 1000):
        read = found(path, shard_size=size)
        assert [len(images) for images in read[:-1]] == [size] * (len(read) - 1)
        assert [one for images in read for one in images] == [(f"{path}#{n}", jpeg(n)) for n in range(50)]


def test_parquet_cells_of_all_sorts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path("tables/beside.jpg"))
    put(Path("here.jpg"))
    rows = [{"bytes": b"1", "path": "../../k.jpg"}, {"bytes": None, "path": "beside.jpg"}, None]
    pq.write_table(pa.table({"picture": rows}), "tables/a.parquet")
    assert found("tables/a.parquet") == [
        [
            ("tables/a.parquet#0/k.jpg", b"1"),
            ("tables/a.parquet#1/beside.jpg", "tables/beside.jpg"),
            ("tables/a.parquet#2", "there is no image in this row"),
        ]
    ]
    pq.write_table(pa.table({"Image Path": ["beside.jpg", "here.jpg", "gone.jpg", ""]}), "tables/b.parquet")
    assert [source for _, source in found("tables/b.parquet")[0]] == [
        "tables/beside.jpg",
        f"here.jpg lies outside of tables: {STEP}",
        "tables/gone.jpg",
        "there is no image in this row",
    ]
    pq.write_table(pa.table({"image": [b"1"], "file_name": ["dog.jpg"]}), "tables/c.parquet")
    assert found("tables/c.parquet") == [[("tables/c.parquet#0/dog.jpg", b"1")]]


def test_parquet_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"label": [1]}), path)
    with pytest.raises(CaptuneError, match="no column of images among label"):
        found(path)
    put(path, b"PAR1 but no more")
    with pytest.raises(CaptuneError, match="not a whole Parquet file"):
        found(path)
    pq.write_table(pa.table({"image": [os.urandom(5000) for _ in range(40)]}), path, row_group_size=20)
    second = pq.read_metadata(path).row_group(1).column(0).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[second : second + 5000] = bytes(5000)
    put(path, bytes(data))
    (read,) = found(path)
    assert len(read) == 40
    assert all(isinstance(source, bytes) for _, source in read[:20])
    assert "cannot be read here" in str(read[-1][1])


def test_saved_and_streamed_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})

    def made(shades: list[int]) -> object:
        cells = [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in shades]
        return datasets.Dataset.from_dict({"image": cells, "label": shades}, features=features)

    datasets.DatasetDict({"train_a": made([1, 2, 3]), "train_b": made([4])}).save_to_disk(tmp_path / "set")
    saved = found(tmp_path / "set", shard_size=2)
    where = f"{tmp_path}/set"
    assert saved == [
        [(f"{where}/train_a#0/1.jpg", jpeg(1)), (f"{where}/train_a#1/2.jpg", jpeg(2))],
        [(f"{where}/train_a#2/3.jpg", jpeg(3))],
        [(f"{where}/train_b#0/4.jpg", jpeg(4))],
    ]
    for number, shades in enumerate(([1, 2], [3])):
        made(shades).to_parquet(str(put(tmp_path / "repo" / f"train-{number}.parquet")))  # type: ignore[attr-defined]
    streamed = found(f"hf:{tmp_path}/repo:train")
    base = f"hf:{tmp_path}/repo/train"
    assert streamed == [
        [(f"{base}#0-0/1.jpg", jpeg(1)), (f"{base}#0-1/2.jpg", jpeg(2))],
        [(f"{base}#1-0/3.jpg", jpeg(3))],
    ]


def test_a_file_system_of_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    for name in ("b.jpg", "one/a.jpg", "two/c.png", "notes.txt"):
        fs.pipe(f"{root}/{name}", name.encode())
    url = f"memory:/{root}"
    order = [(f"{url}/{name}", name.encode()) for name in ("b.jpg", "one/a.jpg", "two/c.png")]
    assert found(f"{url}/") == found(url) == [order]
    assert found(url, recursive=False) == [order[:1]]
    assert found(f"{url}/*/*.jpg", f"{url}/gone.jpg") == [
        [order[1], (f"{url}/gone.jpg", "the file, its folder or its bucket does not exist")]
    ]
    fs.put_file(str(tar(tmp_path / "a.tar", samples(3))), f"{root}/shards/0.tar")
    pq.write_table(pa.table({"image": [b"1", b"2"]}), tmp_path / "a.parquet")
    fs.put_file(str(tmp_path / "a.parquet"), f"{root}/shards/1.parquet")
    read = found(f"{url}/shards", shard_size=1)
    assert names(read) == [
        [f"{url}/shards/0.tar/{n:04}.jpg" for n in range(3)],
        [f"{url}/shards/1.parquet#0"],
        [f"{url}/shards/1.parquet#1"],
    ]
    with pytest.raises(CaptuneError, match="does not exist"):
        found(f"{url}/none/")
    with pytest.raises(CaptuneError, match="no file system named 'nofs'"):
        found("nofs://a/")
    fs.rm(root, recursive=True)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with one image, whose /broken answers less than it promised."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path.startswith("/a.jpg")
            self.send_response(200 if good or self.path == "/broken.jpg" else 404)
            self.send_header("Content-Length", "3" if good else "1000")
            self.end_headers()
            self.wfile.write(b"jpg")

        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_images_on_the_web(web: str) -> None:
    assert found(f"{web}/a.jpg?größe=1 2")[0][0][1] == b"jpg"
    (read,) = found(f"{web}/a.jpg?size=1", f"{web}/gone.jpg", f"{web}/broken.jpg", "http://127.0.0.1:1/x.jpg")
    assert read[0] == (f"{web}/a.jpg?size=1", b"jpg")
    assert "answered 404" in str(read[1][1])
    assert "broke after 3 of 1000 bytes" in str(read[2][1])
    assert "not reached" in str(read[3][1])


def test_archives_on_the_web(tmp_path: Path) -> None:
    """From a server that gives whole files alone, as simple ones do."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Tests are quiet."""

    big = [(f"{n}.jpg", os.urandom(100_000)) for n in range(100)]  # more than is read at once
    tar(tmp_path / "big.tar", big)
    tar(tmp_path / "cut.tar", big[:5])
    os.truncate(tmp_path / "cut.tar", 5 * (512 + 100_352))
    pq.write_table(pa.table({"image": [data for _, data in big]}), tmp_path / "big.parquet")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        assert [data for _, data in found(f"{url}/big.tar")[0]] == [data for _, data in big]
        (cut,) = found(f"{url}/cut.tar")
        assert len(cut) == 6
        assert "its end is missing" in str(cut[5][1])
        with pytest.raises(CaptuneError, match="gives whole files alone"):
            found(f"{url}/big.parquet")
        with pytest.raises(CaptuneError, match="answered 404"):
            found(f"{url}/none.tar")
    finally:
        server.shutdown()
        server.server_close()
