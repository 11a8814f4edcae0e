"""The files of a job: shards there and back, names, a store that is whole or absent, what makes two jobs differ."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from captune.captions.provenance import Provenance
from captune.captions.quality import flags_of, language_mismatch
from captune.captions.row import CaptionRow
from captune.core.errors import CaptuneError
from captune.core.files.locks import Locked
from captune.core.records import Caption
from captune.core.stores.local import open_store
from captune.datasets.sources.input_shards import InputShard
from captune.jobs.manifest import Inputs, ShardList
from captune.jobs.shards import SHARD_FORMATS, shard_name, shard_numbers

ROWS = [
    CaptionRow('a, "b".jpg', (Caption('says "hi",\nand\r more', 0.1 + 0.2),), "ok", None, "", ("repeats", "language")),
    CaptionRow("b.jpg", (), "error", "truncated, badly", "", ()),
    CaptionRow("c.jpg", (Caption("one", 0.5), Caption("two", 1e-17)), "ok", None, "", ()),
    CaptionRow("d.jpg", (Caption("", 1.0),), "ok", None, "", ("empty",)),
]


@pytest.mark.parametrize("format", sorted(SHARD_FORMATS))
def test_rows_come_back_from_shards(format: str) -> None:
    shards = SHARD_FORMATS[format]
    data = shards.encode(ROWS)
    assert list(shards.decode(data, "x")) == ROWS
    assert shards.encode(list(shards.decode(data, "x"))) == data
    assert shards.has_failures(data)
    assert not shards.has_failures(shards.encode([ROWS[0], ROWS[2]]))
    assert list(shards.decode(shards.encode([]), "x")) == []


@pytest.mark.parametrize("format", sorted(SHARD_FORMATS))
def test_who_wrote_the_captions_comes_back_from_shards(format: str) -> None:
    base = Provenance("model", "runs/x", "0f", "ab", "2026-03-01", "1.2", "=opus")
    noted = [
        replace(row, provenance=base.of(row.captions, [f"<think>,</think>{each.text}" for each in row.captions]))
        if row.captions
        else row
        for row in ROWS
    ]
    shards = SHARD_FORMATS[format]
    data = shards.encode(noted, True)
    assert list(shards.decode(data, "x")) == noted
    assert shards.encode(list(shards.decode(data, "x")), True) == data
    assert shards.has_failures(data)
    two = noted[2]
    corrected = replace(two, captions=(two.captions[0], Caption("by hand", 0.5)))
    (found,) = shards.decode(shards.encode([corrected], True), "x")
    assert found.provenance is not None
    assert [found.provenance.wrote(each.text) for each in found.captions] == [True, False]
    assert list(shards.decode(shards.encode(ROWS, True), "x")) == ROWS


def test_translations_come_back_from_json_lines() -> None:
    row = CaptionRow("a", (Caption("ein Hund", 0.5, original="a dog"),), "ok", None, "", ())
    shards = SHARD_FORMATS["jsonl"]
    assert next(shards.decode(shards.encode([row]), "x")).captions[0].original == "a dog"


def test_names_that_are_no_text_survive() -> None:
    for shards in SHARD_FORMATS.values():
        (row,) = shards.decode(shards.encode([CaptionRow("x\udc80", (), "error", "gone", "", ())]), "x")
        assert row.image in ("x\udc80", "x\\udc80")


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_a_damaged_shard_says_what_to_do(format: str) -> None:
    with pytest.raises(CaptuneError, match="x is not as captune wrote it") as damaged:
        list(SHARD_FORMATS[format].decode(b'{"image"\n', "x"))
    assert "Delete that shard" in damaged.value.hint


def test_names_of_shards_sort_as_their_numbers() -> None:
    assert shard_name(3, 10, "csv") == "captions-00003.csv"
    assert shard_name(3, 1_000_000, "csv") == "captions-000003.csv"
    names = ["captions-00002.csv", "captions-00010.csv", "captions-00001.jsonl", "captions.csv", "_job/x"]
    assert shard_numbers(names, "csv") == [2, 10]
    assert shard_numbers(names) == [1, 2, 10]


def test_a_store_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path / "deep" / "out"))
    assert store.names() == []
    store.publish("_job/a", b"1")
    store.publish("b", b"2")
    source = tmp_path / "source"
    source.write_bytes(b"3")
    store.publish("c", source)
    assert store.names() == ["_job/a", "b", "c"]
    assert [store.read(name) for name in store.names()] == [b"1", b"2", b"3"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CaptuneError, match="The disk is full"):
        store.publish("b", b"other")
    assert store.read("b") == b"2"
    assert not list(tmp_path.rglob("*.part"))
    store.delete("b")
    store.delete("b")
    with pytest.raises(CaptuneError, match="Cannot read"):
        store.read("b")


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    import socket

    dead, alive = f".a.{socket.gethostname()}-4194305.part", f".a.{socket.gethostname()}-{os.getpid()}.part"
    elsewhere = ".a.other-4194305.part"
    for name in (dead, alive, elsewhere):
        (tmp_path / name).write_text("half")
    store = open_store(str(tmp_path))
    assert store.names() == []
    store.publish("b", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive, elsewhere, "b"])


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    one, other = open_store(str(tmp_path)), open_store(str(tmp_path))
    with one.lock("x"):
        with pytest.raises(Locked), other.lock("x"):
            raise AssertionError("held twice")
        with other.lock("y"):
            pass
    with other.lock("x"):
        pass


def test_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    assert Inputs.of(["a.jpg", "b.PNG"]) == Inputs((), 2, str(tmp_path))
    assert Inputs.of(["/x/a.jpg", "s3://b/c", "hf:d/e"]) == Inputs(("s3://b/c", "hf:d/e"), 1, None)
    assert Inputs.of(["folder.jpg", "*.jpg", "x.tar"]).named == ("folder.jpg", "*.jpg", "x.tar")


def test_what_is_new_in_a_listing() -> None:
    listing = ShardList.of(
        [InputShard("files", "", 0, 2, ("a", "b")), InputShard("tar", "x.tar", 0, 5), InputShard("tar", "x.tar", 9)]
    )
    assert len(listing) == 3
    assert (listing.count_images([0, 1]), listing.count_images()) == (7, None)
    found = [InputShard("files", "", 0, 3, ("b", "c", "d")), InputShard("tar", "x.tar"), InputShard("tar", "y.tar")]
    assert listing.compare(found) == (3, 2)


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        ("a dog runs over green grass in the sun", "en", ""),
        ("a dog runs over green grass in the sun", None, ""),
        ("собака бежит по траве", None, ""),
        ("собака runs по grass", None, "letters are not"),
        ("собака бежит по траве", "en", "letters are not Latin"),
        ("собака бежит по траве", "ru", ""),
        ("ein Hund läuft über grünes Gras", "de", ""),
        ("a dog runs across green grass", "de", "no small word of 'de' among 6"),
        ("hunde laufen", "en", ""),
        ("犬が草の上を走る", "ja", ""),
        ("狗在草地上奔跑", "zh_Hant", ""),
        ("a dog", "zh", "letters are not Cjk"),
        ("개가 달린다", "ko", ""),
        ("una calle de París con el logotipo «Ж»", "es", ""),
        ("12 / 7 !!", "en", "no letters"),
        ("a dog \ufffd runs", "en", "broken characters"),
        ("", "en", ""),
    ],
)
def test_languages(text: str, language: str | None, found: str) -> None:
    assert (found in language_mismatch(text, language)) if found else language_mismatch(text, language) == ""


def test_a_translation_that_changed_nothing() -> None:
    assert flags_of(Caption("a red bus", 0.5, original="a red bus"), "fr") == {"language": "stayed as it was"}
    assert flags_of(Caption("un bus rouge", 0.5, original="a red bus"), "fr") == {}
