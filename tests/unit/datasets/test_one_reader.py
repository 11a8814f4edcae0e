"""`prepare` and `score` read the same captions of the same file: one table of files for both."""

from __future__ import annotations

import gzip
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captune.datasets.formats import read_source
from captune.datasets.merge import Problem
from captune.evaluation.pairing import read_results

NAMES = ("a.jpg", "b.jpg", "c.jpg")
ONE = {"a.jpg": ["A red square."], "b.jpg": ["Two blue dots, side by side."], "c.jpg": ['A sign says "stop".']}
TWO = {name: [*texts, f"Again {name[0]}."] for name, texts in ONE.items()}


def rows(captions: dict[str, list[str]], **names: str) -> list[dict[str, str]]:
    image, text = names.get("image", "image"), names.get("text", "caption")
    return [{image: name, text: caption} for name, texts in captions.items() for caption in texts]


def quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def table(captions: dict[str, list[str]], separator: str, header: str, quote: bool = True) -> str:
    lines = [header] if header else []
    for name, texts in captions.items():
        lines += [f"{name}{separator}{quoted(text) if quote and set(',') & set(text) else text}" for text in texts]
    return "\n".join(lines) + "\n"


def wide(start: int, base: str) -> str:
    header = ",".join(["image", *(f"{base}{number}" for number in range(start, start + 2))])
    return "\n".join([header, *(",".join([name, *map(quoted, texts)]) for name, texts in TWO.items())]) + "\n"


def coco(ids: Callable[[int], object] = int, of_images: Callable[[int], object] = int) -> str:
    """COCO's annotations whose image ids are written as `ids` does, those of the images as `of_images` does."""
    images = [{"id": of_images(number), "file_name": name} for number, name in enumerate(TWO)]
    annotations = [
        {"id": 7, "image_id": ids(number), "caption": text}
        for number, texts in enumerate(TWO.values())
        for text in texts
    ]
    return json.dumps({"images": images, "annotations": annotations})


def tokens(text: str) -> list[str]:
    return text.replace(".", " .").replace(",", " ,").replace('"', '" ').split()


def spoken(captions: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: [" ".join(tokens(text)) for text in texts] for name, texts in captions.items()}


STRAY = {**ONE, "a.jpg": ['"A red square.'], "c.jpg": ['"Exit" says a sign']}
FILES: dict[str, tuple[str, dict[str, list[str]]]] = {
    "comma.csv": (table(TWO, ",", "image,caption"), TWO),
    "headless.csv": (table(TWO, ",", ""), TWO),
    "headless.tsv": (table(TWO, "\t", "", quote=False), TWO),
    "headless.psv": (table(TWO, "|", "", quote=False), TWO),
    "headless-semicolon.csv": (table(TWO, ";", ""), TWO),
    "captions.txt": (table(TWO, ",", "image,caption"), TWO),
    "header.tsv": (table(TWO, "\t", "File Name\tText", quote=False), TWO),
    "semicolon.csv": (table(TWO, ";", "imageId;groundTruth"), TWO),
    "crlf-and-mark.csv": ("\ufeff" + table(TWO, ",", "image,caption").replace("\n", "\r\n"), TWO),
    "number.csv": ("".join(f"{n},{k},{t}\n" for n, ts in ONE.items() for k, t in enumerate(ts)), ONE),
    "stray.csv": (
        'image,caption\na.jpg,"A red square.\nb.jpg,"Two blue dots, side by side."\nc.jpg,"Exit" says a sign\n',
        STRAY,
    ),
    "stray.tsv": (
        'image\tcaption\na.jpg\t"A red square.\nb.jpg\tTwo blue dots, side by side.\nc.jpg\t"Exit" says a sign\n',
        STRAY,
    ),
    "spanning.csv": (
        'image,caption\na.jpg,"A red\nsquare."\nb.jpg,"Two ""blue""\r\ndots, side"\nc.jpg,last\n',
        {"a.jpg": ["A red square."], "b.jpg": ['Two "blue" dots, side'], "c.jpg": ["last"]},
    ),
    "from-0.csv": (wide(0, "caption_"), TWO),
    "from-1.csv": (wide(1, "reference"), TWO),
    "both.csv": ("image,reference,prediction\n" + "".join(f"{n},{quoted(t[0])},no\n" for n, t in ONE.items()), ONE),
    "cells.csv": ("image,captions\n" + "".join(f"{n},{quoted(json.dumps(t))}\n" for n, t in TWO.items()), TWO),
    "numpy.csv": (
        "image,captions\na.jpg,['One dog' 'Two dogs']\nb.jpg,\"['B']\"\nc.jpg,C\n",
        {"a.jpg": ["One dog", "Two dogs"], "b.jpg": ["B"], "c.jpg": ["C"]},
    ),
    "rows.jsonl": ("\n".join(map(json.dumps, rows(TWO))), TWO),
    "rows.json": (json.dumps(rows(TWO, image="image_id", text="sentence")), TWO),
    "inside.json": (json.dumps({"data": rows(TWO)}), TWO),
    "lists.jsonl": (
        "\n".join(json.dumps({"image": n, "references": t, "generated": "no"}) for n, t in TWO.items()),
        TWO,
    ),
    "tokens.jsonl": ("\n".join(json.dumps({"image": n, "caption": tokens(t[0])}) for n, t in ONE.items()), spoken(ONE)),
    "lists-of-tokens.json": (
        json.dumps([{"image": n, "captions": [tokens(t) for t in ts]} for n, ts in TWO.items()]),
        spoken(TWO),
    ),
    "karpathy.json": (
        json.dumps(
            {
                "images": [
                    {"filename": n, "split": "test", "sentences": [{"tokens": tokens(t)} for t in ts]}
                    for n, ts in TWO.items()
                ]
            }
        ),
        spoken(TWO),
    ),
    "conversations.json": (
        json.dumps(
            [
                {
                    "id": k,
                    "image": n,
                    "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": t[0]}],
                }
                for k, (n, t) in enumerate(ONE.items())
            ]
        ),
        ONE,
    ),
    "map.json": (json.dumps(TWO), TWO),
    "map-by-stem.json": (json.dumps({n[0]: {"caption": t[0], "tags": "x"} for n, t in ONE.items()}), ONE),
    "map-in-lines.jsonl": ("\n".join(json.dumps({n: t}) for n, t in TWO.items()), TWO),
    "coco.json": (coco(), TWO),
    "coco-text.json": (coco(ids=str), TWO),
    "coco-float.json": (coco(ids=float), TWO),
    "coco-zeros.json": (coco(ids=lambda number: f"{number:012d}"), TWO),
    "coco-float-images.json": (coco(of_images=float, ids=str), TWO),
    "flickr.token": ("".join(f"{n}#{k}\t{t}\n" for n, ts in TWO.items() for k, t in enumerate(ts)), TWO),
    "results.csv": (
        "image_name| comment_number| comment\n"
        + "".join(f"{n}| {k}| {t}\n" for n, ts in TWO.items() for k, t in enumerate(ts)),
        TWO,
    ),
    "utf-16.csv": (table(TWO, ",", "image,caption"), TWO),
    "rejected.csv": (
        "image,caption,is_rejected\n" + "".join(f"{n},first,False\n{n},spam,True\n" for n in NAMES),
        {n: ["first"] for n in NAMES},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 6), (number * 40, 90, 30)).save(made / name, "JPEG")
    return made


