"""A job as a library: corrections go into its rows, where finishing, repeating and exporting leave them alone."""

from __future__ import annotations

import json
import os
import shutil
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import captune
from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError, ImageError
from captune.core.files.paths import mark_written
from captune.core.records import Caption
from captune.core.stores.local import LocalStore
from captune.datasets.sources import hub
from captune.datasets.sources.input_shards import InputShard
from captune.jobs.manifest import ShardList
from captune.jobs.shards import SHARD_FORMATS
from captune.library.folder_files import FolderFiles
from captune.library.history import Draft, editing
from captune.library.sets.data_set import is_unwritten
from captune.library.sets.former import copy_former, prune_former
from captune.library.sets.job import JobSet
from data_sets import draw, job_row, known, lay_job, open_job
from stops import stopped


def rows(job: Path, suffix: str = "jsonl") -> dict[str, CaptionRow]:
    decode = SHARD_FORMATS[suffix].decode
    found = (each for path in sorted(job.glob(f"*.{suffix}")) for each in decode(path.read_bytes(), path.name))
    return {Path(each.image).stem: each for each in found}


def shards(job: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in job.glob("*.jsonl")}


def of(library: captune.Library, name: str) -> tuple[int, dict[str, int]]:
    """The number of an image, and its standing captions with theirs."""
    connection = library.database.connection
    image = connection.execute("SELECT id FROM images WHERE path LIKE ?", (f"%/{name}.png",)).fetchone()[0]
    found = connection.execute("SELECT text, id FROM captions WHERE image = ? AND current ORDER BY id", (image,))
    return image, {each[0]: each[1] for each in found}


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_corrections_go_into_the_rows_and_are_known_as_a_person_s(tmp_path: Path, format: str) -> None:
    job = lay_job(tmp_path, format)
    library = open_job(job)
    connection = library.database.connection
    assert library.status().statuses == {"draft": 5}
    assert not library.write_back().files
    before = rows(job, format)
    with editing(library.database, "ann", "edit") as editor:
        for name, texts in (("0", ("a dgo 0", "a dog 0")), ("2", ("a dgo 2", "a dog 2")), ("bad", (None, "a bad one"))):
            image, captions = of(library, name)
            editor.write_caption(image, texts[1] or "", of=captions[texts[0]] if texts[0] else None)
        editor.set_status(of(library, "1")[1]["a dgo 1"], "approved")
        editor.set_status(of(library, "3")[1]["a dgo 3"], "rejected")
        editor.add_draft(of(library, "0")[0], Draft("another model's", "large"))
    assert is_unwritten(connection)
    report = library.write_back()
    assert (report.images, len(report.files)) == (5, 2)
    assert not is_unwritten(connection)
    found = rows(job, format)
    assert [caption.text for caption in found["0"].captions] == ["a dog 0"]
    assert found["0"].is_corrected
    assert [caption.text for caption in found["2"].captions] == ["a dog 2", "second 2"]
    assert found["2"].is_corrected
    assert found["2"].provenance is not None
    assert found["2"].provenance.wrote("second 2")
    assert (found["1"].flags, found["1"].captions) == ((), before["1"].captions)
    assert found["3"].error == "a person rejected its caption"
    assert (found["bad"].status, found["bad"].captions[0].text, found["bad"].is_corrected) == ("ok", "a bad one", True)
    store = LocalStore(str(job))
    assert store.not_written(report.files) == list(report.files)  # nothing throws them away unasked
    assert store.find("_job/report.json") is None
    again = open_job(job)
    assert not again.write_back().files
    assert again.status().writers["person"] == 3


def test_rows_that_note_nobody_tell_the_person_s_from_the_model_s(tmp_path: Path) -> None:
    job = lay_job(tmp_path, provenance=False)
    library = open_job(job)
    image, captions = of(library, "2")
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(image, "a dog 2", of=captions["a dgo 2"])
    library.write_back()
    found = rows(job)["2"]
    assert found.is_corrected
    assert found.provenance is not None
    assert (found.provenance.model, found.provenance.wrote("second 2")) == ("base", True)
    assert rows(job)["0"].provenance is None


