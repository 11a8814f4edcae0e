"""Bodies of strangers: what they cost, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from captune.server.bodies import parse_form, parse_json
from captune.server.chat_schemas import ChatRequest
from captune.server.completions import conversation_of
from captune.server.problems import Problem
from hostile import Hostile, attacked

FORM = "multipart/form-data; boundary=B"


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with attacked(max_body=1.0) as server:
        yield server


def form(*parts: tuple[bytes, bytes]) -> bytes:
    lines = [b"--B\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % part for part in parts]
    return b"".join([*lines, b"--B--\r\n"])


def refused(body: bytes, content_type: str | None = None) -> Problem:
    with pytest.raises(Problem) as error:
        parse_json(bytearray(body)) if content_type is None else parse_form(body, content_type, ["images"])
    return error.value


def test_errors_are_counted_and_the_first_are_listed(server: Hostile) -> None:
    status, said = server.ask("/v1/captions:batch", json.dumps({"images": [0] * 900}).encode())
    assert (status, len(said["errors"]), said["error_count"]) == (422, 20, 900)
    assert "900 fields" in said["detail"]
    assert said["errors"][0] == {"field": "images.0", "message": "expected base64, a data URL, or an uploaded file"}
    few = server.ask("/v1/captions:batch", b'{"images": [0, 0]}')[1]
    assert (len(few["errors"]), "error_count" in few) == (2, False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"images": [' + b"0," * 400_000 + b"0]}", 413),
        (b'{"images": [' + b"0," * 5_000 + b"0]}", 422),
        (b'{"images": [[' + b"{}," * 5_000 + b"0]]}", 422),
        (b"{" + b'"image": 0,' * 80_000 + b'"x": 0}', 413),
        (b"{" + b",".join(b'"k%d":0' % n for n in range(2_000)) + b"}", 422),
        (b'{"' + b"k" * 900_000 + b'": 0}', 422),
        (b'{"image": "YWJj", "num_beams": ' + b"1" * 900_000 + b"}", 400),
        (b'{"image": ' + b"[" * 15_000 + b"]" * 15_000 + b"}", 400),
        (b'{"image": "' + b'\\"' * 400_000, 413),
        (b'{"image": "' + b"a" * 900_000, 400),
        (b" " * 900_000, 400),
    ],
    ids=["zeros", "list", "nested", "same-key", "keys", "key", "number", "depth", "escapes", "cut-off", "blank"],
)
def test_a_body_is_not_larger_once_it_is_read(server: Hostile, body: bytes, status: int) -> None:
    found, said = server.ask("/v1/captions:batch", body)
    assert (found, said["status"]) == (status, status)
    assert len(json.dumps(said)) < 1000


def test_text_is_weighed_as_python_keeps_it() -> None:
    assert refused('{"prompt": "😀'.encode() + b"a" * 1_100_000 + b'"}').status == 413
    assert refused(b'{"prompt": "' + b"\\u4e2d" * 180_000 + b'"}').status == 413
    image = '{"image": "' + "a" * 72 + "\\/\\n" * 400 + '", "prompt": "ein Hund – 狗"}'
    assert parse_json(bytearray(image.encode()))["prompt"] == "ein Hund – 狗"
    assert len(parse_json(bytearray(b'{"image": "' + b"a" * 3_000_000 + b'"}'))["image"]) == 3_000_000


@pytest.mark.parametrize("end", [b"\\n", b"\\r\\n", b"\\/"])
@pytest.mark.parametrize("shift", range(3))
def test_escapes_of_base64_are_taken_out_before_strings_are_built(end: bytes, shift: int) -> None:
    line = b"QUJD" * 19 + end
    image = line * (1_050_000 // len(line))
    body = bytearray(b'{"p": "%s", "images": ["%s", "%s"], "prompt": "a\\nb"}' % (b"a" * shift, image, image))
    said = parse_json(body)
    assert body.count(b"\\") == 1  # the parser builds strings with escapes twice
    plain = image.replace(b"\\/", b"/").replace(b"\\r", b"").replace(b"\\n", b"").decode()
    assert said == {"p": "a" * shift, "images": [plain, plain], "prompt": "a\nb"}
    assert refused(b'{"image": "' + image + b'\\f"}').status == 413


@pytest.mark.parametrize("body", [b'"' * 90_000, b'"a"' * 45_000, b'"\\u0041"' * 45_000])
def test_strings_without_commas_are_counted_too(body: bytes) -> None:
    assert refused(body).status == 413


def test_forms_are_read_in_memory_and_bounded() -> None:
    found = parse_form(
        form((b'name="image"; filename="a"', b"\r\n--\xff" * 9), (b'name="prompt"', "ein Hühnchen".encode())), FORM, []
    )
    assert found == {"image": b"\r\n--\xff" * 9, "prompt": "ein Hühnchen"}
    assert parse_form(form(*[(b'name="images"; filename="a"', b"x")] * 3), FORM, ["images"]) == {"images": [b"x"] * 3}
    assert refused(form(*[(b'name="f"', b"")] * 1001), FORM).status == 413
    assert refused(form((b'name="prompt"', b"x" * 1_000_001)), FORM).status == 413
    assert refused(form(*[(b'name="%d"' % n, "é".encode() * 450_000) for n in range(3)]), FORM).status == 413
    assert refused(form((b'name="f"\r\n' + b"A: b\r\n" * 3_000 + b"C: d", b"x")), FORM).status in (400, 413)
    assert refused(form((b'name="' + b"n" * 9_000 + b'"', b"x")), FORM).status in (400, 413)
    assert refused(form((b'name="f"', b"x"), (b'name="f"', b"x")), FORM).status == 422
    for bad in (form((b'name="f"', b"x"))[:-9], form((b'name="f"', b"\xff")), form((b"", b"x")), b""):
        assert refused(bad, FORM).status == 400, bad
    assert refused(b"", "multipart/form-data").status == 400


def test_uploads_need_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    many = form(*[(b'name="images"; filename="a"', b"x" * 100_000)] * 17)
    with attacked(max_body=3.0) as server:
        status, said = server.ask("/v1/captions:batch", many, content_type=FORM)
    assert (status, said["detail"]) == (422, "17 images; 16 are allowed.")


def test_the_words_of_a_chat_are_counted_together() -> None:
    image = {"type": "image_url", "image_url": {"url": "YWJj"}}

    def words(parts: int) -> str:
        content = [image, *[{"type": "text", "text": "a red circle"}] * parts]
        request = ChatRequest.model_validate({"messages": [{"role": "user", "content": content}]})
        return conversation_of(request.turns).prompt

    assert words(2) == "a red circle a red circle"
    with pytest.raises(Problem, match="4,000 are allowed"):
        words(400)


@pytest.mark.parametrize(
    "headers",
    [{"content_encoding": "gzip"}, {"content_type": "application/x-www-form-urlencoded"}, {"content_type": "x" * 5000}],
)
def test_types_that_are_not_read_are_refused_before_they_arrive(server: Hostile, headers: dict[str, str]) -> None:
    status, said = server.ask("/v1/caption", None, content_length="500000", expect="100-continue", **headers)
    assert (status, len(said["detail"]) < 200) == (415, True)
