"""Downloads: resumed after a cut connection, checked, and clear about a missing network or credential."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from captune.core.errors import CaptuneError, UsageError
from captune.core.progress import SILENT
from captune.datasets.downloads import download, download_coco
from captune.datasets.downloads.http import fetch

CONTENT = bytes(range(256)) * 4096 * 3  # 3 MiB


class Server(ThreadingHTTPServer):
    """Serves `files`, understands ranges, and cuts the first `cuts` answers off after a third."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file.zip": CONTENT}
        self.cuts = 0
        self.ranges: list[str | None] = []
        self.supports_range = True
        self.etag = '"one"'
        self.status = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.server.status or content is None:
            self.send_error(self.server.status or 404)
            return
        start = 0
        same = self.headers.get("If-Range", self.server.etag) == self.server.etag
        if asked and self.server.supports_range and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 3]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def download_here(name: str, to: Path, progress: Any = SILENT, split_lists: str = "") -> Path:
    """`download` on a machine whose input from Kaggle lies beside `to`."""
    return download(name, to, progress, kaggle_input=to.parent / "kaggle", split_lists=split_lists)


class Bars:
    """Records how far the bar of a download went."""

    def __init__(self) -> None:
        self.done = 0.0
        self.whole = 0.0
        self.warnings: list[str] = []

    def task(self, label: str, total: float | None = None, done: float = 0) -> Any:
        return self

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def advance(self, steps: float = 1) -> None:
        self.done += steps

    def total(self, steps: float) -> None:
        self.whole = steps

    def note(self, text: str) -> None:
        return None

    def info(self, text: str) -> None:
        return None

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_cut_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cuts = 3
    bars = Bars()
    found = fetch(f"{server.url}/file.zip", tmp_path / "file.zip", progress=bars, pause=0)
    assert found.read_bytes() == CONTENT
    assert len(server.ranges) == 4
    assert server.ranges[0] is None
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.ranges[1:] if asked]
    assert starts[0] == len(CONTENT) // 3
    assert starts == sorted(starts)
    assert (bars.done, bars.whole) == (len(CONTENT), len(CONTENT))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.zip"]


def test_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT[:1000])
    fetch(f"{server.url}/file.zip", tmp_path / "file.zip", pause=0)
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    fetch(f"{server.url}/file.zip", tmp_path / "file.zip", pause=0)
    assert len(server.ranges) == 1


def test_a_whole_part_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/file.zip", tmp_path / "file.zip", pause=0).read_bytes() == CONTENT
    (tmp_path / "file.zip").unlink()
    (tmp_path / "file.zip.part").write_bytes(CONTENT + b"more")
    assert fetch(f"{server.url}/file.zip", tmp_path / "file.zip", pause=0).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.supports_range = False
    server.cuts = 1
    bars = Bars()
    fetch(f"{server.url}/file.zip", tmp_path / "file.zip", progress=bars, pause=0)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT
    assert bars.done == len(CONTENT)


def test_a_file_that_changed_meanwhile_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(b"old" * 1000)
    (tmp_path / "file.zip.part.etag").write_text('"zero"', encoding="utf-8")
    assert fetch(f"{server.url}/file.zip", tmp_path / "file.zip", pause=0).read_bytes() == CONTENT


def test_wrong_content_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="3,145,728 bytes, expected 5"):
        fetch(f"{server.url}/file.zip", tmp_path / "file.zip", size=5, pause=0)
    with pytest.raises(CaptuneError, match=r"SHA-256 [0-9a-f]{64}, expected 00"):
        fetch(f"{server.url}/file.zip", tmp_path / "file.zip", sha256="00", pause=0)
    assert not (tmp_path / "file.zip").exists()
    assert not (tmp_path / "file.zip.part").exists()


def test_errors_of_the_server(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=r"127\.0\.0\.1 did not give .*404"):
        fetch(f"{server.url}/none.zip", tmp_path / "none.zip", pause=0)
    server.status = 503
    with pytest.raises(CaptuneError, match=r"127\.0\.0\.1 was not reached") as caught:
        fetch(f"{server.url}/file.zip", tmp_path / "file.zip", pause=0, attempts=3)
    assert len(server.ranges) == 4
    assert "point at the folder" in caught.value.hint