def test_while_a_run_is_at_work_nothing_is_written_and_new_shards_come_in(tmp_path: Path) -> None:
    job = lay_job(tmp_path, shards=1)
    library = open_job(job)
    assert library.status().images == 3
    image, captions = of(library, "0")
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(image, "a dog 0", of=captions["a dgo 0"])
    store = LocalStore(str(job))
    with store.lock("_job/part-2-of-3.lock"), pytest.raises(CaptuneError, match="at work") as refused:
        library.write_back()
    assert "safe" in refused.value.hint
    assert rows(job)["0"].captions[0].text == "a dgo 0"
    store.publish("captions-00001.jsonl", SHARD_FORMATS["jsonl"].encode([job_row("3.png", "a dgo 3")]))
    assert library.write_back().images == 1
    assert library.status().images == 4
    # A run wrote the first shard anew: what a person corrected stays, an untouched draft gives way.
    store.publish(
        "captions-00000.jsonl", SHARD_FORMATS["jsonl"].encode([job_row("0.png", "new 0"), job_row("1.png", "new 1")])
    )
    library.add()
    assert list(of(library, "0")[1]) == ["a dog 0", "new 0"]
    assert list(of(library, "1")[1]) == ["new 1"]


def test_a_shard_that_is_written_while_the_library_is_read_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = lay_job(tmp_path, shards=1)
    library = open_job(job)
    make = FolderFiles.make

    def once(files: FolderFiles) -> None:
        make(files)
        monkeypatch.setattr(FolderFiles, "make", make)
        store = LocalStore(str(job))
        store.publish("captions-00001.jsonl", SHARD_FORMATS["jsonl"].encode([job_row("3.png", "a dgo 3")]))

    monkeypatch.setattr(FolderFiles, "make", once)
    library.add()
    assert library.status().images == 3
    known(library, [tmp_path / "photos" / "3.png"])
    assert [found.caption for found in library.search("dgo 3")] == ["a dgo 3"]


def test_images_of_a_job_from_elsewhere_have_to_be_named(tmp_path: Path) -> None:
    job = lay_job(tmp_path, here=False)
    with pytest.raises(CaptuneError, match="not run here") as refused:
        open_job(job)
    assert "--images" in refused.value.hint
    lines = (job / "captions-00000.jsonl").read_text().replace("photos/", "")
    (job / "captions-00000.jsonl").write_text(lines)
    (job / "captions-00001.jsonl").unlink()
    assert open_job(job, images=tmp_path / "photos").status().unreadable == 0
    mark_written(job / "_job", ["pieces.jsonl"])
    (job / "captions-00000.jsonl").write_text(lines.replace("0.png", "/etc/hostname"))
    with pytest.raises(CaptuneError, match="hostname"):  # the job found no such image
        open_job(job)


def test_captions_of_images_in_an_archive_are_corrected_without_them(tmp_path: Path) -> None:
    job = lay_job(tmp_path, shards=0)
    ShardList.of([InputShard("tar", "photos.tar", 0, 1), InputShard("tar", "photos.tar", 1, 1)]).write(
        LocalStore(str(job))
    )
    mark_written(job / "_job", ["pieces.jsonl"])
    (job / "captions-00000.jsonl").write_bytes(
        SHARD_FORMATS["jsonl"].encode([CaptionRow("photos.tar/0.png", (Caption("a dgo", 0.5),), "ok", None, "", ())])
    )
    library = open_job(job)
    assert library.status().unreadable == 1
    image, captions = of(library, "0")
    with editing(library.database, "ann", "edit") as editor:
        editor.write_caption(image, "a dog", of=captions["a dgo"])
    library.write_back()
    assert [each.captions[0].text for each in rows(job).values()] == ["a dog"]