def both(path: Path, images: Path | None = None) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What `prepare` and `score` read, by the image's file name, as captions of one line."""
    problems: list[Problem] = []
    prepared = {
        Path(record.image).name: list(record.references) for record in read_source(path, None, images, problems)[1]
    }
    found = read_results(str(path), "references")
    assert (problems, found.problems) == ([], [])
    scored = {
        found.names.get(key, key): [" ".join(text.split()) for text in texts] for key, texts in found.texts.items()
    }
    return prepared, {name if "." in name else f"{name}.jpg": texts for name, texts in scored.items()}


@pytest.mark.parametrize("name", FILES)
def test_both_read_the_same_references(name: str, folder: Path) -> None:
    text, wanted = FILES[name]
    path = folder / name
    path.write_text(text, encoding="utf-16" if name.startswith("utf-16") else "utf-8", newline="")
    prepared, scored = both(path)
    assert prepared == wanted
    assert scored == wanted


def test_parquet_shards_with_columns_of_their_own(folder: Path) -> None:
    shards = folder / "shards"
    shards.mkdir()
    pq.write_table(pa.table({"image": ["a.jpg"], "caption": ["A."]}), shards / "part-0.parquet")
    pq.write_table(pa.table({"file_name": ["b.jpg"], "text": [["B.", "Bb."]]}), shards / "part-1.parquet")
    pq.write_table(pa.table({"image": ["c.jpg"], "ground_truth": ["C."], "output": ["x"]}), shards / "part-2.parquet")
    prepared, scored = both(shards, folder)
    assert prepared == scored == {"a.jpg": ["A."], "b.jpg": ["B.", "Bb."], "c.jpg": ["C."]}
    assert read_results(str(shards / "part-2.parquet"), "captions").texts == {"c.jpg": ["x"]}


def test_compressed_files(folder: Path) -> None:
    (folder / "rows.csv.gz").write_bytes(gzip.compress(FILES["comma.csv"][0].encode()))
    prepared, scored = both(folder / "rows.csv.gz")
    assert prepared == scored == TWO


def test_embedded_images_keep_their_names(folder: Path) -> None:
    held = io.BytesIO()
    Image.new("RGB", (8, 6)).save(held, "JPEG")
    one = {"image": {"bytes": held.getvalue(), "path": "a.jpg"}, "references": ["A.", "Aa."], "prediction": "x"}
    path = folder / "embedded.parquet"
    pq.write_table(pa.Table.from_pylist([one]), path)
    record = next(iter(read_source(path)[1]))
    assert (record.id, record.references) == ("a.jpg", ("A.", "Aa."))
    assert read_results(str(path), "references").texts == {"a.jpg": ["A.", "Aa."]}
    assert read_results(str(path), "captions").texts == {"a.jpg": ["x"]}


def test_letters_and_their_accents_are_composed(tmp_path: Path) -> None:
    """Korean as macOS spells it in parts is the Korean that models write."""
    whole = {"a.jpg": ["개가 잔디 위를 달린다."], "b.jpg": ["Ein Mädchen läuft."]}
    parts = {name: [unicodedata.normalize("NFD", text) for text in texts] for name, texts in whole.items()}
    file = tmp_path / "captions.csv"
    file.write_text(table(parts, ",", "image,caption"), encoding="utf-8")
    for name in whole:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    _, records = read_source(file)
    assert {record.image.name: list(record.references) for record in records} == whole
    assert read_results(str(file), side="references").texts == whole
    lines = tmp_path / "captions.txt"
    lines.write_text("".join(f"{text}\n" for texts in parts.values() for text in texts), encoding="utf-8")
    assert list(read_results(str(lines), side="captions").texts.values()) == list(whole.values())
