"""What captune writes for spreadsheets, terminals, browsers and players holds no commands of strangers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from captune.captions.row import CaptionRow
from captune.captions.writers import open_writer
from captune.cli.progress import TerminalProgress
from captune.cli.terminal import note, out_json, out_table, print_line, show_error
from captune.core.records import Caption
from captune.core.text import guarded, unguarded
from captune.datasets.formats import read_rows
from captune.datasets.prepared import write_table
from captune.evaluation.review import read_captions
from captune.jobs.shards import SHARD_FORMATS
from captune.video.subtitles import FilmCaptions, SceneCaption, as_srt, as_vtt

FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1", "\uff1d1+1", "'=1", "''-1",
    "- a dog, and \"a cat\"", "=HYPERLINK(\"http://x\",\"y\")",
]  # fmt: skip
TEXTS = ["a dog", "'tis a dog", "a = b", " -1", "''", "", "3-1", "’=1"]
# Clear the screen, a title, a command in one character, a turned name, backspaces.
NASTY = "a\x1b[2J\x1b]0;x\x07\x9b2J\u202egpj.exe\x08\x7f\u2066.jpg"
COMMANDS = "\x1b\x07\x9b\u202e\x08\x7f\u2066"


def row(image: str, *captions: str) -> CaptionRow:
    return CaptionRow(image, tuple(Caption(text, 0.5) for text in captions), "ok", None, "m")


@pytest.mark.parametrize("text", [*FORMULAS, *TEXTS])
def test_a_cell_gives_back_its_text_and_runs_nothing(text: str) -> None:
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(tuple("=+-@\t\r\uff1d"))
    assert (guarded(text) == text) == (text in TEXTS)


def told(rows: Iterable[CaptionRow]) -> list[tuple[str, list[str], str | None]]:
    return [(one.image, [caption.text for caption in one.captions], one.error) for one in rows]


def test_csv_of_captions_has_no_formulas_and_is_read_back(tmp_path: Path) -> None:
    rows = [row(f"{text}.jpg", text) for text in (*FORMULAS, *TEXTS[:-3])]
    rows.append(CaptionRow("=x.jpg", (), "error", "=1+1", "m"))
    shards = SHARD_FORMATS["csv"]
    assert told(shards.decode(shards.encode(rows), "x")) == told(rows)
    rows = [one for one in rows if one.image == one.image.strip()]  # other readers drop spaces around names
    with open_writer("csv", tmp_path / "a.csv") as writer:
        for one in rows:
            writer.write(one)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\uff1d"))]
    assert "0.5" in cells
    assert told(read_captions(tmp_path / "a.csv")) == told(rows)


def test_tables_of_prepare_have_no_formulas_and_foreign_ones_keep_their_apostrophes(tmp_path: Path) -> None:
    write_table(tmp_path / "train.csv", ("image_path", "caption"), [("@a.jpg", "=1+1"), ("b.jpg", "'=' on a wall")])
    text = (tmp_path / "train.csv").read_text()
    assert "'@a.jpg,'=1+1" in text
    assert [one.captions for one in read_rows(tmp_path / "train.csv", [])[1]] == [["'=1+1"], ["''=' on a wall"]]
    (tmp_path / "splits.json").write_text("{}")  # beside which captune wrote it
    assert [one.captions for one in read_rows(tmp_path / "train.csv", [])[1]] == [["=1+1"], ["'=' on a wall"]]
    (tmp_path / "foreign.csv").write_text("image,caption\na.jpg,'=' on a wall\n")
    assert [one.captions for one in read_rows(tmp_path / "foreign.csv", [])[1]] == [["'=' on a wall"]]


def test_what_is_printed_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_error(NASTY, NASTY)
    note(NASTY)
    out_table("t", ("picture",), [(NASTY,)])
    out_json({"picture": NASTY})
    screen = io.StringIO()
    progress = TerminalProgress(stream=screen)
    progress.info(NASTY)
    progress.warn(NASTY)
    with progress.task(NASTY):
        pass
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, screen.getvalue()):
        assert text
        assert not set(text) & set(COMMANDS)
    assert json.loads(printed.out[printed.out.index("{") :]) == {"picture": NASTY}
    assert "a\\x1b[2J" in printed.err


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("format", ["text", "txt", "csv", "json", "jsonl", "xml"])
def test_captions_on_a_terminal_command_nothing(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    with open_writer(format, None, screen) as writer:
        writer.write(row(NASTY, f"a dog {NASTY}"))
        writer.write(CaptionRow(NASTY, (), "error", NASTY, "m"))
    assert not set(screen.getvalue()) & set(COMMANDS)
    monkeypatch.setattr("sys.stdout", screen)
    print_line(NASTY)
    assert not set(screen.getvalue()) & set(COMMANDS)


def test_names_in_files_come_back_as_they_were(tmp_path: Path) -> None:
    for format in ("text", "jsonl", "json"):
        path = tmp_path / f"a.{format}"
        for _ in range(2):  # the second time the file that stands is read and joined
            with open_writer(format, path) as writer:
                writer.write(row(NASTY, "a dog"))
        text = path.read_text("utf-8")
        assert not set(text) & set("\x1b\x07\x9b\x08\x7f")
        assert text.count("a dog") == 1
    assert read_captions(tmp_path / "a.jsonl")[0].image == NASTY


def test_xml_and_subtitles_stay_what_they_are(tmp_path: Path) -> None:
    nasty = "a\x00\x1b\ufffe <!ENTITY x SYSTEM 'file:///etc/passwd'> ]]> & --> \n\n2\n00:00 --> 00:01\n<script>"
    with open_writer("xml", tmp_path / "a.xml") as writer:
        writer.write(row(nasty, nasty))
    (image,) = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert [child.tag for child in image] == ["image", "status", "caption"]
    scenes = tuple(SceneCaption(n, n + 1.0, n, (Caption(text, 0.5),)) for n, text in enumerate((nasty, "a dog")))
    films = [FilmCaptions("a.mp4", scenes, 2.0, "ok", None, "m")]
    for text in (as_srt(films), as_vtt(films)):
        assert text.count("-->") == 2
        assert "<" not in text
        assert not set(text) & set("\x00\x1b")
        assert len([block for block in text.strip().split("\n\n") if "-->" in block]) == 2
