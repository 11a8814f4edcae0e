"""What notebooks show: captions, rows and scores, with nothing of theirs taken for markup."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from captune.captions.row import CaptionRow
from captune.core.records import Caption
from captune.images.attention_maps import Explained, Word, draw_heat_map, strength
from captune.images.preprocessing import crop_box
from captune.metrics.report import Interval, MetricReport

EVIL = "<img src=x onerror=alert(1)>"


def explained(words: int = 3, size: tuple[int, int] = (90, 60), text: str = "word") -> Explained:
    maps = np.full((words, 4, 4), 1 / 16, np.float32)
    return Explained(
        "a.jpg",
        text,
        0.5,
        tuple(Word(text, 0.5, 0.9) for _ in range(words)),
        maps,
        size,
        (0, 0, *size),
        picture=Image.new("RGB", size),
    )


def test_a_caption_shows_its_confidence() -> None:
    assert Caption("a dog", 0.875)._repr_html_() == '<span dir="auto">a dog</span> <small>88% confidence</small>'
    assert "<img" not in Caption(EVIL, 0.5)._repr_html_()


def test_a_row_shows_its_captions_or_its_reason() -> None:
    good = CaptionRow(f"{EVIL}.jpg", (Caption("a dog", 0.5), Caption("a cat", 0.4)), "ok", None, "m")
    assert good._repr_html_().count("confidence") == 2
    assert "<img" not in good._repr_html_()
    assert "damaged" in CaptionRow("a.jpg", (), "error", "damaged", "m")._repr_html_()


def test_a_report_shows_scores_times_100_with_intervals() -> None:
    scores = {"cider": 0.5123, "perplexity": 12.5, EVIL: 0.1}
    html = MetricReport(scores, images=1000, references=5000, intervals={"cider": Interval(0.4, 0.6)})._repr_html_()
    assert "<td>51.2</td><td>40.0 to 60.0</td>" in html
    assert "<td>12.50</td>" in html
    assert "1,000 images, 5,000 references" in html
    assert "<img" not in html


def test_an_explained_caption_shows_its_sheet() -> None:
    html = explained(text=EVIL)._repr_html_()
    assert html.count("<img") == 1
    assert "&lt;img" in html


@pytest.mark.parametrize("size", [(90, 60), (1, 1), (2000, 3), (3, 2000), (64, 64)])
@pytest.mark.parametrize("words", [0, 1, 40])
def test_sheets_of_any_shape(size: tuple[int, int], words: int) -> None:
    drawn = explained(words, size, "supercalifragilisticexpialidocious" * 3).overlay()
    assert drawn.mode == "RGB"
    assert 400 < drawn.width < 1500


def test_a_word_that_looked_everywhere_alike_stays_grey() -> None:
    whole = explained().overlay(0)
    assert np.ptp(np.asarray(whole), axis=-1).max() == 0
    assert strength(np.full((4, 4), 1 / 16)).max() == 0
    one = np.zeros((4, 4), np.float32)
    one[1, 2] = 1
    assert np.argwhere(strength(one)).tolist() == [[1, 2]]


def test_heat_lies_inside_the_part_that_was_seen() -> None:
    one = np.zeros((2, 2), np.float32)
    one[0, 0] = 1
    levels = np.asarray(draw_heat_map(Image.new("RGB", (100, 40), "grey"), one, (30, 0, 70, 40))).astype(int)
    coloured = np.argwhere(np.ptp(levels, axis=-1) > 30)
    assert coloured.min(0).tolist()[1] >= 30
    assert coloured.max(0).tolist() <= [28, 58]


@pytest.mark.parametrize(
    ("shape", "size", "shorter", "box"),
    [
        ((120, 80), 32, 0, (0, 0, 120, 80)),
        ((120, 80), 32, 32, (20, 0, 100, 80)),
        ((80, 120), 32, 32, (0, 20, 80, 100)),
        ((100, 100), 224, 256, (6.25, 6.25, 93.75, 93.75)),
    ],
)
def test_the_part_of_a_picture_that_is_seen(
    shape: tuple[int, int], size: int, shorter: int, box: tuple[float, ...]
) -> None:
    assert crop_box(shape, size, shorter) == pytest.approx(box)
