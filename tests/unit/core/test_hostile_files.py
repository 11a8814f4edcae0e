"""Names, kinds of files and moments that could stop a job, or lose what it made: they cost one image at most."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captune.captions.writers import CaptionRow, open_writer
from captune.captions.writers.tar import write_tar
from captune.cli.terminal import out_json, print_all_names
from captune.core.errors import CaptuneError, ImageError
from captune.core.files import NotRegular, atomic_file, open_regular, read_json, write_json
from captune.core.records import Caption
from captune.core.stores.local import LocalStore
from captune.datasets.formats import read_source
from captune.datasets.sources.input_shards import InputShard, list_input_shards, read_images
from captune.evaluation.review import review
from captune.images.batches import read_pixels
from captune.images.preprocessing import Preprocessing


def jpeg(shade: int = 9) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 9, 9)).save(file, "JPEG")
    return file.getvalue()


def row(image: Path | str) -> CaptionRow:
    return CaptionRow(str(image), (Caption("a dog", 0.5),), "ok", None, "m")


def refusing_os(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As a file system does that lets this file not be written, also where root asks."""
    replace, access = os.replace, os.access

    def replaced(source: Any, target: Any) -> None:
        if Path(target) == path:
            raise PermissionError(1, "Operation not permitted", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(os, "access", lambda name, mode: Path(name) != path and access(name, mode))


def test_one_file_that_cannot_be_written_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for image in images:
        image.write_bytes(jpeg())
    os.link(images[0], tmp_path / "hard.jpg")
    refusing_os(monkeypatch, images[1])
    with open_writer("xmp", in_place=True) as writer:
        for image in (*images, tmp_path / "hard.jpg", tmp_path / "gone.jpg"):
            writer.write(row(image))
    assert sorted(writer.unwritten) == [str(images[1]), str(tmp_path / "gone.jpg")]  # type: ignore[attr-defined]
    assert [b"a dog" in path.read_bytes() for path in (*images, tmp_path / "hard.jpg")] == [True, False, True, True]
    refusing_os(monkeypatch, tmp_path / "b.txt")
    with open_writer("sidecar") as writer:
        for image in images:
            writer.write(row(image))
    assert [path.with_suffix(".txt").exists() for path in images] == [True, False, True]
    assert "No permission" in writer.unwritten[str(images[1])]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["n" * 255, "n" * 247 + ".jpg", "n" * 251 + ".jpg", "ü" * 125 + ".jpg"])
def test_names_as_long_as_they_can_be(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(jpeg())
    for format, out in (("sidecar", None), ("sidecar", "texts"), ("xmp", "copies")):
        with open_writer(format, out) as writer:
            writer.write(row(name))
        assert not writer.unwritten  # type: ignore[attr-defined]
    with open_writer("xmp", in_place=True) as writer:
        writer.write(row(name))
    assert b"a dog" in Path(name).read_bytes()
    with tarfile.open("in.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(name)
        for suffix in (".txt", ".json"):
            tar.addfile(tarfile.TarInfo(Path(name).stem + suffix), io.BytesIO())
    for shard in (InputShard("files", "", 0, 1, (name,)), *(list_input_shards(["in.tar"]) if "." in name else ())):
        made = io.BytesIO()
        write_tar([row(image.name) for image in read_images(shard)], shard, made)
        made.seek(0)
        with tarfile.open(fileobj=made) as tar:
            assert len(tar.getnames()) in (3, 5)
            tar.extractall("unpacked", filter="data")


def test_a_path_that_is_too_long_is_one_row(tmp_path: Path) -> None:
    with open_writer("xmp", tmp_path / "out") as writer:
        writer.write(row("https://host/" + "x" * 300 + "/a.jpg"), jpeg())  # type: ignore[call-arg]
        writer.write(row("https://host/a.jpg"), jpeg())  # type: ignore[call-arg]
    (reason,) = writer.unwritten.values()  # type: ignore[attr-defined]
    assert "too long" in reason
    assert [path.name for path in (tmp_path / "out").rglob("a.jpg")] == ["a.jpg"]


def special(folder: Path, ending: str) -> list[Path]:
    """A pipe and a socket (where their names are short enough for one) that are called as files."""
    made = [folder / f"pipe{ending}", folder / f"dev{ending}"]
    os.mkfifo(made[0])
    made[1].symlink_to("/dev/zero")
    with suppress(OSError), socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(folder / f"s{ending}"))
        made.append(folder / f"s{ending}")
    return made


def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    made = special(tmp_path, ".jpg")
    (shard,) = list_input_shards([tmp_path])
    assert sorted(shard.names) == sorted(map(str, [tmp_path / "a.jpg", *made]))
    for square in (Preprocessing(16), Preprocessing(16, fast=True)):
        for path in made:
            with pytest.raises(ImageError, match="not a regular file"):
                read_pixels(str(path), square)
    for path in made:
        with pytest.raises(NotRegular):
            open_regular(path)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".parquet", ".csv", ".jsonl", ".txt", ".zip"])
