"""Every output format is read back with a standard reader, on names and captions that break naive ones."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from captune.captions.writers import WRITERS, CaptionRow, open_writer
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.existing import LEDGER
from captune.core.records import Caption
from captune.core.text import unguarded_row

CONTROL = "bell \x07 and nul \x00"
ODD = [
    "plain.jpg",
    'a,b "quoted".jpg',
    "new\nline\tand tab.jpg",
    "ends ]]> <b>&amp;</b>.jpg",
    "Grüße 犬 🐕.jpg",
    "=cmd|' /C calc'!A0.jpg",
    "carriage\rreturn.jpg",
]


def good(image: str, *texts: str) -> CaptionRow:
    captions = tuple(Caption(text, 0.1 + 0.2 / (n + 1)) for n, text in enumerate(texts))
    return CaptionRow(image, captions, "ok", None, "m")


def bad(image: str, error: str) -> CaptionRow:
    return CaptionRow(image, (), "error", error, "m")


def rows() -> list[CaptionRow]:
    return [
        *(good(name, f"caption of {name}") for name in ODD),
        good("two.jpg", "first, and best", 'second\n"best"'),
        bad("broken.jpg", "not an image, truncated at byte 7"),
    ]


def written(format: str, path: Path, what: list[CaptionRow]) -> Path:
    with open_writer(format, path) as writer:
        for row in what:
            writer.write(row)
    return path


def streamed(format: str, what: list[CaptionRow]) -> str:
    stream = io.StringIO(newline="")
    with open_writer(format, None, stream) as writer:
        for row in what:
            writer.write(row)
    return stream.getvalue()


def cut_off(format: str, path: Path, error: BaseException) -> None:
    with open_writer(format, path) as writer:
        writer.write(good("a", "b"))
        raise error


def read_json(text: str) -> list[CaptionRow]:
    found = []
    for row in json.loads(text):
        listed = row.get("captions") or (
            [{"text": row["caption"], "confidence": row["confidence"]}] if row["caption"] is not None else []
        )
        captions = tuple(Caption(**c) for c in listed)
        found.append(CaptionRow(row["image"], captions, row["status"], row["error"], "m"))
    return found


def read_csv(text: str) -> list[CaptionRow]:
    found: dict[str, CaptionRow] = {}
    for row in map(unguarded_row, csv.DictReader(io.StringIO(text, newline=""))):
        before = found[row["image"]].captions if row["image"] in found else ()
        new = (Caption(row["caption"], float(row["confidence"])),) if row["confidence"] else ()
        found[row["image"]] = CaptionRow(row["image"], before + new, row["status"], row["error"] or None, "m")  # type: ignore[arg-type]
    return list(found.values())


def read_xml(text: str) -> list[CaptionRow]:
    found = []
    for image in ElementTree.fromstring(text.encode()):
        captions = tuple(Caption(c.text or "", float(c.attrib["confidence"])) for c in image.findall("caption"))
        status = image.findtext("status")
        found.append(CaptionRow(image.findtext("image") or "", captions, status, image.findtext("error"), "m"))  # type: ignore[arg-type]
    return found


READERS = {
    "json": read_json,
    "jsonl": lambda text: read_json("[" + ",".join(text.split("\n")[:-1]) + "]"),
    "csv": read_csv,
    "xml": read_xml,
}


@pytest.mark.parametrize("format", READERS)
def test_what_was_written_is_read_back(format: str, tmp_path: Path) -> None:
    assert READERS[format](streamed(format, rows())) == rows()
    path = written(format, tmp_path / f"out.{format}", rows())
    assert path.read_bytes().decode() == streamed(format, rows())


@pytest.mark.parametrize("format", ["json", "jsonl", "csv"])
def test_control_characters_survive(format: str) -> None:
    row = [good(CONTROL, CONTROL)]
    assert READERS[format](streamed(format, row)) == row


def test_xml_with_control_characters_is_well_formed() -> None:
    (row,) = read_xml(streamed("xml", [good(CONTROL, CONTROL)]))
    assert row.captions[0].text == "bell \ufffd and nul \ufffd"


@pytest.mark.parametrize("format", READERS)
def test_no_rows_at_all(format: str) -> None:
    assert READERS[format](streamed(format, [])) == []


def test_every_json_line_has_the_same_first_keys() -> None:
    lines = [json.loads(line) for line in streamed("jsonl", rows()).splitlines()]
    assert all(list(line)[:5] == ["image", "caption", "confidence", "status", "error"] for line in lines)
    assert [("captions" in line) for line in lines] == [False] * 7 + [True, False]
    assert lines[-1] == {
        "image": "broken.jpg",
        "caption": None,
        "confidence": None,
        "status": "error",
        "error": "not an image, truncated at byte 7",
    }


def test_json_lines_are_there_before_the_job_ends() -> None:
    stream = io.StringIO()
    with open_writer("jsonl", None, stream) as writer:
        writer.write(good("a.jpg", "one"))
        assert json.loads(stream.getvalue())["caption"] == "one"


def test_parquet(tmp_path: Path) -> None:
    many = [*rows(), good(CONTROL, "x"), *(good(f"{n}.jpg", str(n)) for n in range(1500))]
    path = written("parquet", tmp_path / "out.parquet", many)
    table = pq.read_table(path)
    assert table.column("image").to_pylist() == [row.image for row in many]
    assert table.column("error").to_pylist() == [row.error for row in many]
    assert table.column("captions").to_pylist()[7] == [
        {"text": c.text, "confidence": c.confidence} for c in many[7].captions
    ]
    assert table.column("caption").to_pylist()[8] is None
    assert pq.ParquetFile(path).num_row_groups == 2


def test_parquet_is_not_printed() -> None:
    with pytest.raises(UsageError, match="cannot be printed") as error:
        open_writer("parquet", None, io.StringIO())
    assert "--out" in error.value.hint


def test_text_has_a_line_for_each_caption() -> None:
    text = streamed("text", [good("a\tb\n.jpg", "one\ntwo", "three"), bad("c.jpg", "too\nbad"), good("d\\n.jpg", "x")])
    assert text == "a\\tb\\n.jpg\tone two\na\\tb\\n.jpg\tthree\nc.jpg\t\ttoo bad\nd\\n.jpg\tx\n"


def test_txt_keeps_step_with_the_pictures() -> None:
    assert streamed("txt", [good("a", "one\r\ntwo", "other"), bad("b", "no"), good("c", "")]) == "one two\n\n\n"


@pytest.mark.parametrize("format", ["text", "json", "csv", "xml"])
def test_after_an_error_there_is_no_file(format: str, tmp_path: Path) -> None:
    path = written(format, tmp_path / f"out.{format}", [good("from", "before")])
    before = path.read_bytes()
    with pytest.raises(ConnectionError, match="gone"):
        cut_off(format, path, ConnectionError("gone"))
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [LEDGER, path.name]


def test_a_parquet_job_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        cut_off("parquet", tmp_path / "out.parquet", KeyError("x"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_gets_captions_dot_suffix(tmp_path: Path) -> None:
    written("csv", tmp_path, rows())
    written("xml", tmp_path / "new", rows())
    assert (tmp_path / "captions.csv").is_file()
    assert (tmp_path / "new" / "captions.xml").is_file()


def test_an_ascii_terminal_gets_escapes() -> None:
    def printed(format: str) -> bytes:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", newline="")
        with open_writer(format, None, stream) as writer:
            writer.write(good("é.jpg", "ein 🐕"))
        return raw.getvalue()

    assert printed("text") == b"\\xe9.jpg\tein \\U0001f415\n"
    assert json.loads(printed("jsonl"))["caption"] == "ein 🐕"
    assert read_xml(printed("xml").decode())[0].captions[0].text == "ein 🐕"


@pytest.mark.parametrize("format", [f for f in WRITERS.targets if f not in ("sidecar", "imagefolder", "tar", "xmp")])
def test_a_file_name_that_is_not_utf8(format: str, tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    path = written(format, tmp_path / f"out.{format}", [good(name, "x")])
    assert path.stat().st_size > 0
    if format == "jsonl":
        assert json.loads(path.read_text())["image"] == name


@pytest.mark.parametrize("place", ["beside", "out"])
def test_sidecars(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        Path(folder).mkdir()
    out = None if place == "beside" else Path("texts")
    with open_writer("sidecar", out) as writer:
        writer.write(good("one/a.jpg", "first\nline", "second"))
        writer.write(good("one/a.png", "another picture"))
        writer.write(good(str(tmp_path / "two" / "a.jpg"), "elsewhere"))
        writer.write(bad("two/b.jpg", "broken"))
    root = out or Path()
    found = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.txt"))}
    assert found == {
        "one/a.png.txt": "another picture\n",
        "one/a.txt": "first line\nsecond\n",
        "two/a.txt": "elsewhere\n",
    }


def test_a_sidecar_needs_a_folder_to_lie_in(tmp_path: Path) -> None:
    with open_writer("sidecar") as writer, pytest.raises(CaptuneError, match="does not lie in a folder"):
        writer.write(good("https://example.org/a.jpg", "x"))


def test_sidecars_of_pictures_outside_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with open_writer("sidecar", "texts") as writer:
        writer.write(good("../away/a.jpg", "x"))
    (found,) = Path("texts").rglob("*.txt")
    assert found == Path("texts") / (tmp_path / "away" / "a.txt").relative_to("/")


def test_an_unknown_format_names_the_known() -> None:
    with pytest.raises(UsageError, match="no output format 'jsonlines'") as error:
        open_writer("jsonlines")
    assert "jsonl" in error.value.hint


def test_an_output_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaptuneError, match="Cannot write"), open_writer("csv", tmp_path / "file" / "out.csv"):
        pytest.fail("opened")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_device_is_written_and_not_replaced(format: str, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("there is no /dev/full here")
    # Through a link, so that a mistake would not cost this machine its device.
    link = tmp_path / "link"
    link.symlink_to(full)
    with pytest.raises(CaptuneError, match="disk is full"), open_writer(format, link) as writer:
        writer.write(good("a", "b"))
    assert full.is_char_device()
    assert link.is_symlink()
