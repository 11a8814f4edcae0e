"""Captions from elsewhere: every file people have, and everything that can be wrong with it."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from captune.cli.main import run
from captune.core.errors import CaptuneError
from captune.evaluation.score import score
from captune.metrics import METRICS
from captune.metrics.corpus import Corpus, MetricResult, averaged
from captune.metrics.measure import measure

CAPTIONS = {"1": "a dog runs on the beach", "2": "two men ride bikes", "3": "a cat"}
GROUPS = {
    "1": ["A dog is running on a beach.", "a dog runs by the sea"],
    "2": ["Two men are riding bicycles."],
    "3": ["a black cat", "the cat, asleep"],
}
COCO = {
    "images": [{"id": int(key), "file_name": f"{key}.jpg"} for key in GROUPS],
    "annotations": [{"image_id": int(key), "caption": text} for key, group in GROUPS.items() for text in group],
}
HYPOTHESES = {
    "coco.json": json.dumps([{"image_id": int(key), "caption": text} for key, text in CAPTIONS.items()]),
    "by-id.json": json.dumps(CAPTIONS),
    "rows.jsonl": "\n".join(json.dumps({"id": key, "text": text}) for key, text in CAPTIONS.items()),
    "table.csv": "image_id,caption\n" + "\n".join(f'{key},"{text}"' for key, text in CAPTIONS.items()),
    "bom.tsv": "\ufefffile_name\tcaption\r\n" + "".join(f"{key}.jpg\t{text}\r\n" for key, text in CAPTIONS.items()),
    "captune.jsonl": "\n".join(
        json.dumps({"image": f"photos/{key}.jpg", "caption": text, "confidence": 0.5, "status": "ok", "error": None})
        for key, text in CAPTIONS.items()
    ),
    "evaluation.jsonl": "\n".join(
        json.dumps({"id": key, "image": "x", "references": ["x"], "models": {"m": {"caption": text, "cider": 1}}})
        for key, text in CAPTIONS.items()
    ),
}
REFERENCES = {
    "coco.json": json.dumps(COCO),
    "by-id.json": json.dumps(GROUPS),
    "rows.jsonl": "\n".join(json.dumps({"image_id": key, "references": group}) for key, group in GROUPS.items()),
    "table.csv": "id,caption\n" + "\n".join(f'{key},"{text}"' for key, group in GROUPS.items() for text in group),
    "wide.csv": "id,caption_1,caption_2\n"
    + "\n".join(f'{k},"{g[0]}","{g[1] if g[1:] else ""}"' for k, g in GROUPS.items()),
    "flickr.token": "\n".join(f"{key}#{n}\t{text}" for key, group in GROUPS.items() for n, text in enumerate(group)),
}


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.fixture
def truth(tmp_path: Path) -> str:
    return write(tmp_path / "truth", "coco.json", json.dumps(COCO))


EXPECTED = measure(CAPTIONS, GROUPS).scores


@pytest.mark.parametrize("name", HYPOTHESES)
def test_every_file_of_captions(name: str, truth: str, tmp_path: Path) -> None:
    result = score(write(tmp_path, name, HYPOTHESES[name]), truth)
    assert result.scores == EXPECTED
    assert ("matched by file name" in " ".join(result.notes)) == (name in ("bom.tsv", "captune.jsonl"))


@pytest.mark.parametrize("name", REFERENCES)
def test_every_file_of_references(name: str, tmp_path: Path) -> None:
    captions = write(tmp_path, "captions.json", HYPOTHESES["by-id.json"])
    assert score(captions, write(tmp_path / "truth", name, REFERENCES[name])).scores == EXPECTED


def test_lines_of_text(tmp_path: Path) -> None:
    captions = write(tmp_path, "h.txt", "\n".join(CAPTIONS.values()) + "\n")
    tabs = write(tmp_path, "r.txt", "\n".join("\t".join(group) for group in GROUPS.values()))
    assert score(captions, tabs).scores == EXPECTED
    first = write(tmp_path, "r1.txt", "\n".join(group[0] for group in GROUPS.values()))
    second = write(tmp_path, "r2.txt", "\n".join(group[1] if group[1:] else "" for group in GROUPS.values()))
    assert score(captions, [first, second]).scores == EXPECTED
    short = write(tmp_path, "r3.txt", "one\ntwo")
    with pytest.raises(CaptuneError, match=r"has 3 lines and .* has 2"):
        score(captions, [first, short])


def test_compressed_files_and_standard_input(truth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = write(tmp_path, "h.json.gz", gzip.compress(HYPOTHESES["coco.json"].encode()))
    assert score(packed, truth).scores == EXPECTED
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(HYPOTHESES["rows.jsonl"].encode())))
    assert score("-", truth).scores == EXPECTED
    with pytest.raises(CaptuneError, match="only one of the files"):
        score("-", "-")


def test_separators_inside_captions_stay_with_their_image(truth: str, tmp_path: Path) -> None:
    odd = {"1": "a dog\rruns\u2028on ||| the\x0bbeach", "2": CAPTIONS["2"], "3": CAPTIONS["3"]}
    plain = {**odd, "1": "a dog runs on ||| the beach"}
    report = score(write(tmp_path, "h.json", json.dumps(odd)), truth).reports.popitem()[1]
    assert report.per_image == measure(plain, GROUPS).per_image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("[]", "holds no captions"),
        ("{}", "holds no captions"),
        ('[{"image_id": 1, "caption": "a"},', "line 1.*not valid JSON"),
        ('{"id": 1, "caption": "a"}\n{"id": 2, "caption"\n', "line 2.*not valid JSON"),
        ('{"1": "a dog",\n "2": }', "line 2.*not valid JSON"),
        ('[{"image": 1, "foo": "a"}]', "entry 1: found the keys image, foo; expected an image column"),
        ('["a dog"]', "entry 1: expected an object"),
        ('[{"image_id": 1, "caption": null}]', "entry 1: the caption of 1 is null"),
        ('[{"image_id": 1, "caption": 5}]', "entry 1: 'caption' is 5, not text"),
        ('[{"image_id": 1, "caption": NaN}]', "entry 1: the caption of 1 is NaN"),
        ('[{"image_id": true, "caption": "a"}]', "entry 1: 'image_id' is not an id but 'True'"),
        ('[{"image_id": 1, "caption": ["a", "b"]}]', "1 images have several captions: '1'"),
        ('{"1": "a", "2": "b", "3": "c", "9": "d"}', "1 of 4 captions have no references: '9'"),
        ('{"1": "a", "3": "c"}', "1 of 3 images with references have no caption: '2'"),
        (b"image,caption\n1,caf\xe9\n", "line 2: byte 0xe9 at offset 19 is not UTF-8"),
        (b"\x1f\x8b\x08broken", "Cannot read"),
        ("one\ntwo\nthree", "one of them has no image ids"),
    ],
)
def test_what_is_wrong_is_named(text: str | bytes, message: str, truth: str, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=message):
        score(write(tmp_path, "h", text), truth)


def test_a_missing_file(truth: str, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="There is no file"):
        score(tmp_path / "none.json", truth)


def test_skipping_says_what_was_left_out(truth: str, tmp_path: Path) -> None:
    rows = [
        {"image": "1.jpg", "caption": "a dog", "status": "ok"},
        {"image": "2.jpg", "caption": None, "status": "error", "error": "truncated"},
        {"image": "9.jpg", "caption": "a stranger", "status": "ok"},
    ]
    captions = write(tmp_path, "h.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(CaptuneError, match=r"could not be captioned: '2' \(truncated\)"):
        score(captions, truth)
    result = score(captions, truth, on_mismatch="skip")
    assert list(next(iter(result.reports.values())).per_image) == ["1"]
    told = "\n".join(result.notes)
    for part in ("no references: '9.jpg'", "'2' (truncated)", "have no caption: '3'", "matched by file name"):
        assert part in told


def test_empty_captions_count_as_0_and_are_told(truth: str, tmp_path: Path) -> None:
    result = score(write(tmp_path, "h.json", json.dumps({**CAPTIONS, "2": " ."})), truth)
    assert "1 of 3 captions have no words" in result.notes[0]
    assert next(iter(result.reports.values())).per_image["2"]["rouge_l"] == 0


def test_two_files_are_compared_in_pairs(truth: str, tmp_path: Path) -> None:
    good = write(tmp_path, "good.json", HYPOTHESES["by-id.json"])
    poor = write(tmp_path, "poor.tsv", "image\tcaption\n" + "".join(f"x/{key}.jpg\ta sofa\n" for key in CAPTIONS))
    result = score([good, poor], truth, resamples=100)
    assert result.comparisons[poor]["cider"].value > 0
    assert result.comparisons[poor]["cider"].images == 3


def test_metrics_that_look_find_the_pictures(truth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str] | None] = []

    def looks(corpus: Corpus) -> MetricResult:
        seen.append(corpus.context.pictures)
        return averaged({"looks": [1.0] * len(corpus.ids)})

    monkeypatch.setitem(METRICS._loaded, "cider", looks)
    one = tmp_path / "one.json"
    one.write_text(HYPOTHESES["coco.json"])
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for place in ("1.jpg", "2.jpg", "deep/3.jpg", "4.txt"):
        (folder / place).touch()
    score(one, truth, metrics=["cider"], pictures=folder)
    assert seen == [{"1": f"{folder}/1.jpg", "2": f"{folder}/2.jpg", "3": f"{folder}/deep/3.jpg"}]
    (folder / "deep/1.jpg").touch()
    with pytest.raises(CaptuneError, match=r"1 of 3 images are not in .*: '1' first \(2 files of that name\)"):
        score(one, truth, metrics=["cider"], pictures=folder)
    (folder / "2.jpg").unlink()
    with pytest.raises(CaptuneError, match=r"2 of 3 images are not in"):
        score(one, truth, metrics=["cider"], pictures=folder)
    with pytest.raises(CaptuneError, match="There is no folder"):
        score(one, truth, metrics=["cider"], pictures=tmp_path / "nowhere")


def test_saved_frequencies_are_used_and_named(truth: str, tmp_path: Path) -> None:
    one = write(tmp_path, "one.json", json.dumps({"1": CAPTIONS["1"]}))
    saved = tmp_path / "df.npz"
    score(one, truth, on_mismatch="skip", save_document_frequencies=saved)
    assert score(one, truth, on_mismatch="skip", metrics=["cider"]).scores["cider"] == 0
    result = score(one, truth, on_mismatch="skip", metrics=["cider"], document_frequencies=str(saved))
    whole = measure(CAPTIONS, GROUPS, ["cider"]).per_image["1"]["cider"]
    assert result.scores["cider"] == pytest.approx(whole)
    report = next(iter(result.reports.values()))
    assert report.settings["document_frequencies"] == {"from": "coco.json", "images": 3}


def test_the_command(truth: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write(tmp_path, "h.json", HYPOTHESES["coco.json"])
    asked = ["score", "--hypotheses", captions, "--references", truth, "--metrics", "bleu,meteor,rouge,cider"]
    assert run([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told)[:7] == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider"]
    assert told["images"] == 3
    assert told["per_image"]["1"].keys() == set(list(told)[:7])
    assert run([*asked, "--per-image"]) == 0
    out, err = capsys.readouterr()
    assert "3 images, 5 references" in out
    assert "Scores x 100" in err
    assert run(["score", "-H", str(tmp_path / "none"), "-R", truth]) == 1
    assert run(["score", "-H", captions, "-R", truth, "--metrics", "blue"]) == 2
