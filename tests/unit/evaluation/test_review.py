"""Captions read back, review items in order, and a page that nobody's file names can break."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import captune
from captune.captions.provenance import Provenance
from captune.captions.quality import repeated_phrase, review_items
from captune.captions.writers import CaptionRow, open_writer
from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.core.records import Caption
from captune.evaluation.pairing import read_results
from captune.evaluation.review import read_captions, read_duplicates
from captune.jobs.shards import SHARD_FORMATS, shard_name

ROWS = [
    CaptionRow("a.jpg", (Caption("a dog runs", 0.9),), "ok", None, "m"),
    CaptionRow("b.jpg", (), "error", "truncated", "m"),
    CaptionRow("c.jpg", (Caption("a dog and a dog", 0.4), Caption("a cat", 0.3)), "ok", None, "m"),
    CaptionRow("d.jpg", (Caption("", 0.7),), "ok", None, "m"),
    CaptionRow("e.jpg", (Caption("A man, far away.", 0.2),), "ok", None, "m"),
    CaptionRow("f.jpg", (Caption("a man far away", 0.6),), "ok", None, "m"),
]
ORDER = ["b.jpg", "d.jpg", "e.jpg", "c.jpg", "f.jpg", "a.jpg"]


def write(path: Path, format: str, rows: list[CaptionRow] = ROWS) -> Path:
    with open_writer(format, path) as writer:
        for row in rows:
            writer.write(row)
    return path


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_what_a_person_corrected_has_no_flags_of_the_job(format: str, tmp_path: Path) -> None:
    noted = Provenance("model", "m").of([Caption("a dog a dog", 0.1)])
    texts = {"a.jpg": "a dog a dog", "b.jpg": "a brown dog", "c.jpg": "cafe\u0301"}
    rows = [CaptionRow(name, (Caption(text, 0.1),), "ok", None, "", ("cut",), noted) for name, text in texts.items()]
    rows[2] = replace(rows[2], provenance=noted.of(rows[2].captions))  # composed in another way when it is read
    shards = SHARD_FORMATS[format]
    (tmp_path / shard_name(0, 1, format)).write_bytes(shards.encode(rows, True))
    found = {item.image: item for item in captune.review(tmp_path).rows}
    assert {name: (item.written_by, "cut" in item.flags, item.confidence) for name, item in found.items()} == {
        "a.jpg": ("model", True, 0.1),
        "b.jpg": ("person", False, None),
        "c.jpg": ("model", True, 0.1),
    }
    assert found["b.jpg"].to_json()["written_by"] == "person"


@pytest.mark.parametrize("name", ["c.jsonl", "c.json", "c.csv", "c.parquet", "shards"])
def test_what_captune_caption_writes_is_read_back(tmp_path: Path, name: str) -> None:
    format = name.partition(".")[2] or "jsonl"
    found = {row.image: row for row in read_captions(write(tmp_path / name, format))}
    assert [(image, row.captions[:1], row.status, row.error) for image, row in sorted(found.items())] == [
        (row.image, row.captions[:1], row.status, row.error) for row in ROWS
    ]


def captions_elsewhere(folder: Path, kind: str) -> Path:
    """A dog and a cat as other programs write them."""
    folder.mkdir()
    if kind == "sidecars":
        for name in ("a", "b"):
            Image.new("RGB", (8, 8)).save(folder / f"{name}.jpg")
            (folder / f"{name}.txt").write_text({"a": "a dog", "b": "a cat"}[name])
        return folder
    text = {
        "c.csv": "file_name;prediction\na.jpg;a dog\nb.jpg;a cat\n",
        "c.tsv": "a.jpg\ta dog\nb.jpg\ta cat\n",
        "quote.csv": 'image,caption\na.jpg,"a dog\nb.jpg,a cat\n',
        "coco.json": '[{"image_id": "a.jpg", "caption": "a dog"}, {"image_id": "b.jpg", "caption": "a cat"}]',
        "map.json": '{"a.jpg": "a dog", "b.jpg": ["a cat", "a pet"]}',
        "lines.txt": "a dog\na cat\n",
        "utf16.jsonl": '{"img": "a.jpg", "generated": "a dog"}\n{"img": "b.jpg", "generated": "a cat"}\n',
    }[kind]
    (folder / kind).write_bytes(text.encode("utf-16" if kind.startswith("utf16") else "utf-8"))
    return folder / kind


@pytest.mark.parametrize(
    "kind", ["c.csv", "c.tsv", "quote.csv", "coco.json", "map.json", "lines.txt", "utf16.jsonl", "sidecars"]
)
def test_whatever_score_reads_is_looked_through(tmp_path: Path, kind: str) -> None:
    found = captune.review(captions_elsewhere(tmp_path / "there", kind))
    assert [(Path(row.image).name, row.caption.lstrip('"'), row.confidence) for row in found.rows] == [
        ("1" if kind == "lines.txt" else "a.jpg", "a dog", None),
        ("2" if kind == "lines.txt" else "b.jpg", "a cat", None),
    ]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_all_shards_of_a_job_are_read_by_review_and_score(tmp_path: Path, format: str) -> None:
    shards = SHARD_FORMATS[format]
    for number in range(30):
        row = CaptionRow(f"{number}.jpg", (Caption(f"number {number}", 0.5),), "ok", None, "", ("language",))
        (tmp_path / shard_name(number, 30, format)).write_bytes(shards.encode([row]))
    write(tmp_path / "captions-00000.tar.txt", "txt")
    (tmp_path / "_job").mkdir()
    write(tmp_path / "_job" / "failures.jsonl", "jsonl")
    found = read_captions(tmp_path)
    assert [row.captions[0].text for row in found] == [f"number {number}" for number in range(30)]
    assert {(row.captions[0].confidence, row.flags) for row in found} == {(0.5, ("language",))}
    assert len(read_results(str(tmp_path), "captions").texts) == 30


def test_attention_maps_in_a_folder_are_no_captions(tmp_path: Path) -> None:
    write(tmp_path / "c.jsonl", "jsonl")
    (tmp_path / "a.explained.json").write_text(json.dumps({"image": "a.jpg", "caption": "x", "confidence": 1}))
    assert len(read_captions(tmp_path)) == len(ROWS)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", "[1]", "entry 1: expected an object"),
        ("c.jsonl", "\n", "is empty"),
        ("c.parquet", "no parquet", "not a whole Parquet file"),
    ],
)
def test_a_file_of_something_else_says_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CaptuneError, match=said):
        read_captions(tmp_path / name)


def test_what_cannot_be_read_is_listed_first(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"image": "a.jpg", "caption": "x"}\n{"image"\n{"image": "b.jpg", "caption": 3}\n'
    )
    (tmp_path / "c.csv").write_text("image,caption,confidence\na.jpg,x,high\nb.jpg,y,0.5\n")
    for name, listed in (
        ("c.jsonl", [("c.jsonl, line 2", "not valid JSON"), ("c.jsonl, line 3", "'caption' is 3")]),
        ("c.csv", [("a.jpg", "a confidence that is no number: 'high'")]),
    ):
        rows = captune.review(tmp_path / name).rows[:-1]
        assert [row.image for row in rows] == [where for where, _ in listed]
        assert all(reason in row.flags["failed"] for row, (_, reason) in zip(rows, listed, strict=True))


def test_a_job_without_duplicates(tmp_path: Path) -> None:
    (tmp_path / "_job").mkdir()
    (tmp_path / "_job" / "duplicates.jsonl").touch()
    assert read_duplicates(tmp_path) == {}


def test_the_most_doubtful_come_first() -> None:
    found = review_items(ROWS, same=2)
    assert [doubt.image for doubt in found] == ORDER
    flags = {doubt.image: doubt.flags for doubt in found}
    assert flags["b.jpg"] == {"failed": "truncated"}
    assert flags["d.jpg"] == {"empty": "no words"}
    assert flags["c.jpg"] == {"repeats": "a dog"}
    assert flags["e.jpg"] == flags["f.jpg"] == {"same": "on 2 images"}
    assert flags["a.jpg"] == {}
    assert not any("same" in doubt.flags for same in (0, 3) for doubt in review_items(ROWS, same=same))


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("a dog a dog", "a dog"),
        ("a red red car", "red"),
        ("a dog and a dog", "a dog"),
        ("on the left of the sofa on the left of the sofa", "on the left of the sofa"),
        ("a man in a red hat stands by a man in a red hat", "a man in a red hat"),
        ("a man in a hat and a man in a coat", ""),
        ("a dog on the left with a cat on the right", ""),
        ("a boy and a girl", ""),
        ("", ""),
    ],
)
def test_repeated_phrases(text: str, phrase: str) -> None:
    assert repeated_phrase(text) == phrase


def test_a_limit_and_flagged_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", "jsonl")
    assert [row.image for row in captune.review(path, limit=2).rows] == ORDER[:2]
    assert [row.image for row in captune.review(path, limit=0).rows] == ORDER
    flagged = captune.review(path, flagged=True, same=2)
    assert [row.image for row in flagged.rows] == ORDER[:-1]
    assert (flagged.pictures, flagged.flags) == (6, {"empty": 1, "failed": 1, "repeats": 1, "same": 2})


def test_captions_without_a_confidence_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("image,caption\nb.jpg,two\na.jpg,one\n")
    found = captune.review(tmp_path / "c.csv").rows
    assert [(row.image, row.confidence) for row in found] == [("b.jpg", None), ("a.jpg", None)]


def test_the_verb_prints_a_table_or_json_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "c.jsonl", "jsonl"))
    assert run(["review", path, "--limit", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[2].split() == ["-", "b.jpg", "failed:", "truncated"]
    assert "3 of 6 images" in err
    assert run(["review", path, "--json", "--html", str(tmp_path / "p.html")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in told["rows"]] == ORDER
    assert told["rows"][0]["confidence"] is None
    assert (tmp_path / "p.html").is_file()
    assert run(["review", str(tmp_path / "none.jsonl")]) == 1


def test_a_page_escapes_everything_and_carries_its_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    evil = '<script>alert("1")</script>'
    rows = [
        CaptionRow("red.png", (Caption(evil, 0.5),), "ok", None, "m"),
        CaptionRow(f'"onerror="x{evil}.jpg', (), "error", evil, "m"),
    ]
    captions = write(tmp_path / "c.jsonl", "jsonl", rows)
    review = captune.review(captions, html=tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    for html in (page, review._repr_html_()):
        assert "<script" not in html
        assert 'onerror="x' not in html
    assert page.count("data:image/jpeg;base64,") == 1
    assert "http" not in page
