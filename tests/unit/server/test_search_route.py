"""`POST /v1/search`: what `captune search --json` prints, within the server's limits; no models are needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import captune
from captune.core.config import resolve
from captune.library.vectors import VectorFile
from captune.server.server import create_app


class Matcher:
    """An embedder whose vector of a text depends on its length alone."""

    def __init__(self, library: captune.Library) -> None:
        self.file = VectorFile(library.database, "m", "", 3)

    def vectors_of(self, texts: list[str]) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[[len(text) % 3 for text in texts]]


@pytest.fixture
def library(tmp_path: Path) -> captune.Library:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 20), (80 * number, 0, 0)).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text(f"{'dog ' * number}on a beach")
    library = captune.Library(folder, create=True)
    library.add()
    with library.database.write() as connection:
        connection.executemany("INSERT INTO keywords VALUES (?, ?)", [(1, "snow"), (1, "Ann"), (2, "snow")])
    return library


def client_of(folder: Path, **keys: str) -> TestClient:
    return TestClient(create_app({}, resolve("serve", flags={"library": str(folder)}), keys))


def test_words_and_conditions(library: captune.Library) -> None:
    client = client_of(library.folder)

    def search(**request: Any) -> Any:
        return client.post("/v1/search", **request).json()

    assert search(json={"words": "dog"}) == [each.to_json() for each in library.search("dog")]
    assert len(search(json={"words": "dog"})) == 2
    assert [each["path"] for each in search(json={"limit": 2})] == ["0.jpg", "1.jpg"]
    fields = {"status": "approved", "without_caption": "false", "limit": "7"}
    form = [*((name, (None, value)) for name, value in fields.items()), ("tag", (None, "snow")), ("tag", (None, "ann"))]
    assert [each["path"] for each in search(files=form)] == ["0.jpg"]
    for wrong in ({"limit": 1001}, {"limit": 0}, {"mode": "x"}, {"confidence": "low"}, {"words": "a" * 2001}):
        assert client.post("/v1/search", json=wrong).status_code == 422, wrong


def test_meaning_needs_vectors_and_keys_are_keys(library: captune.Library, tmp_path: Path) -> None:
    client = client_of(library.own, ann="secret")  # the folder of its own files does as well
    assert client.post("/v1/search", json={}).status_code == 401
    client.headers["Authorization"] = "Bearer secret"
    for request in ({"words": "1", "mode": "meaning"}, {"like": "AAAA"}):
        answer = client.post("/v1/search", json=request)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert f"captune library add {library.folder} --embed" in answer.json()["hint"]
    service = client.app.state.service  # type: ignore[attr-defined]
    embedder = service.library.library._embedders["m"] = Matcher(library)
    embedder.file.add([1, 2, 3], np.eye(3, dtype=np.float32))
    (found,) = client.post("/v1/search", json={"words": "deer", "mode": "meaning", "limit": 1}).json()
    assert (found["path"], found["similarity"]) == ("1.jpg", 1.0)
    both = client.post("/v1/search", json={"words": "dog", "mode": "both", "limit": 3}).json()
    assert [each["path"] for each in both] == ["1.jpg", "2.jpg", "0.jpg"]


def test_words_are_found_where_the_matcher_is_gone(library: captune.Library) -> None:
    VectorFile(library.database, "m", "", 3).add([1], np.eye(3, dtype=np.float32)[:1])
    client = client_of(library.folder)
    search = client.app.state.service.library  # type: ignore[attr-defined]

    def load(*_: Any, **__: Any) -> None:
        raise captune.CaptuneError("There is no model m.", "Download it.")

    search.library.embedder = load
    asyncio.run(search.start())
    answer = client.post("/v1/search", json={"words": "dog", "mode": "both"})
    assert (answer.status_code, answer.json()["hint"]) == (503, "Download it.")
    assert len(client.post("/v1/search", json={"words": "dog"}).json()) == 2


def test_without_a_library_it_is_404(tmp_path: Path) -> None:
    answer = TestClient(create_app({})).post("/v1/search", json={})
    assert (answer.status_code, answer.json()["hint"]) == (404, "Start the server with --library FOLDER.")
    with pytest.raises(captune.CaptuneError, match="no library"):
        client_of(tmp_path)
