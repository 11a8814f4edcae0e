"""`captune edit` over HTTP: lists, captions, conflicts, find and replace, undo; nothing of another site or folder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from captune.core.options.library import EditOptions
from captune.library.history import Draft, editing, undo
from captune.library.library import Library
from captune.library.vectors import VectorFile
from captune.server.editor.app import create_editor

NAMES = ("a.jpg", "b.jpg", "sub/c.jpg")


def written_by_model(paths: list[str]) -> list[Draft | str]:
    return [
        "a damaged image" if path.endswith("b.jpg") else Draft(f"a draft of {Path(path).stem}", "m", confidence=0.25)
        for path in paths
    ]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    folder = tmp_path / "photos"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), (80 * number, 0, 0)).save(folder / name)
    library = Library(folder, create=True)
    library.add()
    with library.database.write() as connection:
        connection.executemany(
            "INSERT INTO captions(id, image, text, written_by, model, confidence, flags, written) "
            "VALUES (?, ?, ?, 'model', 'base', ?, ?, '')",
            [(10, 1, "a dgo", 0.9, ""), (20, 2, "two dgos", 0.2, ""), (21, 2, "a cat", 0.8, "cut")],
        )
    return library


@pytest.fixture
def client(library: Library) -> Iterator[TestClient]:
    with TestClient(create_editor(library, EditOptions(who="ann"), models={"m": written_by_model})) as client:
        yield client


def ids(client: TestClient, query: str = "") -> list[int]:
    answer = client.get(f"/v1/library/images?{query}")
    assert answer.status_code == 200, answer.text
    found: list[int] = answer.json()["images"]
    return found


def captions(client: TestClient, image: int) -> list[tuple[str, str]]:
    (row,) = client.get(f"/v1/library/details?image={image}").json()["images"]
    return [(each["text"], each["status"]) for each in row["captions"]]


def step(client: TestClient, *changes: dict[str, Any], **more: Any) -> Any:
    return client.post("/v1/library/steps", json={"changes": list(changes), **more})


def test_a_list_has_an_order_and_conditions(client: TestClient) -> None:
    assert ids(client) == [1, 2, 3]
    assert ids(client, "order=doubtful") == [2, 1, 3]
    assert ids(client, "words=dgo*") == [1, 2]
    assert ids(client, "words=dgo*+-two") == [1]
    assert ids(client, "words=-two&flag=any") == [2]
    assert ids(client, "without_caption=true") == ids(client, "under=sub") == [3]
    assert ids(client, "confidence=<0.5&status=draft&by=base") == [2]
    assert client.get("/v1/library/images?colour=red").status_code == 422


def test_a_caption_is_corrected_undone_and_in_the_history(client: TestClient) -> None:
    answer = step(client, {"kind": "caption", "image": 1, "of": 10, "text": "a dog"}).json()
    (new,) = answer["captions"]
    assert answer["images"][0]["captions"][0] | {"written": ""} == {
        "id": new, "text": "a dog", "language": None, "written_by": "person", "model": "", "confidence": None,
        "status": "approved", "written": "", "of": 10, "flags": [],
    }  # fmt: skip
    typed = {"kind": "caption", "image": 1, "of": new, "text": "a brown dog"}
    again = step(client, typed, rewrites=answer["step"]["id"]).json()
    assert again["step"]["id"] == answer["step"]["id"]
    events = client.get("/v1/library/images/1/history").json()["events"]
    assert [(event["who"], event["before"], event["after"]) for event in events] == [
        ("ann", "a dgo", "a brown dog"),
        ("base", None, "a dgo"),
    ]
    assert client.post("/v1/library/undo").json()["changed"] == [1]
    assert captions(client, 1) == [("a dgo", "draft")]
    assert client.post("/v1/library/undo").json()["step"] is None
    client.post("/v1/library/redo")
    assert captions(client, 1) == [("a brown dog", "approved")]


def test_what_anybody_changes_is_told(client: TestClient, library: Library) -> None:
    def changes(since: int) -> tuple[list[int] | None, int]:
        answer = client.get(f"/v1/library/changes?since={since}").json()
        return answer["images"], answer["serial"]

    serial = client.get("/v1/library/images").json()["serial"]
    assert changes(serial) == ([], serial)
    step(client, {"kind": "caption", "image": 1, "of": 10, "text": "a dog"})
    found, later = changes(serial)
    assert found == [1]
    other = Library(library.folder)  # as another process has it
    with editing(other.database, "bob", "by another one") as editor:
        editor.set_keywords(3, add=["snow"])
        editor.set_status(20, "approved")
    undo(other.database, "ann")
    found, last = changes(later)
    assert found == [3, 2, 1]
    (library.folder / "sub" / "c.jpg").rename(library.folder / "d.jpg")
    other.add()
    assert changes(last)[0] == [3]
    assert changes(last + 100)[0] is None  # another database
    with library.database.write() as connection:
        connection.executemany("UPDATE images SET mark = ? WHERE id = 1", [(str(n),) for n in range(21_000)])
    assert changes(serial)[0] is None
    assert library.database.connection.execute("SELECT count(*) FROM touched").fetchone()[0] < 21_100


BULK: tuple[tuple[dict[str, Any], dict[str, Any], int, list[Any]], ...] = (
    # What somebody rejected stays so, unless the rejected ones are meant.
    ({"status": "approved"}, {}, 2, ["approved", "approved", "rejected"]),
    ({"status": "approved"}, {"filter": {"status": "rejected"}}, 1, ["draft", "draft", "approved"]),
    ({"status": "rejected"}, {"words": "two*"}, 1, ["draft", "rejected", "rejected"]),
    ({"status": "draft"}, {}, 1, ["draft", "draft", "draft"]),
    ({"status": "approved"}, {"images": [1, 3]}, 1, ["approved", "draft", "rejected"]),
    ({"add": ["snow", " big  dog"]}, {}, 3, ["big dog,snow", "big dog,snow", "big dog,dog,snow"]),
    ({"remove": ["Snow"]}, {}, 2, ["", "", "dog"]),
    ({"remove": ["dog"]}, {"filter": {"tag": ["snow"]}}, 1, ["snow", "", "snow"]),
    ({"mark": "look again"}, {"filter": {"without_caption": True}}, 1, [None, "x", "look again"]),
    ({"mark": None}, {}, 1, [None, None, None]),
)


def test_the_same_change_of_all_is_counted_made_and_undone(client: TestClient) -> None:
    step(
        client,
        {"kind": "status", "caption": 21, "status": "rejected"},
        {"kind": "keywords", "image": 1, "add": ["snow"]},
        {"kind": "keywords", "image": 3, "add": ["snow", "dog"]},
        {"kind": "mark", "image": 2, "mark": "x"},
    )

    def bulk(**request: Any) -> Any:
        return client.post("/v1/library/bulk", json=request)

    def state(kind: str) -> list[Any]:
        rows = client.get("/v1/library/details?image=1&image=2&image=3").json()["images"]
        if kind == "status":
            return [status for _, status in sorted((c["id"], c["status"]) for row in rows for c in row["captions"])]
        return [row["mark"] if kind == "mark" else ",".join(row["keywords"]) for row in rows]

    for change, selection, count, after in BULK:
        kind = next((name for name in ("status", "mark") if name in change), "keywords")
        before, request = state(kind), {**selection, "change": {"kind": kind, **change}}
        counted = bulk(**request).json()
        assert (counted["count"], counted["images"], state(kind)) == (count, count, before), request
        made = bulk(**request, digest=counted["digest"]).json()
        assert (len(made["changed"]), state(kind)) == (count, after), request
        client.post("/v1/library/undo")
        assert state(kind) == before
    approve = {"change": {"kind": "status", "status": "approved"}}
    counted = bulk(**approve).json()
    step(client, {"kind": "status", "caption": 10, "status": "rejected"})
    late = bulk(**approve, digest=counted["digest"])
    assert (late.status_code, state("status")) == (409, ["rejected", "draft", "rejected"])
    assert bulk(change={"kind": "keywords", "add": [" "]}).status_code == 422


def test_similar_images_need_vectors_alone(client: TestClient, library: Library) -> None:
    answer = client.get("/v1/library/images?like=1")
    assert (answer.status_code, "--embed" in answer.json()["hint"]) == (422, True)
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    VectorFile(library.database, "not here", "", 2).add([1, 2, 3], rows)
    assert ids(client, "like=2") == [2, 3, 1]
    assert ids(client, "like=2&without_caption=true") == [3]
    assert client.get("/v1/library/images?like=7").status_code == 422


def test_the_later_of_two_people_sees_both_texts(client: TestClient) -> None:
    first = step(client, {"kind": "caption", "image": 1, "of": 10, "text": "a dog"}).json()["captions"][0]
    late = step(
        client, {"kind": "mark", "image": 2, "mark": "x"}, {"kind": "caption", "image": 1, "of": 10, "text": "b"}
    )
    assert late.status_code == 409
    assert late.json()["conflict"] == {"image": 1, "caption": first, "text": "a dog"}
    assert ids(client, "mark=x") == []
    assert step(client, {"kind": "status", "caption": 20, "status": "approved", "was": "draft"}).status_code == 200
    assert step(client, {"kind": "status", "caption": 20, "status": "rejected", "was": "draft"}).status_code == 409
    # Who goes on typing a step that was undone, or is not the last, begins a new one.
    client.post("/v1/library/undo")
    client.post("/v1/library/undo")
    late = step(client, {"kind": "caption", "image": 1, "of": first, "text": "a dog!"}, rewrites=1)
    assert late.status_code == 409
    assert late.json()["conflict"] == {"image": 1, "caption": 10, "text": "a dgo"}


def test_every_change_is_shown_before_it_is_made(client: TestClient) -> None:
    request = {"how": "regex", "find": r"\bdgo(s?)\b", "replace": r"dog\1", "filter": {"status": "draft"}}
    shown = client.post("/v1/library/replace", json=request).json()
    assert [(each["before"], each["after"]) for each in shown["changes"]] == [
        ("a dgo", "a dog"),
        ("two dgos", "two dogs"),
    ]
    assert (shown["count"], shown["captions"]) == (2, 3)
    step(client, {"kind": "caption", "image": 1, "of": 10, "text": "a dgo!"})
    assert client.post("/v1/library/replace", json={**request, "digest": shown["digest"]}).status_code == 409
    shown = client.post("/v1/library/replace", json={"find": "dgo", "replace": "dog"}).json()
    without = shown["changes"][0]["caption"]
    made = client.post(
        "/v1/library/replace", json={"find": "dgo", "replace": "dog", "digest": shown["digest"], "without": [without]}
    )
    assert made.json()["changed"] == [2]
    assert captions(client, 2) == [("two dogs", "approved"), ("a cat", "draft")]
    assert captions(client, 1) == [("a dgo!", "approved")]
    request = {"how": "prefix", "replace": "photo of "}
    shown = client.post("/v1/library/replace", json=request).json()
    client.post("/v1/library/replace", json={**request, "digest": shown["digest"]})
    assert client.post("/v1/library/replace", json=request).json()["count"] == 0
    assert sorted(client.post("/v1/library/undo").json()["changed"]) == [1, 2]


def test_a_pattern_cannot_take_for_ever(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captune.library.replacing.SECONDS", 0.05)
    step(client, {"kind": "caption", "image": 3, "text": "a" * 5000 + "!"})
    for find, message in ((r"(a|aa)+$", "takes longer"), ("(", "no regular expression"), ("", "nothing to find")):
        answer = client.post("/v1/library/replace", json={"how": "regex", "find": find, "replace": "b"})
        assert (answer.status_code, message in answer.json()["detail"]) == (422, True), answer.text
    for find, replace in ((".*", " "), ("a", "b" * 100)):
        answer = client.post("/v1/library/replace", json={"how": "regex", "find": find, "replace": replace})
        assert answer.status_code == 422, answer.text


def test_a_model_captions_again_beside_what_stands(client: TestClient) -> None:
    answer = client.post("/v1/library/drafts", json={"model": "m", "images": [1, 2]}).json()
    assert answer["failed"] == {"2": "a damaged image"}
    assert captions(client, 1) == [("a dgo", "draft"), ("a draft of a", "draft")]
    assert client.post("/v1/library/undo").json()["changed"] == [1]
    assert client.post("/v1/library/drafts", json={"model": "other", "images": [1]}).status_code == 404


def test_keywords_and_marks(client: TestClient) -> None:
    step(
        client,
        {"kind": "keywords", "image": 1, "add": ["dog", "Snow"]},
        {"kind": "keywords", "image": 2, "add": ["dog"]},
    )
    step(client, {"kind": "mark", "image": 3, "mark": "look again"})
    assert client.get("/v1/library/keywords").json()["keywords"] == [
        {"keyword": "dog", "images": 2}, {"keyword": "Snow", "images": 1},
    ]  # fmt: skip
    about = client.get("/v1/library/about").json()
    assert (about["marks"], about["statuses"], about["who"], about["models"]) == (
        {"look again": 1},
        {"draft": 3},
        "ann",
        ["m"],
    )


def test_an_image_comes_as_jpeg_and_none_of_elsewhere(client: TestClient, library: Library, tmp_path: Path) -> None:
    answer = client.get("/v1/library/images/1/jpeg?side=16")
    assert Image.open(io.BytesIO(answer.content)).size == (40, 20)
    assert answer.headers["cache-control"] == "no-cache"
    digest = client.get("/v1/library/details?image=1").json()["images"][0]["digest"]
    assert "immutable" in client.get(f"/v1/library/images/1/jpeg?digest={digest}").headers["cache-control"]
    (tmp_path / "secret.jpg").write_bytes((library.folder / "a.jpg").read_bytes())
    (library.folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    with library.database.write() as connection:
        connection.executemany(
            "INSERT INTO images(id, path, digest, bytes, modified, added) VALUES (?, ?, '', 1, 1, '')",
            [(7, "../secret.jpg"), (8, str(tmp_path / "secret.jpg")), (9, "link.jpg")],
        )
    for image in (7, 8, 9):
        answer = client.get(f"/v1/library/images/{image}/jpeg")
        assert (answer.status_code, "outside" in answer.json()["detail"]) == (422, True)
    assert client.get("/v1/library/images/99/jpeg").status_code == 404


def test_pages_of_other_sites_are_refused(client: TestClient) -> None:
    body = {"changes": [{"kind": "mark", "image": 1, "mark": "x"}]}
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/v1/library/steps", json=body, headers=headers).status_code == 403
        assert client.get("/v1/library/about", headers=headers).status_code == 403
    assert client.post("/v1/library/steps", json=body, headers={"Origin": "http://testserver"}).status_code == 200
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_with_keys_each_key_is_a_person(library: Library) -> None:
    with TestClient(create_editor(library, keys={"bob": "one", "eve": "two"})) as client:
        assert client.get("/").status_code == client.get("/page/main.js").status_code == 200
        assert client.get("/v1/library/about").status_code == 401
        assert client.post("/v1/session", headers={"Authorization": "Bearer wrong"}).status_code == 401
        answer = client.post("/v1/session", headers={"Authorization": "Bearer one"})
        assert "HttpOnly; Path=/; SameSite=strict" in answer.headers["set-cookie"]
        assert client.get("/v1/library/about").json()["who"] == "bob"
        step(client, {"kind": "mark", "image": 1, "mark": "x"})
        assert client.post("/v1/library/undo", headers={"Authorization": "Bearer two"}).json()["step"] is None
        assert client.post("/v1/library/undo").json()["changed"] == [1]
