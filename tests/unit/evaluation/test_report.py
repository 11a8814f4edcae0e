"""The report of an evaluation: what it says, that it needs nothing else, and that nothing breaks out of its place."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import captune
from captune.cli.main import run
from captune.core.errors import CaptuneError, UsageError
from captune.core.records import Caption, ImageRecord
from captune.evaluation.report import write_report
from captune.evaluation.report.data import read_report_data, short_names
from captune.evaluation.report.scores import galleries, p_value, shown, signed
from captune.evaluation.results import Evaluation, write_evaluation
from captune.metrics.measure import measure
from captune.metrics.significance import compare
from noise import noise

WORDS = ("red", "green", "blue", "small", "large", "round", "square", "old")
HOSTILE = (
    "<script>alert(1)</script>",
    '</script><script>document.title = "taken"</script><!--',
    "\" onerror='alert(1)' <img src=x>",
    "שלום עולם, כלב רץ",
    "🐕‍🦺 a dog & $title ${data}",
    "a | b `c` *d* [e](http://f.example) \\",
    "two\nlines, and\u2028a third",
    "",
    "\x00\x1b[31mred\ud800",
)


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.data = ""
        self.feed(html)
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = str(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "pictures-data":
            self.data += data
        elif not self._inside:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


Write = Callable[..., Path]


@pytest.fixture
def evaluated(tmp_path: Path) -> Write:
    """Writes an evaluation of invented captions of real (small) pictures."""

    def write(models: Sequence[str] = ("runs/mine", "hub/base"), count: int = 12, resamples: int = 50) -> Path:
        records = []
        for number in range(count):
            path = tmp_path / f"{number:02}.png"
            noise((300, 200), 10 + number, number).convert("RGB").save(path)
            word = WORDS[number % len(WORDS)]
            records.append(
                ImageRecord(f"{number:02}", str(path), (f"a {word} thing", f"one {word} thing, number {number}"))
            )
        references = {record.id: record.references for record in records}
        reports, captions = {}, {}
        for place, name in enumerate(models):
            said = {r.id: r.references[0] if (int(r.id) + place) % (place + 2) else "a thing" for r in records}
            reports[name] = measure(said, references, resamples=resamples)
            captions[name] = {key: Caption(text, 0.5) for key, text in said.items()}
        first, *others = models
        compared = {name: compare(reports[first], reports[name], resamples) for name in others if resamples}
        folder = tmp_path / "evaluation"
        folder.mkdir()
        evaluation = Evaluation(reports, captions, tuple(records), compared, folder)
        write_evaluation(evaluation, folder, data="data", data_digest="sha256:0", split="test")
        return folder

    return write


def read(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8"))


def draw(folder: Path, **options: Any) -> Path:
    return write_report(folder, figures=False, **options)


def rewrite(folder: Path, change: Callable[[int, dict[str, Any]], None]) -> None:
    """Apply `change` to every row of the scores of single pictures."""
    path = folder / "eval_per_image.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    for number, row in enumerate(rows):
        change(number, row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def outside(page: Page) -> Iterable[str]:
    """Everything an element would load or lead to."""
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if attributes.get(name):
                yield str(attributes[name])


@pytest.mark.parametrize("models", [("runs/mine",), ("runs/mine", "hub/base", "runs/mine@last")])
def test_every_model_and_score_is_there(evaluated: Write, models: tuple[str, ...]) -> None:
    folder = evaluated(models)
    page = read(draw(folder))
    said = json.loads((folder / "eval_bleu.json").read_text(encoding="utf-8"))
    for name in models:
        assert name in page.text
        for key, value in said["models"][name]["scores"].items():
            low, high = said["models"][name]["intervals"][key]
            assert shown(key, value) in page.text
            assert f"[{shown(key, low)}, {shown(key, high)}]" in page.text
    for other in models[1:]:
        for key, one in said["comparisons"][other].items():
            assert signed(key, one["value"]) in page.text
            assert p_value(one["p_randomisation"]) in page.text
    assert len(json.loads(page.data)["models"]) == len(models)
    assert ("differences" in [attributes.get("id") for attributes in page.all("section")]) == (len(models) > 1)


def test_it_needs_nothing_else(evaluated: Write) -> None:
    page = read(draw(evaluated()))
    assert all(link.startswith(("data:", "#")) for link in outside(page))
    links = [a for tag, a in page.elements if tag in ("link", "iframe", "object", "base")]
    assert [a["rel"] for a in links] == ["icon"]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)


def test_styles_and_scripts_load_nothing(evaluated: Write) -> None:
    html = draw(evaluated()).read_text(encoding="utf-8")
    for part in re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", html, re.DOTALL):
        assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp|innerHTML|eval\(", part)


def test_every_picture_is_in_the_table(evaluated: Write) -> None:
    folder = evaluated(count=15)
    rows = [json.loads(line) for line in (folder / "eval_per_image.jsonl").read_text(encoding="utf-8").splitlines()]
    data = json.loads(read(draw(folder)).data)
    assert [one["i"] for one in data["pictures"]] == [row["id"] for row in rows]
    for one, row in zip(data["pictures"], rows, strict=True):
        assert one["r"] == row["references"]
        assert one["t"].startswith("data:image/jpeg;base64,")
        for model, (caption, scores) in enumerate(zip(one["c"], one["s"], strict=True)):
            said = list(row["models"].values())[model]
            assert caption == said["caption"]
            assert scores == pytest.approx([said.get(key) for key in data["keys"]], abs=1e-4)


def test_hostile_captions_stay_text(evaluated: Write) -> None:
    folder = evaluated(("<b>x</b>/\"q\" & 'r'", "other|pipe", "مدل"))
    calm = read(draw(folder, title="calm"))

    def change(number: int, row: dict[str, Any]) -> None:
        text = HOSTILE[number % len(HOSTILE)]
        row["references"] = [text, *row["references"]]
        row["id"] += '<&">'
        for said in row["models"].values():
            said["caption"] = text

    rewrite(folder, change)
    page = read(draw(folder, title="</title><script>alert(2)</script>"))
    assert len(page.all("script")) == len(calm.all("script"))
    tags = {tag for tag, _ in page.elements}
    assert not tags - {tag for tag, _ in calm.elements} - {"em"}  # "em" says that a caption is empty
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for text in HOSTILE[:6]:
        assert text in page.text
    data = json.loads(page.data)
    assert [one["c"][0] for one in data["pictures"][:8]] == list(HOSTILE[:8])
    assert data["pictures"][8]["c"][0] == "\ufffd\ufffd[31mred\ufffd"
    assert not re.search("[<>&]", page.data)


def test_missing_and_broken_pictures_get_a_box(evaluated: Write, tmp_path: Path) -> None:
    folder = evaluated(count=6)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    Image.new("RGB", (10, 10)).save(folder / "here.png")
    places = ["", str(tmp_path / "gone.jpg"), str(tmp_path / "broken.jpg"), str(tmp_path), "here.png", "nul\x00.png"]
    rewrite(folder, lambda number, row: row.update(image=places[number]))
    page = read(draw(folder))
    shown_with = [bool(one["t"]) for one in json.loads(page.data)["pictures"]]
    assert shown_with == [False, False, False, False, True, False]
    assert [a for a in page.all("span") if str(a.get("aria-label")).startswith("No image: a ")]


def test_pictures_have_words_instead(evaluated: Write) -> None:
    images = read(draw(evaluated())).all("img")
    assert images
    assert all(str(image["alt"]).startswith(("a ", "one ")) for image in images)


def test_figures_and_tables_are_labelled(evaluated: Write) -> None:
    page = read(draw(evaluated()))
    assert page.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in page.elements if tag in ("header", "main", "footer")] == ["header", "main", "footer"]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    bars = [str(svg["aria-label"]) for svg in page.all("svg") if str(svg["aria-label"]).startswith("CIDEr-D × 100: ")]
    assert re.search(r"mine \d+\.\d, 95 % interval \d+\.\d to \d+\.\d; base \d+\.\d", bars[0])
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(head.get("scope") for head in page.all("th"))
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))


def test_history_is_drawn(evaluated: Write) -> None:
    folder = evaluated(("runs/mine",))
    assert "training" not in [a.get("id") for a in read(draw(folder)).all("section")]
    lines = [{"step": s, "epoch": s / 10, "loss": 5 - s / 10} for s in range(1, 20)]
    lines += [{"step": 10 * e, "epoch": e, "eval_loss": 4 - e, "eval_cider": e / 10} for e in (1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "history.jsonl").write_text(text + '{"step": 4', encoding="utf-8")
    page = read(draw(folder))
    spoken = [str(svg["aria-label"]) for svg in page.all("svg")]
    assert any("validation loss from 3 at 1 to 1 at 3, lowest 1 at 3, highest 3 at 1" in words for words in spoken)
    assert any(words.startswith("CIDEr-D × 100 over epochs") for words in spoken)


def test_galleries_are_the_extremes(evaluated: Write) -> None:
    data = read_report_data(evaluated())
    best, worst, *apart = galleries(data, 4)
    scores = sorted(image.scores[0]["cider"] for image in data.pictures)
    assert [p.scores[0]["cider"] for p in best.pictures] == scores[:-5:-1]
    assert [p.scores[0]["cider"] for p in worst.pictures] == scores[:4]
    assert not {p.id for p in best.pictures} & {p.id for p in worst.pictures}
    ahead = [p.scores[0]["cider"] - p.scores[1]["cider"] for p in apart[0].pictures]
    assert ahead == sorted(ahead, reverse=True)
    assert all(lead > 0 for lead in ahead)


@pytest.mark.slow
def test_many_pictures_have_few_thumbnails(evaluated: Write) -> None:
    folder = evaluated(("runs/mine",), count=20)
    few = json.loads(read(draw(folder, thumbnails=19)).data)["pictures"]
    assert sum(bool(one["t"]) for one in few) == 12  # the six best and the six worst
    none = read(draw(folder, thumbnails=0))
    assert none.all("img") == []


@pytest.mark.slow
def test_files_beside_the_page(evaluated: Write, tmp_path: Path) -> None:
    folder = evaluated()
    page = captune.report(folder, out=tmp_path / "site" / "mine.html", title="A title")
    assert page == tmp_path / "site" / "mine.html"
    assert {path.name for path in page.parent.iterdir()} == {
        "mine.html", "mine.md", "scores.png", "captions.png", "test_results.png",
    }  # fmt: skip
    with Image.open(page.parent / "captions.png") as sheet:
        assert sheet.width > 500
    assert '<h1 dir="auto">A title</h1>' in page.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="expected the name of the HTML page"):
        captune.report(folder, out=tmp_path / "card.md")


def test_the_verb_prints_the_page(evaluated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    folder = evaluated(("runs/mine",), resamples=0)
    assert run(["report", str(folder), "--no-figures", "--quiet", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"report": str(folder / "report.html"), "bytes": (folder / "report.html").stat().st_size}
    assert not (folder / "scores.png").exists()


def test_a_folder_without_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="there is no such folder"):
        write_report(tmp_path / "none")
    with pytest.raises(CaptuneError, match=r"there is no eval_bleu\.json"):
        write_report(tmp_path)
    (tmp_path / "eval_bleu.json").write_text('{"model": "x"}', encoding="utf-8")
    with pytest.raises(CaptuneError, match="is not an evaluation"):
        write_report(tmp_path)


def test_a_broken_row_is_named(evaluated: Write) -> None:
    folder = evaluated()
    with open(folder / "eval_per_image.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(CaptuneError, match=r"eval_per_image\.jsonl, line 13: not a row"):
        write_report(folder)


def test_a_model_without_a_caption_for_a_picture(evaluated: Write) -> None:
    folder = evaluated(("runs/mine", "hub/base"))
    rewrite(folder, lambda number, row: row["models"].pop("hub/base" if number % 2 else "runs/mine"))
    data = json.loads(read(draw(folder)).data)
    assert [[caption is None for caption in one["c"]] for one in data["pictures"][:2]] == [[True, False], [False, True]]


def test_short_names_tell_models_apart() -> None:
    assert short_names(["runs/a", "hub/b"]) == {"runs/a": "a", "hub/b": "b"}
    assert list(short_names(["x/a/run", "x/b/run", "/"]).values()) == ["a/run", "b/run", "/"]
    assert short_names(["runs/a@last"]) == {"runs/a@last": "a@last"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("cider", 1.2346, "123.5"),
        ("bleu_4", -0.0004, "0.0"),
        ("loss", 2.5, "2.50"),
        ("bleu_1", None, "–"),
        ("perplexity", 1234.5, "1,234.50"),
        ("cider", -0.05, "−5.0"),
    ],
)
def test_scores_in_words(key: str, value: float | None, words: str) -> None:
    assert shown(key, value) == words


def test_differences_and_p_values_in_words() -> None:
    assert [signed("cider", value) for value in (0.05, -0.05, 0.0, 0.0001)] == ["+5.0", "−5.0", "0.0", "0.0"]
    assert [p_value(p) for p in (None, 0.0005, 0.049)] == ["–", "< 0.001", "0.049"]
