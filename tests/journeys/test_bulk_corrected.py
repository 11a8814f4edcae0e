"""What a person wrote or corrected among the results of a job, on disk and at an address, stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from captune.core.errors import CaptuneError
from jobs import FakeCaptioner, job


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_corrected_shards_are_not_thrown_away_unasked(here: Path, format: str) -> None:
    job(format=format)
    job(format=format, restart=True)
    shard = Path(f"out/captions-00001.{format}")
    shard.write_bytes(shard.read_bytes().replace(b"green", b"by hand"))
    corrected = shard.read_bytes()
    for _ in range(2):
        with pytest.raises(CaptuneError, match=shard.name) as refused:
            job(format=format, restart=True)
        assert "--existing replace" in refused.value.hint
        assert shard.read_bytes() == corrected
        job(format=format, retry_failed=True)  # the rest of its rows stay, and are known as a person's
        corrected = shard.read_bytes()
        assert b"by hand" in corrected
    job(format=format, restart=True, existing="replace")
    assert b"by hand" not in shard.read_bytes()


def test_tars_of_a_person_stay(here: Path, loaded: list[FakeCaptioner]) -> None:
    theirs = Path("out/captions-00001.tar")
    theirs.parent.mkdir()
    theirs.write_bytes(b"by hand")
    with pytest.raises(CaptuneError, match=theirs.name) as refused:
        job(format="tar")
    assert "--existing replace" in refused.value.hint
    assert theirs.read_bytes() == b"by hand"
    assert not loaded
    job(format="tar", existing="replace")
    assert theirs.read_bytes() != b"by hand"
    job(format="tar", restart=True)  # captune's own


@pytest.mark.parametrize("format", ["jsonl", "tar"])
def test_what_a_person_corrected_at_an_address_stays(here: Path, format: str) -> None:
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    files, out = MemoryFileSystem(), f"memory://{here.name}/{format}"
    name = f"/{here.name}/{format}/captions-00001.{format}"
    job(out=out, format=format)
    job(out=out, format=format, restart=True)  # captune's own
    files.pipe_file(name, files.cat_file(name).replace(b"green", b"GREEN"))
    corrected = files.cat_file(name)
    with pytest.raises(CaptuneError, match="captions-00001") as refused:
        job(out=out, format=format, restart=True)
    assert "--existing replace" in refused.value.hint
    assert files.cat_file(name) == corrected
    job(out=out, format=format, restart=True, existing="replace")
    assert b"GREEN" not in files.cat_file(name)
    job(out=out, format=format, restart=True)


def test_corrected_sidecars_outlive_a_new_start(here: Path) -> None:
    job(format="sidecar")
    corrected = [Path(f"out/pics/{number:03}.txt") for number in (0, 5)]
    for path in corrected:
        path.write_text("by hand\n")
    for restart in (False, True):
        report = job(format="sidecar", restart=restart)
        assert report.preserved == (2 if restart else 0)  # a finished job does nothing
        assert [path.read_text() for path in corrected] == ["by hand\n"] * 2
    job(format="sidecar", existing="append")
    assert corrected[0].read_text().splitlines()[0] == "by hand"
    assert len(corrected[0].read_text().splitlines()) == 2
    job(format="sidecar", existing="replace")
    assert not any("by hand" in path.read_text() for path in corrected)


def test_corrected_rows_of_a_file_are_in_it_again(here: Path, loaded: list[FakeCaptioner]) -> None:
    job("captions.csv", format="csv")
    first = Path("captions.csv").read_text()
    Path("captions.csv").write_text(
        first.replace("pics/001.png,a picture of something that is green", "pics/001.png,grass")
    )
    assert job("captions.csv", format="csv").preserved == 1
    again = Path("captions.csv").read_text()
    assert "pics/001.png,grass," in again
    assert len(again.splitlines()) == len(first.splitlines())
    Path("captions.csv").write_text("item;price\napple;3\n")
    before = len(loaded)
    with pytest.raises(CaptuneError, match="holds more than captune wrote"):
        job("captions.csv", format="csv")
    assert len(loaded) == before  # said before the work
    assert not Path("captions.csv.job").exists()
    job("captions.csv", format="csv", existing="replace")
    assert Path("captions.csv").read_text() == first
