"""Films and cameras on the command line, each verb a process of its own."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from captune.models.blip import Blip
from copies import Copy
from films import drawn, shot, write_film, write_sound
from random_weights import LIVELY
from typed import Typed

pytest.importorskip("av")
WORDS = ("a red circle on the left", "two dogs play in the snow", "a man rides a bike")
LENGTHS = (2.0, 3.0, 2.5)
SHORT = ("--num-beams", "1", "--max-new-tokens", "4", "--quiet")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, three films of which one is whole, and what is no film."""
    folder = tmp_path_factory.mktemp("films")
    torch.manual_seed(0)
    backbone = Blip.tiny(WORDS * 3)
    with torch.no_grad():
        LIVELY["blip"](backbone.model)
    backbone.save(folder / "model")
    frames = [frame for seed, length in enumerate(LENGTHS) for frame in shot(drawn(seed), length)]
    write_film(folder / "good.mp4", frames)
    whole = write_film(folder / "whole.mkv", frames, codec="libx264").read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) * 7 // 10])
    write_sound(folder / "sound.m4a")
    (folder / "page.mp4").write_text("<!DOCTYPE html><html>404</html>")
    return folder


def test_bad_films_are_named_and_stop_nothing(captune: Typed, here: Path) -> None:
    names = ("nowhere.mp4", "sound.m4a", "good.mp4", "cut.mkv", "page.mp4")
    done = captune(
        "video", *names, "--model", "model", "--format", "json", "--no-merge", "--frames", "frames", *SHORT,
        folder=here, code=3,
    )  # fmt: skip
    found = {film["film"]: film for film in json.loads(done.stdout)}
    assert list(found) == list(names)
    assert [film["status"] for film in found.values()] == ["error", "error", "ok", "error", "error"]
    assert [len(film["scenes"]) for film in found.values()] == [0, 0, 3, 2, 0]
    assert found["cut.mkv"]["error"].startswith("truncated")
    assert found["sound.m4a"]["error"] == "sound alone, no images"
    assert all(name in done.stderr for name in names if name != "good.mp4")
    for scene, start in zip(found["good.mp4"]["scenes"], (0, 2, 5), strict=True):
        assert start <= scene["start"] <= start + 0.3
        assert scene["start"] <= scene["time"] <= scene["end"]
        assert 0 < scene["confidence"] < 1
        assert (here / scene["frame"]).is_file()
    # The saved image is the one that was captioned, but for JPEG's losses.
    assert len(list((here / "frames" / "good").iterdir())) == 3
    assert captune("video", "page.mp4", "--model", "model", *SHORT, folder=here, code=1).stdout == ""


def test_subtitles_and_tables(captune: Typed, here: Path) -> None:
    table = captune("video", "good.mp4", "--model", "model", "--no-merge", *SHORT, folder=here).stdout
    assert len(table.splitlines()) == 3
    assert table.startswith("0:00:00.0  0:00:0")
    said = captune("video", "good.mp4", "--model", "model", "--format", "srt", *SHORT, folder=here).stdout
    assert said.startswith("1\n00:00:00,000 --> 00:00:0")
    captune("video", "good.mp4", "--model", "model", "--format", "vtt", "--out", "one.vtt", *SHORT, folder=here)
    assert (here / "one.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n00:00:00.000 --> ")
    many = ("good.mp4", "whole.mkv")
    captune("video", *many, "--model", "model", "--format", "srt", "--out", "subtitles", *SHORT, folder=here)
    assert sorted(path.name for path in (here / "subtitles").glob("*.*t")) == ["good.srt", "whole.srt"]
    wrong = captune("video", *many, "--model", "model", "--format", "srt", *SHORT, folder=here, code=2)
    assert "--out DIR" in wrong.stderr


def test_corrected_subtitles_stay(captune: Typed, here: Path) -> None:
    def watch(*more: str, code: int = 0) -> str:
        return captune(
            "video", "good.mp4", "--model", "model", "--every", "5", *SHORT, *more, folder=here, code=code
        ).stderr

    for out, path in (("mine.srt", "mine.srt"), ("mine/", "mine/good.srt")):
        where, several = ("--format", "srt", "--out", out), out.endswith("/")
        watch(*where)
        watch(*where)  # captune's own are written again
        (here / path).write_text("1\n00:00:00,000 --> 00:00:01,000\nby hand\n", encoding="utf-8")
        assert "--existing replace" in watch(*where, code=0 if several else 1)
        assert "by hand" in (here / path).read_text(encoding="utf-8")
        watch(*where, "--existing", "replace")
        assert "by hand" not in (here / path).read_text(encoding="utf-8")
    captune("video", "gone.mp4", "--model", "model", "--out", "no.txt", *SHORT, folder=here, code=1)
    assert not (here / "no.txt").exists()
    (here / "late.mp4").write_bytes((here / "good.mp4").read_bytes())
    where = ("late.mp4", "--model", "model", "--every", "5", "--format", "json", "--out", "late.json", *SHORT)
    captune("video", *where, folder=here)
    captions = (here / "late.json").read_bytes()
    (here / "late.mp4").write_bytes(b"")
    assert "late.json was kept" in captune("video", *where, folder=here, code=1).stderr
    assert (here / "late.json").read_bytes() == captions
    (here / "late.json").unlink()
    captune("video", *where, folder=here, code=1)
    assert '"status": "error"' in (here / "late.json").read_text(encoding="utf-8")


def test_even_intervals(captune: Typed, here: Path) -> None:
    done = captune(
        "video", "good.mp4", "--model", "model", "--every", "1.5", "--no-merge", "--format", "json", *SHORT,
        folder=here,
    )  # fmt: skip
    starts = [scene["start"] for scene in json.loads(done.stdout)[0]["scenes"]]
    assert starts == pytest.approx([0, 1.5, 3, 4.5, 6], abs=0.1)


def test_a_film_as_a_webcam(captune: Typed, here: Path) -> None:
    pytest.importorskip("cv2")
    done = captune(
        "webcam", "--camera", "good.mp4", "--every", "2", "--count", "3", "--json", "--save", "seen", "--model",
        "model", *SHORT, folder=here,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["seconds"] for row in rows] == pytest.approx([0, 2, 4], abs=0.1)
    assert all({"time", "text", "confidence", "frame"} <= set(row) for row in rows)
    assert len(list((here / "seen").iterdir())) == 3
    lines = captune("webcam", "--camera", "good.mp4", "--model", "model", *SHORT, folder=here).stdout.splitlines()
    assert len(lines) == 2
    assert "There is no camera" in captune("webcam", "--camera", "63", "--model", "model", folder=here, code=1).stderr


def test_ctrl_c_ends_a_webcam_in_order(here: Path, warm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    program = (
        "import itertools, time\n"
        "from captune.video import webcam as c\n"
        "from PIL import Image\n"
        "c.Camera.__init__ = lambda self, source: None\n"
        "c.Camera.__exit__ = lambda self, *e: print('released', flush=True)\n"
        "def images(self, every):\n"
        "    for n in itertools.count():\n"
        "        yield float(n), Image.new('RGB', (40, 40)); time.sleep(0.05)\n"
        "c.Camera.images = images\n"
        "from captune.cli.main import main; main()"
    )
    (tmp_path / "webcam.py").write_text(program)
    monkeypatch.chdir(here)
    running = Copy(warm, ["webcam", "--model", "model", *SHORT], tmp_path / "webcam.py")
    running.until_it_prints()
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 0, running.stderr
    assert running.stdout.splitlines()[-1] == "released"
