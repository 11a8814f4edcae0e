"""A job as its user meets it: gone on with, retried, divided, refused, out of disk, without its input."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import captune
from captune.captions.provenance import prompt_digest, text_digest
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.paths import MARK
from jobs import FakeCaptioner, job, model_folder, pictures, rows


def test_who_wrote_the_captions_is_noted_unless_switched_off(here: Path, loaded: list[FakeCaptioner]) -> None:
    job(prompt="a photo of", own_words=True, format="parquet")
    (row,) = [row for row in pq.read_table("out/captions-00000.parquet").to_pylist() if row["image"] == "pics/001.png"]
    assert row["provenance_prompt"] == prompt_digest("a photo of")
    assert row["provenance_own_words"] == [row["caption"]]
    with pytest.raises(CaptuneError, match="--own-words: True, now False"):
        job(prompt="a photo of", format="parquet")
    job("off", provenance="off")
    assert not any("provenance" in row for row in rows("off"))
    job("captions.csv", format="csv")
    assert "provenance_model" in Path("captions.csv").read_text().splitlines()[0]


def test_a_job_that_began_without_provenance_goes_on_without(here: Path) -> None:
    job(prefix="a, b")
    before = rows()
    manifest = Path("out/_job/manifest.json")
    value = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(value | {"started": "2020-01-01"}))
    Path("out/captions-00001.jsonl").unlink()
    job(prefix="a, b")  # on another day than it began
    assert [row["provenance"]["date"] for row in rows()[8:16]] == ["2020-01-01"] * 8
    for key in ("caption.provenance", "caption.own_words"):
        del value["options"][key]
    del value["started"]
    manifest.write_text(json.dumps(value))
    Path("out/captions-00001.jsonl").unlink()
    job(prefix="a, b")
    again = [{key: each for key, each in row.items() if key != "provenance"} for row in before]
    assert rows() == [*before[:8], *again[8:16], *before[16:]]


def test_what_a_person_corrected_is_not_captioned_again_for_its_flags(here: Path) -> None:
    job()
    shard = Path("out/captions-00000.jsonl")
    lines = [json.loads(line) for line in shard.read_text().splitlines()]
    for number, text in ((0, "by hand"), (1, lines[1]["caption"])):
        lines[number] |= {"caption": text, "flags": ["repeats"]}
    shard.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job(retry_flagged=True)
    found = rows()
    assert (found[0]["caption"], found[0]["flags"]) == ("by hand", ["repeats"])
    assert (found[1]["caption"], found[1]["flags"]) == (lines[1]["caption"], [])


def test_every_picture_is_one_row_in_order(here: Path) -> None:
    report = job()
    found = rows()
    assert [row["image"] for row in found] == [f"pics/{number:03}.png" for number in range(20)]
    assert [row["image"] for row in found if row["status"] == "error"] == ["pics/003.png", "pics/017.png"]
    assert all(row["error"] for row in found if row["status"] == "error")
    good = next(row for row in found if row["image"] == "pics/001.png")
    assert good["caption"] == "a picture of something that is green"
    assert list(good) == ["image", "caption", "confidence", "status", "error", "flags", "provenance"]
    manifest = json.loads(Path("out/_job/manifest.json").read_text())
    assert good["provenance"] == {
        "written_by": "model",
        "model": "model",
        "digest": manifest["digest"],
        "date": manifest["started"],
        "captune": captune.__version__,
        "captions": [text_digest(good["caption"])],
    }
    assert not any("provenance" in row for row in found if row["status"] == "error")
    assert (report.failed, report.captioned, report.whole, report.failures) == (2, 20, True, "out/_job/failures.jsonl")
    failures = [json.loads(line) for line in Path("out/_job/failures.jsonl").read_text().splitlines()]
    assert [(row["image"], row["shard"]) for row in failures] == [
        ("pics/003.png", "captions-00000.jsonl"),
        ("pics/017.png", "captions-00002.jsonl"),
    ]
    manifest = json.loads(Path("out/_job/manifest.json").read_text())
    assert (manifest["pieces"], manifest["pictures"], manifest["model"]) == (3, 20, "model")
    assert manifest["options"]["generation.num_beams"] == 3


def test_batches_stay_within_a_shard(here: Path, loaded: list[FakeCaptioner]) -> None:
    job()
    assert loaded[0].batches == [3, 3, 1, 3, 3, 2, 3]


def test_a_finished_job_loads_nothing(here: Path, loaded: list[FakeCaptioner]) -> None:
    job()
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}
    report = job()
    assert (report.captioned, report.done, report.failed, report.whole) == (0, 20, 2, True)
    assert len(loaded) == 1
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()} == before


def test_pictures_that_come_and_go(here: Path) -> None:
    job()
    expected = rows()
    Path("out/captions-00001.jsonl").unlink()
    Path("pics/010.png").unlink()
    pictures(Path("pics/later"), 3)
    report = job()
    assert (report.new, report.captioned) == (3, 8)
    found = rows()
    assert found[10] == {**found[10], "image": "pics/010.png", "status": "error", "error": "there is no such file"}
    assert found[:10] + found[11:] == expected[:10] + expected[11:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_beams": 5}, "--num-beams: 3, now 5"),
        ({"shard_size": 4}, "--shard-size: 8, now 4"),
        ({"format": "csv"}, "--format: jsonl, now csv"),
        ({"inputs": ["pics", "more"]}, "inputs: pics, now pics, more"),
        ({"model": "other"}, "model: model, now other"),
    ],
)
def test_another_job_is_refused(here: Path, change: dict[str, Any], said: str) -> None:
    job()
    model_folder(Path("other")).joinpath("model.safetensors").write_bytes(b"other weights")
    pictures(Path("more"), 1)
    with pytest.raises(CaptuneError, match=said) as refused:
        job(**change)
    assert "--restart" in refused.value.hint
    assert len(rows()) == 20
    report = job(**change, restart=True)
    assert report.whole
    assert report.captioned >= 20


def test_a_model_whose_files_changed_is_another(here: Path) -> None:
    job()
    Path("model/config.json").write_text('{"other": 1}')
    with pytest.raises(CaptuneError, match="whose files changed"):
        job()


def test_what_does_not_change_rows_may_differ(here: Path) -> None:
    job()
    Path("out/captions-00001.jsonl").unlink()
    Path("model").rename("moved")
    assert job(model="moved", batch_size=2, workers=2).whole


def test_another_working_folder_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job()
    monkeypatch.chdir("model")
    with pytest.raises(CaptuneError, match="working folder"):
        job("../out", inputs="pics", model="../model")


def test_captions_of_unknown_origin_stay(here: Path) -> None:
    Path("out").mkdir()
    Path("out/captions-00000.jsonl").write_text("{}")
    with pytest.raises(CaptuneError, match="no job that made them"):
        job()
    job("other")
    with pytest.raises(CaptuneError, match="holds a job already"):
        job("other", resume=False)


def test_failed_pictures_are_taken_again(here: Path, loaded: list[FakeCaptioner]) -> None:
    job()
    untouched = Path("out/captions-00001.jsonl").stat().st_mtime_ns
    before = rows()
    Path("pics/003.png").write_bytes(Path("pics/001.png").read_bytes())
    report = job(retry_failed=True)
    assert (report.captioned, report.failed, report.duplicates) == (2, 1, 1)
    after = rows()
    assert after[3]["caption"] == before[1]["caption"]
    assert after[:3] + after[4:] == before[:3] + before[4:]
    assert Path("out/captions-00001.jsonl").stat().st_mtime_ns == untouched
    assert len(Path("out/_job/failures.jsonl").read_text().splitlines()) == 1
    assert [json.loads(line)["image"] for line in Path("out/_job/duplicates.jsonl").read_text().splitlines()] == [
        "pics/003.png"
    ]
    Path("pics/017.png").write_bytes(Path("pics/002.png").read_bytes())
    assert job(retry_failed=True).failed == 0
    assert job(retry_failed=True).captioned == 0
    assert len(loaded) == 3


def test_parts_are_the_whole(here: Path) -> None:
    job("whole")
    first = job(part="1/2")
    assert (first.pictures, first.done, first.shards, first.whole) == (12, 12, 2, False)
    assert not Path("out/_job/report.json").exists()
    second = job(part="2/2")
    assert (second.pictures, second.shards, second.whole) == (8, 1, True)
    for path in Path("whole").rglob("*"):
        if path.is_file() and path.suffix != ".lock" and path.name != MARK:
            found, expected = (Path("out") / path.relative_to("whole")).read_bytes(), path.read_bytes()
            # The digests of what was written stand in the order in which the shards were done.
            assert (
                (sorted(found.split()) == sorted(expected.split())) if path.name == "written" else (found == expected)
            )
    with pytest.raises(UsageError, match="no such part"):
        job(part="3/2")
    with pytest.raises(UsageError, match="all parts"):
        job(part="1/2", restart=True)


@pytest.fixture
def held(here: Path) -> Iterator[None]:
    """Another process is at work on part 1/2 of the job in `out`."""
    code = (
        "from captune.core.stores.local import open_store\n"
        "with open_store('out').lock('_job/part-1-of-2.lock'):\n"
        "    print('held', flush=True)\n"
        "    input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "held\n"
        yield
        other.communicate("\n")


def test_one_part_is_done_by_one_run(here: Path, held: None) -> None:
    for part in ("1/2", "1/1", "2/3"):
        with pytest.raises(CaptuneError, match="Another run is at work"):
            job(part=part)
    with pytest.raises(CaptuneError, match="Another run is at work"):
        job(restart=True)
    assert job(part="2/2").done == 8


def test_a_dry_run_counts_and_leaves_no_trace(here: Path, loaded: list[FakeCaptioner]) -> None:
    report = job(dry_run=True)
    assert (report.pictures, report.shards, report.done) == (20, 3, 0)
    assert not Path("out").exists()
    job(part="2/2")
    assert (report := job(dry_run=True)).done == 8
    assert (report.pictures, report.shards_done) == (20, 1)
    with pytest.raises(CaptuneError, match="--num-beams"):
        job(dry_run=True, num_beams=1)
    assert len(loaded) == 1


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_tables_in_shards(here: Path, format: str) -> None:
    job(format=format)
    Path("pics/003.png").write_bytes(Path("pics/001.png").read_bytes())
    assert job(format=format, retry_failed=True).failed == 1
    shards = sorted(Path("out").glob(f"*.{format}"))
    if format == "parquet":
        found = pq.read_table(shards).to_pylist()
    else:
        import csv

        found = [row for shard in shards for row in csv.DictReader(shard.open(newline=""))]
    assert [row["image"] for row in found] == [f"pics/{number:03}.png" for number in range(20)]
    assert [row["status"] for row in found].count("error") == 1
    assert len(captune.review("out", limit=0).rows) == 20


def test_sidecars(here: Path) -> None:
    job(format="sidecar")
    texts = sorted(path.name for path in Path("out/pics").glob("*.txt"))
    assert texts == [f"{number:03}.txt" for number in range(20) if number not in (3, 17)]
    Path("pics/003.png").write_bytes(Path("pics/001.png").read_bytes())
    job(format="sidecar", retry_failed=True)
    assert Path("out/pics/003.txt").read_text() == "a picture of something that is green\n"


def test_a_folder_that_vanishes_stops_the_job(here: Path) -> None:
    job()
    for number in (1, 2):
        Path(f"out/captions-{number:05}.jsonl").unlink()
    Path("pics").rename("away")
    with pytest.raises(CaptuneError, match="pics cannot be read: No such file"):
        job()
    Path("pics").mkdir()
    with pytest.raises(CaptuneError, match="pics is empty") as gone:
        job()
    assert "Nothing is lost" in gone.value.hint
    assert len(rows()) == 8
    Path("pics").rmdir()
    Path("away").rename("pics")
    assert job().whole
    with pytest.raises(CaptuneError, match="nowhere cannot be read"):
        job("second", inputs="nowhere")
    assert not Path("second/captions-00000.jsonl").exists()


def test_a_folder_that_vanishes_in_the_middle(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = FakeCaptioner.generate

    def leaving(self: FakeCaptioner, *given: Any) -> Any:
        if len(self.batches) == 3:
            Path("pics").rename("away")
        return generate(self, *given)

    pictures(Path("lots"), 200)
    Path("pics").rename("few")
    Path("lots").rename("pics")
    monkeypatch.setattr(FakeCaptioner, "generate", leaving)
    with pytest.raises(CaptuneError, match="pics cannot be read"):
        job()
    assert all(row["status"] == "ok" for row in rows())


def test_nothing_can_be_written(here: Path) -> None:
    Path("file").write_text("")
    with pytest.raises(CaptuneError, match="Cannot look into file/out: Not a directory"):
        job("file/out")
    with pytest.raises(CaptuneError) as refused:
        job("/proc/1/out")
    assert refused.value.code == 1


def test_a_full_disk(here: Path) -> None:
    job("whole")
    code = (
        "import sys, resource; sys.path.insert(0, sys.argv[1]); import jobs, captune; jobs.fake_loading();"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2900, 2900));"
        "captune.caption_job('pics', 'out', model='model', shard_size=16, batch_size=3, workers=1)"
    )
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code, tests], capture_output=True, text=True, timeout=120, check=False)
    assert "DiskFull: Cannot write out/_job/looks-00000.bin: the file is larger than" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2900
    assert job(shard_size=16).whole
    assert rows() == rows("whole")


def test_an_option_that_is_younger_than_a_job_was_at_its_default(here: Path) -> None:
    job()
    path = Path("out/_job/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["options"]["generation.prompt_in_caption"]
    path.write_text(json.dumps(manifest))
    assert job().whole
    with pytest.raises(CaptuneError, match="--prompt-in-caption"):
        job(prompt_in_caption=True)


def test_a_damaged_job_says_so(here: Path) -> None:
    job()
    Path("out/_job/pieces.jsonl").write_text("{}\n")
    with pytest.raises(CaptuneError, match="1 lines instead of 3"):
        job()
    Path("out/_job/manifest.json").write_text("{")
    with pytest.raises(CaptuneError, match="damaged") as damaged:
        job()
    assert "--restart" in damaged.value.hint
    assert job(restart=True).whole


def test_only_files(here: Path) -> None:
    named = [f"pics/{number:03}.png" for number in range(4)]
    job(inputs=named)
    assert job(inputs=[*named, "pics/004.png"]).new == 1
    with pytest.raises(CaptuneError, match="none of these images"):
        job(inputs=["pics/010.png"])


def test_review_reads_a_job(here: Path) -> None:
    Path("pics/019.png").write_bytes(Path("pics/002.png").read_bytes())
    job()
    found = captune.review("out", limit=0, same=0)
    assert found.pictures == 20
    assert found.flags == {"duplicate": 1, "failed": 2}
    assert {row.image: row.flags for row in found.rows}["pics/019.png"] == {"duplicate": "of pics/002.png"}


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are read from /proc")
@pytest.mark.parametrize("format", ["csv", "json", "parquet", "txt"])
def test_a_file_made_of_shards_is_on_the_disk_before_they_go(
    here: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    remove = shutil.rmtree

    def removed(path: str, *rest: Any, **more: Any) -> None:
        events.append(f"remove {path}")
        remove(path, *rest, **more)

    monkeypatch.setattr(os, "fsync", lambda file: events.append(f"sync {os.readlink(f'/proc/self/fd/{file}')}"))
    monkeypatch.setattr(shutil, "rmtree", removed)
    job(f"captions.{format}", format=format)
    gone = next(n for n, event in enumerate(events) if event == f"remove captions.{format}.job")
    before = events[:gone]
    content = next(n for n, event in enumerate(before) if event.startswith(f"sync {here}/.captions.{format}."))
    assert f"sync {here}" in before[content:]
