"""`captune caption` from archives and buckets, and into the images, with a model that really runs."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import captune
from captune.cli.main import run
from serving import save_tiny

QUICK = ("--num-beams", "1", "--max-new-tokens", "8", "--quiet")


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def says(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(3):
        Path("photos", f"{number}.jpg").write_bytes(jpeg(80 * number))
    Path("photos", "broken.jpg").write_bytes(jpeg(1)[:300])

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(("caption", *arguments, "--model", model, *QUICK))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_same_pictures_from_everywhere(says: Callable[..., tuple[int, str, str]], model: str) -> None:
    photos = [Path("photos", f"{number}.jpg") for number in range(3)]
    with tarfile.open("shard-0.tar", "w") as tar:
        for path in photos:
            tar.add(path, path.name)
    pq.write_table(pa.table({"image": [path.read_bytes() for path in photos], "label": [1, 2, 3]}), "table.parquet")
    code, out, err = says("photos", "shard-{0..0}.tar", "table.parquet", "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert "1 of 10 images could not be captioned" in err
    assert [row["image"] for row in rows] == [
        *(str(path) for path in photos),
        "photos/broken.jpg",
        *(f"shard-0.tar/{path.name}" for path in photos),
        *(f"table.parquet#{number}" for number in range(3)),
    ]
    sure = [row["confidence"] for row in rows]
    assert sure[:3] == pytest.approx(sure[4:7], rel=1e-4)
    assert sure[:3] == pytest.approx(sure[7:], rel=1e-4)
    assert len(set(sure[:3])) == 3
    assert [row.image for row in captune.caption("shard-0.tar", model=model, max_new_tokens=3)] == [
        f"shard-0.tar/{path.name}" for path in photos
    ]


def test_an_archive_that_goes_while_it_is_read(
    says: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open("a.tar", "w") as tar:
        tar.add("photos/0.jpg", "0.jpg")
    from captune.api import caption

    found = caption.list_input_shards

    def find_and_lose(*given: object, **options: object) -> list[object]:
        pieces: list[object] = list(found(*given, **options))  # type: ignore[arg-type]
        Path("a.tar").unlink()
        return pieces

    monkeypatch.setattr(caption, "list_input_shards", find_and_lose)
    code, out, _ = says("photos/1.jpg", "a.tar", "photos/2.jpg", "--format", "jsonl")
    assert code == 3
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["image"], row["status"]) for row in rows] == [
        ("photos/1.jpg", "ok"),
        ("a.tar", "error"),
        ("photos/2.jpg", "ok"),
    ]


def test_alt_text_in_copies_and_in_place(says: Callable[..., tuple[int, str, str]]) -> None:
    before = {path: path.read_bytes() for path in Path("photos").iterdir()}
    code, out, _ = says("photos", "--format", "xmp", "--out", "described")
    assert (code, out) == (3, "")
    assert {path: path.read_bytes() for path in Path("photos").iterdir()} == before
    assert sorted(path.name for path in Path("described/photos").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    _, said, _ = says("described/photos/0.jpg")
    with Image.open("described/photos/0.jpg") as image:
        assert said.strip().replace("&", "&amp;").encode() in image.info["xmp"]
    code, _, _ = says("photos", "--format", "xmp", "--in-place")
    assert code == 3
    for path, old in before.items():
        assert (path.read_bytes() == old) == (path.name == "broken.jpg")
    assert says("photos", "--format", "xmp")[0] == 2
    assert says("photos", "--in-place")[0] == 2


def test_from_a_bucket_into_a_bucket(says: Callable[..., tuple[int, str, str]], s3: Any) -> None:
    for path in Path("photos").iterdir():
        s3.put_file(str(path), f"photos/in/{path.name}")
    code, out, _ = says("s3://photos/in/", "--format", "csv", "--out", "s3://photos/out/captions.csv")
    assert (code, out) == (3, "")
    rows = list(csv.DictReader(io.StringIO(s3.cat("photos/out/captions.csv").decode())))
    assert [(row["image"], row["status"]) for row in rows] == [
        *((f"s3://photos/in/{number}.jpg", "ok") for number in range(3)),
        ("s3://photos/in/broken.jpg", "error"),
    ]
    code, _, _ = says("s3://photos/in/", "--format", "xmp", "--out", "described")
    assert code == 3
    assert len(list(Path("described").rglob("*.jpg"))) == 3
    code, _, err = says("s3://none/in/")
    assert code == 1
    assert "does not exist" in err


def test_one_address_prints_its_caption_alone(says: Callable[..., tuple[int, str, str]]) -> None:
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/journey/a.jpg", jpeg(5))
    code, out, _ = says("memory://journey/a.jpg")
    assert code == 0
    assert "memory" not in out
    fsspec.filesystem("memory").rm("/journey", recursive=True)