def test_no_network_names_the_host(tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(b"12345")
    with pytest.raises(CaptuneError, match=r"nowhere\.invalid was not reached: .* 5 bytes are kept"):
        fetch("http://nowhere.invalid/file.zip", tmp_path / "file.zip")


def zipped(*names: str, content: bytes = b"x") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return file.getvalue()


def test_coco_is_unpacked_part_by_part(server: Server, tmp_path: Path) -> None:
    server.files = {
        "/annotations/annotations_trainval2017.zip": zipped(
            "annotations/captions_train2017.json", "annotations/captions_val2017.json", "annotations/instances_x.json"
        ),
        "/zips/val2017.zip": zipped("val2017/", "val2017/1.jpg", "val2017/2.jpg"),
    }
    with pytest.raises(CaptuneError, match=r"train2017\.zip: .*404"):
        download_coco(tmp_path, host=server.url)
    server.files["/zips/train2017.zip"] = zipped("train2017/3.jpg", "../../evil.jpg")
    for left in ("val2017.zip", "val2017.zip.part", "val2017.zip.part.etag"):
        (tmp_path / left).write_bytes(b"of a run that was killed when it had been unpacked")
    before = len(server.ranges)
    assert download_coco(tmp_path, host=server.url) == tmp_path
    assert len(server.ranges) == before + 1
    assert download_coco(tmp_path, host="http://nowhere.invalid") == tmp_path
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        "annotations/captions_train2017.json",
        "annotations/captions_val2017.json",
        "train2017/3.jpg",
        "train2017/evil.jpg",
        "val2017/1.jpg",
        "val2017/2.jpg",
    ]


def test_a_download_that_was_killed_before_anything_came_begins(server: Server, tmp_path: Path) -> None:
    (tmp_path / "..unfinished-download.99999999.part").write_text("half")
    with pytest.raises(CaptuneError, match="404"):
        download_coco(tmp_path, host=server.url)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-download"]


def test_a_damaged_zip_is_removed(server: Server, tmp_path: Path) -> None:
    damaged = bytearray(zipped("annotations/captions_x.json", content=b"content of the file"))
    damaged[60] ^= 255
    server.files["/annotations/annotations_trainval2017.zip"] = bytes(damaged)
    with pytest.raises(CaptuneError, match="is damaged"):
        download_coco(tmp_path, host=server.url)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-download"]


def test_what_is_there_already_is_taken(tmp_path: Path) -> None:
    for folder in (tmp_path / "here", tmp_path / "kaggle" / "flickr-image-dataset"):
        folder.mkdir(parents=True)
        (folder / "captions.txt").write_text("image,caption\na.jpg,A dog\n", encoding="utf-8")
    for name in ("flickr8k", "flickr30k", "coco"):
        assert download_here(name, tmp_path / "here") == tmp_path / "here"
    assert download_here("flickr30k", tmp_path / "absent") == tmp_path / "kaggle" / "flickr-image-dataset"


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data set 'flikr8k'") as caught:
        download("flikr8k", tmp_path)
    assert "Did you mean 'flickr8k'" in caught.value.hint


def answer(status: int) -> Exception:
    error = OSError("refused")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "said", "hint"),
    [
        (OSError("Failed to resolve 'api.kaggle.com'"), r"www\.kaggle\.com was not reached", "point at it"),
        (answer(401), "without valid credentials", "KAGGLE_API_TOKEN"),
        (answer(403), "without valid credentials", "kaggle.json"),
        (ValueError("Invalid Kaggle credentials file at kaggle.json"), "without valid credentials", "KAGGLE_KEY"),
        (answer(500), r"www\.kaggle\.com answered 500", "point at it"),
    ],
)
def test_kaggle_in_the_users_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, hint: str
) -> None:
    kagglehub = pytest.importorskip("kagglehub")

    def refuse(handle: str) -> str:
        assert handle == "adityajn105/flickr8k"
        raise error

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(CaptuneError, match=said) as caught:
        download_here("flickr8k", tmp_path / "flickr8k")
    assert hint in caught.value.hint


def test_kaggle_download_gets_the_official_lists(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kagglehub = pytest.importorskip("kagglehub")
    monkeypatch.setattr(kagglehub, "dataset_download", lambda handle: str(tmp_path))
    lists = f"{server.url}/text.zip"
    bars = Bars()
    assert download_here("flickr8k", tmp_path / "to", bars, lists) == tmp_path
    assert "official Flickr8k split were not fetched" in bars.warnings[0]
    server.files["/text.zip"] = b"damaged"
    download_here("flickr8k", tmp_path / "to", Bars(), lists)
    half = tmp_path / ".Flickr8k_text.99999999.part"  # of a run that was killed while it unpacked
    half.mkdir()
    server.files["/text.zip"] = zipped("Flickr_8k.trainImages.txt", "Flickr8k.token.txt", content=b"a.jpg\n")
    download_here("flickr8k", tmp_path / "to", bars, lists)
    assert [path.name for path in (tmp_path / "Flickr8k_text").iterdir()] == ["Flickr_8k.trainImages.txt"]
    assert len(bars.warnings) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["Flickr8k_text"]
