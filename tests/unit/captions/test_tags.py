"""Keywords: a vocabulary, what captions mention of it, and files of keywords in which a person's stay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captune.captions.tags.labels import Label, read_labels
from captune.captions.tags.mentions import MentionFinder, list_in
from captune.captions.tags.row import Keyword, TagRow
from captune.captions.tags.writers import open_tag_writer
from captune.captions.writers import CaptionRow, open_writer
from captune.cli.main import run
from captune.core.errors import CaptuneError, UsageError
from captune.core.files.existing import Mode
from captune.core.records import Caption
from captune.images.metadata.fields import read_fields
from captune.images.metadata.files import existing_keywords

LABELS = "# mine\na photo of a {label}\ndog, puppy\nhot dog\nBeach, sea side\nT-shirt\nknife\nbus\ndog, hound\nÉcole\n"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text(LABELS, encoding="utf-8")
    return path


def test_a_label_file(labels: Path) -> None:
    read = read_labels(str(labels))
    assert read.labels[0] == Label("dog", ("dog", "puppy", "hound"))
    assert [label.keyword for label in read.labels] == ["dog", "hot dog", "Beach", "T-shirt", "knife", "bus", "École"]
    assert read.prompts("puppy") == ["a photo of a puppy"]
    labels.write_text("dog\n{label}, seen from above\nan {label}\n")
    assert read_labels(str(labels)).prompts("ox") == ["ox, seen from above", "an ox"]
    for text, message in ((", puppy\n", "line 1"), ("# nothing\n\n", "no labels")):
        labels.write_text(text)
        with pytest.raises(CaptuneError, match=message):
            read_labels(str(labels))


def test_labels_that_a_caption_mentions(labels: Path) -> None:
    finder = MentionFinder(read_labels(str(labels)).labels)
    for caption, expected in {
        "Two DOGS and a puppy on the beaches.": ["dog", "Beach"],
        "a man eats a hot dog": ["hot dog"],
        "hot dogs for the dog's birthday": ["hot dog", "dog"],
        "the sea-side, without a dog": ["Beach"],
        "no dogs, but knives in buses": ["knife", "bus"],
        "a t shirt at an école": ["T-shirt", "École"],
        "a dogged busy bodyguard": [],
        "": [],
    }.items():
        assert finder.find(caption) == expected


def test_a_caption_that_is_a_list() -> None:
    assert list_in("dog, Beach; blue sky,\n- dog, waves.") == ["dog", "Beach", "blue sky", "waves"]
    for text in ("A dog runs along the beach, wet", " , ."):
        with pytest.raises(CaptuneError, match="no list of keywords"):
            list_in(text)


def row(image: object, *keywords: str) -> TagRow:
    return TagRow(str(image), tuple(Keyword(each, 0.75) for each in keywords))


def table(format: str, *rows: TagRow) -> str:
    stream = io.StringIO()
    with open_tag_writer(format, None, stream) as writer:
        for each in rows:
            writer.write(each)
    return stream.getvalue()


def test_tables() -> None:
    rows = [row("a.jpg", "dog", "=sum(1)"), row("b.jpg"), TagRow("c.jpg", (), "error", "damaged")]
    assert table("text", *rows) == "a.jpg\tdog, =sum(1)\nb.jpg\t\nc.jpg\t\tdamaged\n"
    read = json.loads(table("json", *rows))
    assert read == [json.loads(line) for line in table("jsonl", *rows).splitlines()]
    assert read[0] == {
        "image": "a.jpg", "keywords": ["dog", "=sum(1)"], "probabilities": [0.75, 0.75], "status": "ok", "error": None,
    }  # fmt: skip
    cells = list(csv.DictReader(io.StringIO(table("csv", *rows))))
    assert [(each["image"], each["keyword"], each["probability"], each["error"]) for each in cells] == [
        ("a.jpg", "dog", "0.75", ""), ("a.jpg", "'=sum(1)", "0.75", ""), ("b.jpg", "", "", ""),
        ("c.jpg", "", "", "damaged"),
    ]  # fmt: skip
    assert table("json") == "[\n]\n"


def test_a_table_that_a_person_changed_stays(tmp_path: Path) -> None:
    out = tmp_path / "tags.csv"
    for _ in range(2):
        with open_tag_writer("csv", str(out), io.StringIO()) as writer:
            writer.write(row("a.jpg", "dog"))
    out.write_text(out.read_text() + "mine\n")
    with pytest.raises(CaptuneError, match="was changed since"):
        open_tag_writer("csv", str(out), io.StringIO())
    with pytest.raises(UsageError, match="on this machine"):
        open_tag_writer("csv", "s3://bucket/tags.csv", io.StringIO())


Sidecar = Callable[..., str]


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    """What stands beside a photo after keywords were written."""

    def write(*keywords: str, mode: Mode = "append") -> str:
        with open_tag_writer("sidecar", None, io.StringIO(), existing=mode) as writer:
            writer.write(row(tmp_path / "photo.jpg", *keywords))
        path = tmp_path / "photo.txt"
        return path.read_bytes().decode("utf-8") if path.exists() else "-"

    return write


def test_sidecars_have_captunes_keywords_of_now(sidecar: Sidecar) -> None:
    assert sidecar() == "-"
    assert sidecar("dog", "Dog", "sea") == "dog, sea\n"
    assert sidecar("sea", "sand") == "sea, sand\n"
    assert sidecar() == ""


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("append", "mytrigger,Dog , sea\r\n"),
        ("prepend", "sea, mytrigger,Dog\r\n"),
        ("keep", "mytrigger,Dog \r\n"),
        ("replace", "dog, sea\n"),
    ],
)
def test_a_persons_keywords_in_a_sidecar(sidecar: Sidecar, tmp_path: Path, mode: Mode, expected: str) -> None:
    (tmp_path / "photo.txt").write_bytes(b"mytrigger,Dog \r\n")
    assert sidecar("dog", "sea", mode=mode) == expected.replace("Dog ,", "Dog,")
    if mode == "append":
        assert sidecar("sand") == "mytrigger,Dog, sand\r\n", "captune's are those of now"


def test_captions_in_a_sidecar_stay(sidecar: Sidecar, tmp_path: Path) -> None:
    image = str(tmp_path / "photo.jpg")
    with open_writer("sidecar") as writer:
        writer.write(CaptionRow(image, (Caption("a dog, wet", 0.5), Caption("a cat", 0.4)), "ok", None, "m"))
    assert sidecar("sea", "wet") == "a dog, wet\na cat\nsea\n"
    assert sidecar("sand") == "a dog, wet\na cat\nsand\n"
    assert sidecar("sand", "sea", mode="prepend") == "sand, sea\na dog, wet\na cat\n"


def test_keywords_stay_where_an_image_is_captioned_again(sidecar: Sidecar, tmp_path: Path) -> None:
    image, path = tmp_path / "photo.jpg", tmp_path / "photo.txt"
    Image.new("RGB", (8, 8)).save(image)

    def write(text: str, mode: Mode = "keep") -> str:
        with open_writer("sidecar", existing=mode) as writer:
            writer.write(CaptionRow(str(image), (Caption(text, 0.5),), "ok", None, "m"))
        return path.read_text()

    sidecar("wet", "sea, blue")
    assert write("a dog") == "a dog, wet, sea, blue\n"
    assert write("a dog, wet") == "a dog, wet, wet, sea, blue\n"
    assert sidecar("sand") == "a dog, wet, sand\n"
    assert write("a cat") == "a cat, sand\n"
    assert read_fields(str(image), "photo.jpg", ["existing"])["existing"] == ""
    path.write_text("a tabby cat, sand\n")
    assert read_fields(str(image), "photo.jpg", ["existing"])["existing"] == "a tabby cat"
    assert write("a dog") == "a tabby cat, sand\n"
    assert write("a dog", "append") == "a tabby cat\na dog\nsand\n"
    assert write("a dog", "replace") == "a dog\n"


def test_the_verb(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image that failed stops nothing; a caption is found by path, else by a file name that one image has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b", "c", "d"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / f"{name}.png")
    rows = [
        {"image": "photos/a.png", "caption": "two dogs by the seaside"},
        {"image": "elsewhere/b.png", "caption": "a busy beach with knives"},
        {"image": "photos/c.png", "caption": None, "status": "error", "error": "refused"},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    command = ["tag", "photos", "--from-captions", "captions.jsonl", "--labels", str(labels)]
    assert run([*command, "--best", "1"]) == 3
    captured = capsys.readouterr()
    assert captured.out == (
        "photos/a.png\tdog\nphotos/b.png\tBeach\nphotos/c.png\t\trefused\n"
        "photos/d.png\t\tcaptions.jsonl has no caption of it\n"
    )
    assert "2 of 4 images could not be tagged" in captured.err
    assert run([*command, "--format", "xmp", "--out", "tagged", "--json", "-q"]) == 3
    written = json.loads(capsys.readouterr().out)
    assert written["failed"] == {"photos/c.png": "refused", "photos/d.png": "captions.jsonl has no caption of it"}
    assert existing_keywords((tmp_path / "tagged/photos/b.png").read_bytes()).own == ["Beach", "knife"]
    assert sorted(path.name for path in (tmp_path / "tagged/photos").iterdir()) == ["a.png", "b.png"]
    assert run(["tag", "photos/a.png", "--from-captions", "captions.jsonl"]) == 1
    assert "is a sentence" in capsys.readouterr().err
    assert run(["tag", "photos/a.png"]) == 2
    assert "--labels labels.txt" in capsys.readouterr().err