def test_pipes_as_archives_and_tables(tmp_path: Path, ending: str) -> None:
    for path in special(tmp_path, ending):
        if ending in (".tar", ".tar.gz", ".parquet"):
            with pytest.raises(CaptuneError, match=r"it is a (pipe|socket|device)"):
                list(list_input_shards([path]))
        with pytest.raises(CaptuneError):
            list(read_source(path)[1])
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,A dog\n")
    assert [record.references for record in read_source(tmp_path)[1]] == [("A dog",)]


def test_links_in_tars_are_rows_with_their_reason(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        for name, kind in (("a.jpg", tarfile.REGTYPE), ("hard.jpg", tarfile.LNKTYPE), ("soft.jpg", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "" if name == "a.jpg" else "a.jpg"
            entry.size = len(jpeg()) if name == "a.jpg" else 0
            tar.addfile(entry, io.BytesIO(jpeg()))
        pipe = tarfile.TarInfo("pipe.jpg")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
    pieces = list(list_input_shards([tmp_path / "links.tar"], shard_size=2))
    assert [shard.count for shard in pieces] == [2, 2]
    reasons: list[str] = []
    for image in (image for shard in pieces for image in read_images(shard)):
        try:
            reasons.append("" if isinstance(image.source, (str, bytes)) else str(image.source()))
        except ImageError as error:
            reasons.append(error.reason)
    assert [reason.partition(",")[0] for reason in reasons] == [
        "",
        "is a hard link to a.jpg",
        "is a link to a.jpg",
        "is a pipe",
    ]


def left_by_a_killed_process(target: Path) -> Path:
    gone = 2**22 + 1  # more than Linux has
    part = target.with_name(f".{target.name}.{gone}.part")
    part.write_bytes(b"half")
    return part


def test_half_written_files_of_killed_runs_go(tmp_path: Path) -> None:
    target = tmp_path / "a.jpg"
    other, running = tmp_path / ".b.jpg.part", tmp_path / f".a.jpg.{os.getppid()}.part"
    left = left_by_a_killed_process(target)
    for path in (other, running):
        path.write_bytes(b"another's")
    target.write_bytes(jpeg())
    with open_writer("xmp", in_place=True) as writer:
        writer.write(row(target))
    assert (left.exists(), other.exists(), running.exists()) == (False, True, True)
    long = tmp_path / ("n" * 251 + ".jpg")
    with atomic_file(long, "wb") as file:
        assert len(Path(file.name).name) == 255


@pytest.mark.parametrize("gone", ["out", "out/_job"])
def test_an_output_folder_that_is_removed_meanwhile_is_an_error(tmp_path: Path, gone: str) -> None:
    store = LocalStore(str(tmp_path / "out"))
    store.publish("_job/manifest.json", b"{}")
    store.publish("captions-00000.jsonl", b"")
    shutil.rmtree(tmp_path / gone)
    with pytest.raises(CaptuneError, match="was removed or replaced"):
        store.publish("_job/failures.jsonl", b"")
    assert not (tmp_path / gone).exists()
    (tmp_path / gone).mkdir(parents=True)
    (tmp_path / "keep").touch()  # another file takes the number of the folder's
    with suppress(CaptuneError):
        store.publish("_job/failures.jsonl", b"")


@pytest.mark.parametrize("format", ["sidecar", "xmp"])
def test_a_folder_of_sidecars_that_is_removed_meanwhile_is_an_error(tmp_path: Path, format: str) -> None:
    def write(remove: Callable[[], None]) -> None:
        with open_writer(format, tmp_path / "out") as writer:
            writer.write(row(tmp_path / "a.jpg"))
            remove()

    (tmp_path / "a.jpg").write_bytes(jpeg())
    write(lambda: None)
    with pytest.raises(CaptuneError, match="was removed or replaced"):
        write(lambda: shutil.rmtree(tmp_path / "out"))


def test_names_that_are_not_utf8_are_printed_and_reviewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.fsdecode(b"a\xff.jpg")
    with open_writer("jsonl", tmp_path / "captions.jsonl") as writer:
        writer.write(row(name))
        writer.write(row("b.jpg"))
    found = review(tmp_path / "captions.jsonl", html=tmp_path / "page.html", flagged=False)
    assert name in [each.image for each in found.rows]
    assert (tmp_path / "page.html").read_text(encoding="utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    print_all_names()
    out_json(found.to_json())
    stream.seek(0)
    assert name in [each["image"] for each in json.loads(stream.read())["rows"]]
    write_json(tmp_path / "names.json", {"image": name})
    assert read_json(tmp_path / "names.json") == {"image": name}
