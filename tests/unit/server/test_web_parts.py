"""Keys, rates, places, images and what requests may say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.server.chat_schemas import ChatRequest
from captune.server.images import image_bytes
from captune.server.keys import Keys, RateLimit, read_keys
from captune.server.logs import JsonFormatter
from captune.server.middleware import Admission
from captune.server.problems import Problem
from captune.server.schemas import AskRequest, BatchRequest, CaptionRequest
from captune.server.server import create_app
from captune.server.startup import parse_models


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# phones\nphone = abc=def==\n\n")
    found = read_keys({"CAPTUNE_API_KEYS": "web=xyz, bot=123"}, str(file))
    assert found == {"web": "xyz", "bot": "123", "phone": "abc=def=="}
    assert read_keys({}, None) == {}


@pytest.mark.parametrize("given", ["secret", "=secret", "name=", "a=1,a=2"])
def test_keys_that_cannot_be_meant_are_refused_and_not_shown(given: str) -> None:
    with pytest.raises(UsageError) as error:
        read_keys({"CAPTUNE_API_KEYS": given}, None)
    assert "secret" not in str(error.value)


def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# none yet\n")
    with pytest.raises(UsageError):
        read_keys({}, str(tmp_path / "empty"))
    with pytest.raises(CaptuneError):
        read_keys({}, str(tmp_path / "missing"))


def test_a_key_is_known_by_its_name() -> None:
    keys = Keys({"phone": "abc", "web": "déf"})
    assert keys
    assert keys.name_of("Bearer abc") == "phone"
    assert keys.name_of("bearer  déf") == "web"
    for wrong in ("", "Bearer", "Bearer ab", "Bearer abcd", "Basic abc", "abc"):
        assert keys.name_of(wrong) is None
    assert not Keys({})


def test_a_rate_lets_a_burst_in_and_then_one_now_and_then() -> None:
    now = [0.0]
    rate = RateLimit(60, clock=lambda: now[0])
    assert [rate.retry_after("a") for _ in range(16)] == [0] * 15 + [1]
    assert rate.retry_after("b") == 0
    now[0] = 1.0
    assert rate.retry_after("a") == 0
    assert rate.retry_after("a") == 1
    slow = RateLimit(1, clock=lambda: now[0])
    assert [slow.retry_after("a") for _ in range(2)] == [0, 60]
    assert RateLimit(0).retry_after("a") == 0


def test_places_are_bounded_and_given_back() -> None:
    admission = Admission(3, max_bytes=10)
    admission.acquire(2)
    with pytest.raises(Problem) as error:
        admission.acquire(2)
    assert error.value.status == 429
    assert int(error.value.headers["Retry-After"]) >= 1
    admission.reserve_bytes(8)
    with pytest.raises(Problem):
        admission.reserve_bytes(3)
    admission.release(2, 8, 0.1)
    assert (admission.images, admission.body_bytes) == (0, 0)
    admission.draining = True
    with pytest.raises(Problem) as error:
        admission.check()
    assert error.value.status == 503


@pytest.mark.parametrize(
    "given",
    [b"abc", "YWJj", "YW\nJj ", "data:;base64,YWJj", "data:image/png;charset=x;base64,YWJj", "DATA:a/b;BASE64,YWJj"],
)
def test_pictures_come_as_bytes_base64_or_data_urls(given: str | bytes) -> None:
    assert image_bytes(given) == b"abc"


@pytest.mark.parametrize(
    "given", ["YWJ", "!!!", "data:image/png,abc", "data:image/png;base64", "file:///etc/passwd", "é"]
)
def test_what_is_no_picture_is_refused(given: str) -> None:
    with pytest.raises(Problem) as error:
        image_bytes(given)
    assert error.value.status == 422


def test_every_option_of_the_search_is_a_field_of_requests() -> None:
    for kind in (CaptionRequest, BatchRequest, AskRequest):
        assert set(GenerationOptions.model_fields) <= set(kind.model_fields)
    schemas = create_app({}).openapi()["components"]["schemas"]
    for name in GenerationOptions.model_fields:
        assert name in schemas["CaptionRequest"]["properties"]
        assert name in schemas["BatchRequestForm"]["properties"]
    assert "--" not in json.dumps(schemas)
    assert schemas["CaptionRequestForm"]["properties"]["image"]["format"] == "binary"


def test_only_what_was_given_overrides_the_model() -> None:
    asked = CaptionRequest.model_validate({"image": "YWJj", "num_beams": "5", "sample": "true"})
    assert asked.generation_options() == {"num_beams": 5, "sample": True}
    with pytest.raises(ValidationError):
        CaptionRequest.model_validate({"image": "YWJj", "beams": 5})
    with pytest.raises(ValidationError):
        CaptionRequest.model_validate({"image": "YWJj", "prompt": "x" * 5000})


def test_chat_speaks_of_the_same_options() -> None:
    message = [{"role": "user", "content": "hi"}]

    def given(**said: object) -> dict[str, object]:
        return ChatRequest.model_validate({"messages": message, **said}).generation_options()

    assert given(user="me", frequency_penalty=0) == {}
    assert given(max_tokens=7, n=2, seed=3) == {"max_new_tokens": 7, "num_captions": 2, "sample_seed": 3}
    assert given(max_completion_tokens=9, max_tokens=7)["max_new_tokens"] == 9
    assert given(temperature=0, top_p=0.9, top_k=5) == {"sample": False}
    assert given(top_p=1) == given() == {}
    assert given(top_p=0.9) == {"sample": True, "num_beams": 1, "top_k": 0, "top_p": 0.9}
    assert given(temperature=0.5) == {"sample": True, "num_beams": 1, "top_k": 0, "temperature": 0.5}
    assert given(num_beams=4, length_penalty=2.0) == {"num_beams": 4, "length_penalty": 2.0}
    with pytest.raises(ValidationError):
        given(num_beams=1000)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_new_tokens"])
def test_a_clients_upper_bound_is_no_error(field: str) -> None:
    """Clients send the largest number they know; a caption ends long before it."""

    def given(tokens: object) -> object:
        asked = ChatRequest.model_validate({"messages": [{"role": "user"}], field: tokens})
        return asked.generation_options().get("max_new_tokens")

    assert [given(tokens) for tokens in (12, 512, 1024, 4096, 10**30, "2048", 1024.0)] == [12, *[512] * 6]
    for wrong in (0, -1, 1.5, "many"):
        with pytest.raises(ValidationError):
            given(wrong)
    assert CaptionRequest.model_validate({"image": "YWJj", "max_new_tokens": 4096}).generation_options() == {
        "max_new_tokens": 512
    }
    with pytest.raises(ValidationError):
        CaptionRequest.model_validate({"image": "YWJj", "max_new_tokens": 0})


def test_models_are_named_by_the_user_their_folder_or_their_id(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    assert parse_models([str(folder)]) == {"mine": str(folder)}
    assert parse_models([f"{folder}@last"]) == {"mine@last": f"{folder}@last"}
    assert parse_models(["org/name"]) == {"org/name": "org/name"}
    assert parse_models(["base=org/name", f"mine={folder}"]) == {"base": "org/name", "mine": str(folder)}
    with pytest.raises(UsageError):
        parse_models([str(folder), f"mine={tmp_path}"])
    with pytest.raises(UsageError):
        parse_models([])


def test_a_problem_says_what_and_what_next() -> None:
    body = Problem.of(CaptuneError("too large", "Raise --max-pixels.")).body("id")
    assert body["status"] == 422
    assert body["hint"] == "Raise max_pixels."
    assert body["request_id"] == "id"
    assert "secret" not in json.dumps(Problem.of(RuntimeError("secret path")).body())


def test_log_lines_are_json() -> None:
    import logging

    record = logging.LogRecord("captune.server", logging.INFO, "", 0, "request", (), None)
    record.fields = {"path": 'a"\n\ud800', "status": 200}
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["status"] == 200


@pytest.mark.parametrize("given", [1e-38, 5e-324, -0.0, 0, 1e308, float("inf"), float("nan"), "1e-38", 10**400])
def test_a_repetition_penalty_that_no_score_can_be_divided_by_is_refused(given: float | str) -> None:
    with pytest.raises((ValidationError, UsageError)):
        CaptionRequest.model_validate({"image": "AA", "repetition_penalty": given})


@pytest.mark.parametrize("given", [2**64, 10**400, -1, 1e308, float("inf"), "18446744073709551616"])
def test_a_seed_that_no_generator_takes_is_refused(given: object) -> None:
    with pytest.raises((ValidationError, UsageError)):
        CaptionRequest.model_validate({"image": "AA", "sample_seed": given})
