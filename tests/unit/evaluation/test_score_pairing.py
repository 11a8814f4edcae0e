"""Whose caption is whose: images are matched by name or id, never by the order of rows where a side has names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.core.text import unsegmented
from captune.evaluation.score import Scored, score
from captune.metrics.measure import measure

CAPTIONS = {"a.jpg": "a red square", "b.jpg": "two dots on a wall", "c.jpg": "green bar left"}
GROUPS = {"a.jpg": ["a red square on grey"], "b.jpg": ["two blue dots on a wall"], "c.jpg": ["a green bar at the left"]}
TRUE = measure(CAPTIONS, GROUPS, ["bleu"], resamples=0).scores
COCO = {
    "images": [{"id": 391895 + n, "file_name": f"COCO_val2014_{391895 + n:012d}.jpg"} for n in range(3)],
    "annotations": [{"image_id": 391895 + n, "caption": group[0]} for n, group in enumerate(GROUPS.values())],
}
Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, text: str) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        return str(tmp_path / name)

    return put


def bleu(captions: str, references: str, **options: str) -> Scored:
    return score(captions, references, metrics=["bleu"], resamples=0, **options)


def lines(texts: dict[str, str], separator: str, header: str = "") -> str:
    return header + "".join(f"{name}{separator}{text}\n" for name, text in texts.items())


FIRST = {name: group[0] for name, group in GROUPS.items()}


@pytest.mark.parametrize("separator", ["\t", ",", "|", ";"])
@pytest.mark.parametrize("headers", [("", ""), ("image{}generated_caption\n", "image{}ground_truth\n")])
def test_names_are_never_words(write: Write, separator: str, headers: tuple[str, str]) -> None:
    suffix = {"\t": "tsv", "|": "psv"}.get(separator, "csv")
    backwards = dict(reversed(CAPTIONS.items()))
    captions = write(f"h.{suffix}", lines(backwards, separator, headers[0].format(separator)))
    references = write(f"r.{suffix}", lines(FIRST, separator, headers[1].format(separator)))
    assert bleu(captions, references).scores == TRUE
    assert bleu(captions, write("r.json", json.dumps(GROUPS))).scores == TRUE


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("h.csv", lines(CAPTIONS, ",", "bild,satz\n"), "expected a header"),
        ("h.txt", lines(CAPTIONS, ",", "bild,satz\n"), "lines begin with an image's name"),
        ("h.txt", lines(CAPTIONS, " "), "lines begin with an image's name"),
        ("h.txt", lines(CAPTIONS, ": "), "lines begin with an image's name"),
        ("h.txt", lines(CAPTIONS, "\t", "image\tutterance\n"), "a header without a column of captions"),
        ("h.txt", "1,a dog\n2,a cat\n3,a bird\n", "begins with a number and a separator"),
        ("h.txt", "a dog\tand more\na cat\na bird\n", "line 1: a tab"),
        ("h.txt", "a red square\ntwo dots\ngreen bar\n", "names its images, .*h.txt .* does not"),
        ("h.csv", "caption\na red square\n", "expected a header"),
    ],
)
def test_what_has_no_names_that_are_understood_is_no_score(write: Write, name: str, text: str, told: str) -> None:
    for references in (write("r.json", json.dumps(GROUPS)), write("r.tsv", lines(FIRST, "\t"))):
        with pytest.raises(CaptuneError, match=told):
            bleu(write(name, text), references, on_mismatch="skip")


def test_lines_of_two_lengths_are_never_paired(write: Write) -> None:
    captions, references = write("h.txt", "a dog\na cat\n"), write("r.txt", "a dog\na cat\na bird\n")
    with pytest.raises(CaptuneError, match=r"has 2 lines and .* has 3"):
        bleu(captions, references, on_mismatch="skip")


@pytest.mark.parametrize(
    "of",
    [
        int,
        str,
        float,
        lambda number: f"{number:012d}",
        lambda number: f"{number}.0",
        lambda number: f"COCO_val2014_{number:012d}",
        lambda number: f"val/COCO_val2014_{number:012d}.JPG",
        lambda number: f"C:\\coco\\{number:012d}.jpg",
    ],
)
def test_ids_and_names_of_one_image(write: Write, of: Callable[[int], object]) -> None:
    rows = [{"image_id": of(391895 + n), "caption": text} for n, text in enumerate(CAPTIONS.values())]
    assert bleu(write("h.json", json.dumps(rows)), write("r.json", json.dumps(COCO))).scores == TRUE


def test_ids_that_may_be_two_images_are_none(write: Write) -> None:
    references = write("r.json", json.dumps({"1": ["a dog"], "01": ["a cat"]}))
    with pytest.raises(CaptuneError, match=r"have no references: '1\.0'"):
        bleu(write("h.json", json.dumps({"1.0": "a dog", "2": "x"})), references)


def test_numbers_of_rows_are_no_ids(write: Write) -> None:
    references = write(
        "r.csv", "id,image,caption\n" + "".join(f"{n},{k},{g[0]}\n" for n, (k, g) in enumerate(GROUPS.items()))
    )
    backwards = dict(reversed(CAPTIONS.items()))
    numbered = "id,image,caption\n" + "".join(
        f"{n},{name},{text}\n" for n, (name, text) in enumerate(backwards.items())
    )
    assert bleu(write("h.csv", numbered), references).scores == TRUE
    with pytest.raises(CaptuneError, match=r"give image 0 different files: d\.jpg and a\.jpg"):
        bleu(
            write("h.csv", numbered.replace(",a.", ",other_a.").replace(",b.", ",other_b.").replace(",c.", ",d.")),
            references,
        )


def test_a_file_of_both_is_used_by_side(write: Write) -> None:
    rows = [{"image_name": n, "captions": GROUPS[n], "prediction": CAPTIONS[n]} for n in GROUPS]
    both = write("both.jsonl", "\n".join(map(json.dumps, rows)))
    assert bleu(both, both).scores == TRUE
    assert bleu(both, write("r.json", json.dumps(GROUPS))).scores == TRUE
    one = write("one.csv", lines(FIRST, ",", "image,caption\n"))
    with pytest.raises(CaptuneError, match="given for both sides"):
        bleu(one, one)
    two = write("two.csv", "image,caption,text\na.jpg,a,b\n")
    with pytest.raises(CaptuneError, match="'caption' and 'text' could both"):
        bleu(two, two)


def test_captune_s_own_text_with_a_failed_image(write: Write) -> None:
    captions = write("h.tsv", "a.jpg\ta red square\nb.jpg\t\tcannot be opened\nc.jpg\tgreen bar left\n")
    with pytest.raises(CaptuneError, match=r"could not be captioned: 'b.jpg' \(cannot be opened\)"):
        bleu(captions, write("r.json", json.dumps(GROUPS)))


def test_rejected_references_are_left_out_and_told(write: Write) -> None:
    unfit = [{"image_id": 391895 + n, "caption": "spam", "is_precanned": True} for n in range(3)]
    references = write("r.json", json.dumps({**COCO, "annotations": [*COCO["annotations"], *unfit]}))
    rows = [{"image_id": 391895 + n, "caption": text} for n, text in enumerate(CAPTIONS.values())]
    result = bleu(write("h.json", json.dumps(rows)), references)
    assert result.scores == TRUE
    assert "3 references are left out" in " ".join(result.notes)


def test_all_reasons_are_shown(write: Write) -> None:
    rows = [{"image": "a.jpg", "caption": None}, {"image": "b.jpg", "caption": 7}, {"image": "c.jpg", "text_id": 3}]
    captions, references = write("h.json", json.dumps(rows)), write("r.json", json.dumps(GROUPS))
    with pytest.raises(CaptuneError) as caught:
        bleu(captions, references)
    for part in ("the caption of a.jpg is null", "'caption' is 7, not text", "entry 3: found the keys image, text_id"):
        assert part in caught.value.message


def test_captions_without_spaces_are_told(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write("h.json", json.dumps({"1": "一只狗在草地上奔", "2": "两个孩子在海滩上"}))
    references = write("r.json", json.dumps({"1": ["一只狗在草地上奔跑"], "2": ["两个孩子在海滩上玩"]}))
    command = ["score", "-H", captions, "-R", references, "--metrics", "bleu"]
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["unsegmented"] == {"Chinese": 4}
    assert "in Chinese, without spaces" in told["notes"][0]
    assert run(command) == 0
    assert capsys.readouterr().err.count("in Chinese, without spaces") == 1


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("一只狗在草地上奔跑", "Chinese"),
        ("犬が芝生の上を走っている", "Japanese"),
        ("สุนัขวิ่งบนสนามหญ้า", "Thai"),
        ("ຫມາແລ່ນຢູ່ໃນຫຍ້າສີຂຽວ", "Lao"),
        ("ឆ្កែរត់លើស្មៅបៃតង", "Khmer"),
        ("一只 狗 在 草地 上 奔跑", None),
        ("개가 잔디 위를 달린다", None),
        ("एक कुत्ता घास पर दौड़ रहा है", None),
        ("A sign that says 出口", None),
    ],
)
def test_scripts_without_spaces(text: str, language: str | None) -> None:
    assert unsegmented([text, "a dog"]) == ({language: 1} if language else {})
