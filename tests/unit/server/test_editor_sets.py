"""`captune edit` of a data set over HTTP: its splits, its images outside the folder, writing back."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

import captune
from captune.captions.row import CaptionRow
from captune.core.files.paths import mark_written
from captune.core.options.library import EditOptions
from captune.core.records import Caption
from captune.core.stores.local import LocalStore
from captune.datasets.prepared import read_split
from captune.datasets.sources import tar as tar_images
from captune.jobs.manifest import ShardList
from captune.jobs.shards import SHARD_FORMATS
from captune.server.editor.app import create_editor
from data_sets import draw, known, lay_job, prepare


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    first, second, third = paths = draw(tmp_path / "photos", 3)
    splits = {"train": {first: ["a dgo 0"], second: ["a dgo 1"]}, "val": {third: ["a dgo 2"]}}
    return known(captune.Library(prepare(tmp_path / "data", splits), create=True), paths)


@pytest.fixture
def client(library: captune.Library) -> Iterator[TestClient]:
    with TestClient(create_editor(library, EditOptions(who="ann"))) as client:
        yield client


def get(client: TestClient, path: str) -> Any:
    answer = client.get(f"/v1/library/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def step(client: TestClient, *changes: dict[str, Any]) -> Any:
    return client.post("/v1/library/steps", json={"changes": list(changes)})


def test_splits_and_references_are_changed_and_written(client: TestClient, library: captune.Library) -> None:
    assert get(client, "about")["data_set"] == {"kind": "data set", "unwritten": False}
    assert get(client, "about")["splits"] == {"train": 2, "val": 1}
    (first, second), (third,) = (get(client, f"images?split={split}")["images"] for split in ("train", "val"))
    (row,) = get(client, f"details?image={first}")["images"]
    assert row["split"] == "train"
    answer = step(
        client, {"kind": "split", "image": first, "split": "val"}, {"kind": "split", "image": second, "split": ""},
        {"kind": "caption", "image": third, "of": 3, "text": "a dog 2"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert get(client, "about")["data_set"]["unwritten"]
    assert get(client, "images?split=none")["images"] == [second]
    assert step(client, {"kind": "split", "image": first, "split": "../x"}).status_code == 422
    report = client.post("/v1/library/write", json={}).json()
    assert (report["images"], report["left_out"]) == (3, 1)
    assert not get(client, "about")["data_set"]["unwritten"]
    assert [record.references for record in read_split(library.folder, "val")] == [("a dgo 0",), ("a dog 2",)]
    assert client.post("/v1/library/undo").json()["changed"] == [third, second, first]
    assert get(client, "about")["splits"] == {"train": 2, "val": 1}
    body: dict[str, Any] = {"filter": {"split": "train"}, "change": {"kind": "split", "split": "dev"}}
    counted = client.post("/v1/library/bulk", json=body).json()
    assert counted["count"] == 2
    client.post("/v1/library/bulk", json={**body, "digest": counted["digest"]})
    assert get(client, "about")["splits"] == {"val": 3}


def test_a_corrected_reference_stays_in_its_place(client: TestClient) -> None:
    step(client, {"kind": "caption", "image": 1, "text": "another one"})
    (corrected,) = step(client, {"kind": "caption", "image": 1, "of": 1, "text": "a dog"}).json()["captions"]
    step(client, {"kind": "caption", "image": 1, "of": corrected, "text": "a dog 0"})
    (row,) = get(client, "details?image=1")["images"]
    assert [each["text"] for each in row["captions"]] == ["a dog 0", "another one"]


def test_images_outside_are_shown_of_a_data_set_that_was_made_here_alone(
    client: TestClient, library: captune.Library, tmp_path: Path
) -> None:
    assert client.get("/v1/library/images/1/jpeg").status_code == 200
    (library.folder / ".written-here").unlink()  # as if it had been sent
    sent = captune.Library(library.folder)
    with TestClient(create_editor(sent, EditOptions(who="ann"))) as other:
        answer = other.get("/v1/library/images/1/jpeg")
    assert answer.status_code == 422
    assert "allow_outside" in answer.json()["hint"]


def test_images_in_an_archive_are_shown_as_long_as_it_is_there(tmp_path: Path) -> None:
    job, archive = lay_job(tmp_path, shards=0), tmp_path / "photos.tar"
    store = LocalStore(str(job))
    with tarfile.open(archive, "w") as tar:
        for name, again in (("0.png", "0.png"), ("1.png", "0.png"), ("bad.png", "bad.png")):
            tar.add(tmp_path / "photos" / name, f"a/{again}")
    shards = [*tar_images.find(str(archive), 2)]
    ShardList.of(replace(shard, location="photos.tar") for shard in shards).write(store)
    mark_written(job / "_job", ["pieces.jsonl"])
    names = [source.name.removeprefix(f"{tmp_path}/") for shard in shards for source in tar_images.read(shard)]
    rows = [CaptionRow(name, (Caption("a dgo", 0.5),), "ok", None, "", ()) for name in names]
    store.publish("captions-00000.jsonl", SHARD_FORMATS["jsonl"].encode(rows))
    library = captune.Library(job, create=True)
    library.add(workers=1)
    with TestClient(create_editor(library, EditOptions(who="ann"))) as client:
        first, second, bad = get(client, "details?image=1&image=2&image=3")["images"]
        assert (first["width"], first["problem"], second["problem"]) == (20, None, None)
        assert second["path"].startswith(f"{archive}/a/0.png#")
        assert "captions" not in bad["problem"]
        for image, red in ((1, 0), (2, 40)):
            answer = client.get(f"/v1/library/images/{image}/jpeg?side=800")
            assert answer.status_code == 200, answer.text
            shown = Image.open(BytesIO(answer.content))
            assert abs(shown.getpixel((5, 5))[0] - red) < 6
        archive.rename(tmp_path / "away.tar")
        answer = client.get("/v1/library/images/1/jpeg?side=800")
        assert (answer.status_code, f"There is no file {archive}" in answer.json()["detail"]) == (422, True)
        library.add(workers=1)
        (row,) = get(client, "details?image=1")["images"]
        assert (row["problem"], row["captions"][0]["text"]) == (f"There is no file {archive}", "a dgo")
        (tmp_path / "away.tar").rename(archive)
        library.add(workers=1)
        assert get(client, "details?image=1")["images"][0]["problem"] is None


def test_a_folder_of_images_is_no_data_set(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    library = captune.Library(tmp_path, create=True)
    library.add()
    with TestClient(create_editor(library, EditOptions(who="ann"))) as client:
        assert get(client, "about")["data_set"] is None
        assert client.post("/v1/library/write", json={}).status_code == 422
        assert step(client, {"kind": "split", "image": 1, "split": "val"}).status_code == 422
