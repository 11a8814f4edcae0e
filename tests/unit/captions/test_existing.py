"""A person's words where captune writes stay unless an option says otherwise; captune's own are refreshed."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captune.captions.row import row_of
from captune.captions.writers import CaptionRow, open_writer
from captune.captions.writers.writer import row_reader
from captune.core.errors import CaptuneError
from captune.core.files.existing import LEDGER, Ledger, Mode, digest
from captune.core.records import Caption
from captune.datasets.formats import read_source


def row(image: str, *texts: str) -> CaptionRow:
    return CaptionRow(image, tuple(Caption(text, 0.5) for text in texts), "ok", None, "m")


def write(format: str, out: Any, rows: list[CaptionRow], existing: Mode = "keep") -> list[str]:
    with open_writer(format, out, existing=existing) as writer:
        for each in rows:
            writer.write(each)
    notes: list[str] = getattr(writer, "notes", [])
    return notes


def sidecars(folder: Path, captions: dict[str, str], existing: Mode = "keep") -> list[str]:
    return write(
        "sidecar", None, [row(str(folder / name), *said.split("|")) for name, said in captions.items()], existing
    )


HAND = [
    b"by hand",
    b"by hand\r\nzwei\r\n",
    b"\xef\xbb\xbfby hand\n",
    "von Hand: Grüße 犬\n".encode("utf-16"),
    "von Hand: Grüße\n".encode("latin-1"),
    b"\xff\xfe\0\0\0",
    b"\n\nby hand\n\n\n",
]


@pytest.mark.parametrize("hand", HAND)
def test_a_hand_written_sidecar_stays_and_the_others_are_done(hand: bytes, tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_bytes(hand)
    captions = {f"{number}.jpg": f"image {number}" for number in range(5)}
    for _ in range(2):
        (note,) = sidecars(tmp_path, captions)
        assert note.startswith("Kept as they are: 1 caption that captune")
        assert (tmp_path / "1.txt").read_bytes() == hand
        assert [(tmp_path / f"{number}.txt").read_text() for number in (0, 2, 3, 4)] == [
            f"image {number}\n" for number in (0, 2, 3, 4)
        ]


@pytest.mark.parametrize("empty", [b"", b" \r\n\n", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_a_sidecar_without_words_is_written(empty: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(empty)
    assert sidecars(tmp_path, {"a.jpg": "a dog"}) == []
    assert (tmp_path / "a.txt").read_bytes() == b"a dog\n"


@pytest.mark.parametrize("hand", [hand for hand in HAND if b"\0\0" not in hand])
@pytest.mark.parametrize("mode", ["append", "prepend"])
def test_captions_are_joined_with_words_once(mode: Mode, hand: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(hand)
    encoding = {HAND[3]: "utf-16", HAND[4]: "latin-1"}.get(hand, "utf-8-sig")
    words = [line for line in hand.decode(encoding).splitlines() if line.strip()]
    for said in ("a dog", "a dog", "a cat|a lion", "a dog"):
        assert sidecars(tmp_path, {"a.jpg": said}, mode) == []
        lines = [line for line in path.read_bytes().decode(encoding).splitlines() if line.strip()]
        assert lines == ([*words, *said.split("|")] if mode == "append" else [*said.split("|"), *words])
    before = path.read_bytes()
    assert len(sidecars(tmp_path, {"a.jpg": "a horse"})) == 1
    assert path.read_bytes() == before
    assert sidecars(tmp_path, {"a.jpg": "a horse"}, "replace") == []
    assert path.read_bytes() == b"a horse\n"


def test_captunes_own_sidecars_are_refreshed_and_corrected_ones_stay(tmp_path: Path) -> None:
    images = [f"{number}.jpg" for number in range(6)]
    sidecars(tmp_path, {name: f"first {name}" for name in images})
    for number in (0, 2, 4):
        (tmp_path / f"{number}.txt").write_text(f"corrected {number}\n")
    (tmp_path / "1.txt").write_bytes(b"first 1.jpg\r\n")  # an editor's line breaks are no correction
    (note,) = sidecars(tmp_path, {name: f"second {name}" for name in images})
    assert note.startswith("Kept as they are: 3 captions")
    found = [(tmp_path / f"{number}.txt").read_text() for number in range(6)]
    assert found == [
        f"corrected {number}\n" if number in (0, 2, 4) else f"second {number}.jpg\n" for number in range(6)
    ]


LONG = "A dog runs.\nIt is brown.\n\n  - grass\n  - a fence"


def captions_of(folder: Path) -> list[str]:
    """What `captune prepare` reads of `a.jpg`."""
    (folder / "a.jpg").write_bytes(b"")
    (record,) = read_source(folder, "sidecar")[1]
    return list(record.references)


@pytest.mark.parametrize("suffix", [".txt", ".caption"])
def test_a_caption_of_several_paragraphs_is_one(suffix: str, tmp_path: Path) -> None:
    def write(*texts: str, mode: Mode = "keep") -> list[str]:
        with open_writer("sidecar", existing=mode, sidecar_suffix=suffix) as writer:
            writer.write(row(str(tmp_path / "a.jpg"), *texts))
        return list(getattr(writer, "notes", []))

    path = tmp_path / f"a{suffix}"
    for text, file, read in (
        (LONG, LONG + "\n", "A dog runs. It is brown. - grass - a fence"),
        ("A dog.\r\nA cat.", "A dog.\n\nA cat.\n", "A dog. A cat."),  # else these would be two captions
        (" \n A  dog\t\x07\n", "A dog \ufffd\n", "A dog \ufffd"),
        (LONG, LONG + "\n", "A dog runs. It is brown. - grass - a fence"),
    ):
        assert write(text) == []
        assert path.read_text() == file
        assert captions_of(tmp_path) == [read]
    write(LONG, "second")
    assert captions_of(tmp_path) == ["A dog runs. It is brown. - grass - a fence", "second"]
    write(LONG)
    corrected = LONG.replace("brown", "red") + "\n"  # the other paragraph stays, whatever captune wrote
    path.write_text(corrected)
    assert len(write("third")) == 1
    assert path.read_text() == corrected
    for text, added in (("third", "third"), ("fourth\nfifth", "fourth\n\nfifth"), ("third", "third")):
        assert write(text, mode="append") == []
        assert path.read_text() == f"{corrected}\n{added}\n"
        assert len(captions_of(tmp_path)) == 1
    write("sixth", mode="prepend")
    assert path.read_text() == f"sixth\n\n{corrected}"
    assert len(write("seventh")) == 1
    assert path.read_text() == f"sixth\n\n{corrected}"


def test_a_sentence_of_captunes_that_a_person_continued_is_a_persons(tmp_path: Path) -> None:
    sidecars(tmp_path, {"a.jpg": "A dog."})
    (tmp_path / "a.txt").write_text("A dog.\n\nIt is brown.\n")
    assert len(sidecars(tmp_path, {"a.jpg": "A cat."})) == 1
    sidecars(tmp_path, {"a.jpg": "A cat."}, "append")
    assert (tmp_path / "a.txt").read_text() == "A dog.\n\nIt is brown.\n\nA cat.\n"


def test_what_an_earlier_version_put_below_a_persons_words_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("by hand\n\nzwei\na dog\n")
    Ledger(tmp_path / LEDGER).add([digest("a.txt", "a dog")])
    sidecars(tmp_path, {"a.jpg": "a cat"}, "append")
    assert (tmp_path / "a.txt").read_text() == "by hand\n\nzwei\n\na cat\n"


def test_a_stop_between_digest_and_file_loses_nothing(tmp_path: Path) -> None:
    sidecars(tmp_path, {"a.jpg": "first"})
    Ledger(tmp_path / LEDGER).add([digest("a.txt", "second")])  # and killed
    with open(tmp_path / LEDGER, "a") as file:
        file.write("0123")  # or in the middle of a line
    assert sidecars(tmp_path, {"a.jpg": "third"}) == []
    assert sidecars(tmp_path, {"a.jpg": "fourth"}) == []
    assert (tmp_path / "a.txt").read_text() == "fourth\n"


def test_a_lost_ledger_makes_everything_a_persons(tmp_path: Path) -> None:
    sidecars(tmp_path, {"a.jpg": "first"})
    (tmp_path / LEDGER).unlink()
    assert sidecars(tmp_path, {"a.jpg": "first"}) == []
    assert len(sidecars(tmp_path, {"a.jpg": "second"})) == 1
    assert (tmp_path / "a.txt").read_text() == "first\n"


def correct(path: Path, image: str, text: str) -> None:
    """Change the caption of an image in a file, as a person does with a program for such files."""
    if path.suffix == ".csv":
        rows = list(csv.DictReader(path.open(encoding="utf-8-sig", newline="")))
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({**each, "caption": text if each["image"] == image else each["caption"]} for each in rows)
    elif path.suffix == ".parquet":
        table = pq.read_table(path).to_pylist()
        pq.write_table(
            pa.Table.from_pylist([{**each, "caption": text} if each["image"] == image else each for each in table]),
            path,
        )
    elif path.suffix == ".txt":
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name}\t{text if name == image else said}\n" for name, said in lines))
    else:
        whole = path.read_text()
        rows = json.loads(whole) if path.suffix == ".json" else [json.loads(line) for line in whole.splitlines()]
        for each in rows:
            if each["image"] == image:
                each["caption"] = text
        path.write_text(
            json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(each) + "\n" for each in rows)
        )


def read(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if path.suffix == ".txt":
        for line in path.read_text().splitlines():
            found.setdefault(line.split("\t")[0], []).append(line.split("\t")[1])
        return found
    values = row_reader(path.suffix[1:])
    assert values is not None
    for value in values(path):
        each = row_of(value, path.name)
        found.setdefault(each.image, []).extend(caption.text for caption in each.captions)
    return found


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "parquet", "text"])
def test_a_corrected_row_stays_and_the_others_are_refreshed(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"captions.{'txt' if format == 'text' else format}"
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]

    def again(said: str, mode: Mode = "keep", images: list[str] = names) -> list[str]:
        return write(format, path, [row(name, f"{said} {name}") for name in images], mode)

    assert again("first") == again("second") == []
    correct(path, "b.jpg", "by hand, corrected")
    correct(path, "d.jpg", "also by hand")
    (note,) = again("third", images=names[:3])
    assert note.startswith(
        "Kept as they are: 2 captions"
    )  # d.jpg did not come, and what a person wrote about it is still there
    for _ in range(2):
        assert read(path) == {
            "a.jpg": ["third a.jpg"],
            "b.jpg": ["by hand, corrected"],
            "c.jpg": ["third c.jpg"],
            "d.jpg": ["also by hand"],
        }
        again("third", images=names[:3])
    for said in ("fourth", "fifth", "fifth"):
        again(said, "append")
        assert read(path)["b.jpg"] == ["by hand, corrected", f"{said} b.jpg"]
        assert read(path)["a.jpg"] == [f"{said} a.jpg"]
    again("sixth", "prepend")
    assert read(path)["b.jpg"] == ["sixth b.jpg", "by hand, corrected"]
    assert again("seventh", "replace") == []
    assert read(path) == {name: [f"seventh {name}"] for name in names}


def test_a_file_from_elsewhere_is_joined_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\na.jpg,by somebody\nz.jpg,by somebody else\n")
    assert len(write("csv", path, [row("a.jpg", "a dog"), row("b.jpg", "a cat")])) == 1
    assert read(path) == {"a.jpg": ["by somebody"], "b.jpg": ["a cat"], "z.jpg": ["by somebody else"]}
    assert "nan" not in path.read_text()
    for name, text in {
        "columns.csv": "image,caption,photographer\na.jpg,x,Ann\n",
        "prices.csv": "item;price\napple;3\n",
        "header.csv": "item;price\n",
        "words.csv": "notes about the holiday",
        "broken.json": "[{",
        "other.xml": "<captions/>",
        "lines.txt": "a line\n",
    }.items():
        path = tmp_path / name
        path.write_text(text)
        format = "txt" if name == "lines.txt" else path.suffix[1:]
        with pytest.raises(CaptuneError, match="holds more than captune wrote") as error:
            write(format, path, [row("a.jpg", "a dog")])
        assert "--existing replace" in error.value.hint
        assert path.read_text() == text
        write(format, path, [row("a.jpg", "a dog")], "replace")
        assert "a dog" in path.read_text()
        assert write(format, path, [row("a.jpg", "another dog")]) == []
        assert "another dog" in path.read_text()


def test_rows_corrected_in_other_programs_are_all_joined(tmp_path: Path) -> None:
    for name, text in {
        "semicolons.csv": "image;caption\na.jpg;by hand\nb.jpg;also, by hand\n",
        "quote.csv": 'image,caption\na.jpg,"by hand\nb.jpg,also by hand\n',
        "utf16.csv": "\ufeffimage\tcaption\na.jpg\tby hand\nb.jpg\talso by hand\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(text.encode("utf-16-le" if name.startswith("utf16") else "utf-8"))
        write("csv", path, [row("a.jpg", "a dog"), row("c.jpg", "a cat")])
        assert [*read(path)] == ["a.jpg", "c.jpg", "b.jpg"]
        assert "by hand" in read(path)["a.jpg"][0]


def test_a_file_without_rows_is_no_obstacle(tmp_path: Path) -> None:
    for name, text in {"a.csv": "image,caption\n", "b.json": "[\n]\n", "c.jsonl": "\n", "d.csv": "\ufeff"}.items():
        (tmp_path / name).write_text(text)
        assert write(name.partition(".")[2], tmp_path / name, [row("a.jpg", "a dog")]) == []
        assert "a dog" in (tmp_path / name).read_text()


def test_words_are_kept_where_the_image_failed(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"image": "a.jpg", "caption": "by hand"}\n')
    for mode in ("keep", "append", "prepend"):
        write("jsonl", path, [CaptionRow("a.jpg", (), "error", "damaged", "m")], mode)  # type: ignore[arg-type]
        assert json.loads(path.read_text())["caption"] == "by hand"
        assert json.loads(path.read_text())["confidence"] is None


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_a_caption_that_a_person_gives_a_failed_image_stays(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"captions.{format}"
    made = [row("a.jpg", "a dog"), CaptionRow("b.jpg", (), "error", "damaged", "m")]
    write(format, path, made)
    correct(path, "b.jpg", "by hand")
    for _ in range(2):
        (note,) = write(format, path, made)
        assert note.startswith("Kept as they are: 1 caption that")
        assert read(path) == {"a.jpg": ["a dog"], "b.jpg": ["by hand"]}


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_name_that_is_no_utf8_is_one_row_each_time(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"captions.{format}"
    name = "bad\udcff.jpg"
    for said in ("first", "second"):
        write(format, path, [row(name, said), row("b.jpg", said)])
        correct(path, "b.jpg", "by hand")
    write(format, path, [row(name, "third"), row("b.jpg", "third")], "append")
    assert list(read(path).values()) == [["third"], ["by hand", "third"]]


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Sets how many bytes a file of this process may have, as a disk does that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "format", ["csv", "json", "jsonl", "parquet", "text", "txt", "xml", "sidecar", "kohya", "xmp", "tar"]
)
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    format: str, small_files: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = [f"{number}.png" for number in range(40)]
    for number, name in enumerate(images):
        Image.new("RGB", (8 + number, 8)).save(name)
    rows = [row(name, f"{name}, a caption " * 3) for name in images]

    def files(folder: str) -> dict[str, bytes]:
        return {str(each.relative_to(folder)): each.read_bytes() for each in Path(folder).rglob("*") if each.is_file()}

    write(format, "whole", rows)
    for most in (0, 60, 600):
        small_files(most)
        with pytest.raises(CaptuneError, match=r"annot write .* free"):
            write(format, f"out{most}", rows)
        small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        left = files(f"out{most}")
        assert not [name for name in left if name.endswith(".part")]
        write(format, f"out{most}", rows)
        assert {name: data for name, data in files(f"out{most}").items() if LEDGER not in name} == {
            name: data for name, data in files("whole").items() if LEDGER not in name
        }