def test_a_table_from_elsewhere_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    job, (secret, *_) = lay_job(tmp_path, here=False, shards=0), draw(tmp_path / "secret", 1)
    images = tmp_path / "photos"
    pq.write_table(pa.table({"image": [str(secret), "1.png"]}), images / "table.parquet")
    ShardList.of([InputShard("parquet", "table.parquet", 0, 2, (), "*")] * 2).write(LocalStore(str(job)))
    archives = JobSet(job, images).archives
    assert archives.read(str(images / "table.parquet#1/1.png")) == (images / "1.png").read_bytes()
    with pytest.raises(ImageError, match="outside"):
        archives.read(str(images / "table.parquet#0/0.png"))
    for name in ("#2", "#-1", "/1.png", "#1/2.png"):
        with pytest.raises(ImageError, match="is not in"):
            archives.read(f"{images}/table.parquet{name}")
    trusted = JobSet(job, images, trusted=True).archives
    assert trusted.read(str(images / "table.parquet#0/0.png")) == secret.read_bytes()


def test_a_row_of_a_saved_set_is_found_by_the_name_of_its_image() -> None:
    assert hub.image_shard("set", "/train#5/a.png") == InputShard("datasets", "set", 5, 1, ("train",))
    assert hub.image_shard("set", "#0") == InputShard("datasets", "set", 0, 1, ("",))


def test_a_job_among_its_images_is_an_ordinary_library(tmp_path: Path) -> None:
    job = lay_job(tmp_path)
    manifest = json.loads((job / "_job" / "manifest.json").read_text())
    manifest["inputs"]["folder"] = str(job)
    (job / "_job" / "manifest.json").write_text(json.dumps(manifest))
    assert captune.Library(job, create=True).data_set is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process is copied")
@pytest.mark.parametrize("disk_full", [False, True])
def test_a_stop_at_any_moment_of_writing_back_loses_nothing(tmp_path: Path, disk_full: bool) -> None:
    job = lay_job(tmp_path)
    library = open_job(job)
    with editing(library.database, "ann", "edit") as editor:
        for name in ("0", "2", "3"):
            image, captions = of(library, name)
            editor.write_caption(image, f"a dog {name}", of=captions[f"a dgo {name}"])
    library.database.close()
    before, pristine = shards(job), tmp_path / "pristine"
    shutil.copytree(job, pristine)
    captune.Library(job).write_back()
    wanted = shards(job)
    assert all(wanted[name] != before[name] for name in before)
    for moment in count(1, 3 if disk_full else 1):
        shutil.rmtree(job)
        shutil.copytree(pristine, job)
        mark_written(job / "_job", ["pieces.jsonl"])
        how = stopped(lambda: captune.Library(job).write_back(), tmp_path, moment, disk_full=disk_full)
        if how is None:
            break
        assert how == (1 if disk_full else -9)
        found = shards(job)
        assert all(found[name] in (before[name], wanted[name]) for name in before)
        library = captune.Library(job)
        assert len(library.search("dog")) == 3
        assert is_unwritten(library.database.connection) or found == wanted
        library.write_back()
        assert shards(job) == wanted
        assert not is_unwritten(library.database.connection)
        former = sorted(job.glob(".captune/former/*/*"), reverse=True)
        assert {path.name: path.read_bytes() for path in former} == before
        assert not list((job / ".captune").rglob("*.part"))
        library.database.close()
    assert moment > 8


def test_the_first_copy_of_each_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "former" / "0.part").mkdir(parents=True)
    for number, names in enumerate(("a", "a", "ab", "b", "ab", "a", "a", "a")):
        copy_former(tmp_path, names, tmp_path / "former" / str(number))
        prune_former(tmp_path / "former")
    assert sorted(path.name for path in (tmp_path / "former").iterdir()) == ["0", "2", "4", "5", "6", "7"]
