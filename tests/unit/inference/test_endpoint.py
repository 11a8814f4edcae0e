"""Models behind a server: what they are asked, and what becomes of every kind of answer."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.core.endpoints import Endpoint, parse_endpoint
from captune.core.errors import CaptuneError, UsageError
from captune.core.progress import Silent
from captune.evaluation.report import write_report
from captune.inference.captioner import Captioner
from captune.inference.endpoint.sight import COLOURS
from captune.models import FAMILIES
from serving import data_url, encoded, picture, running
from stand_in import Asked, Reply, said, stand_in

QUICK = {"sight_check": False, "retries": 2}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captune.inference.endpoint.client._FIRST_PAUSE", 0.01)


@pytest.fixture
def image() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(levels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (40, 30), (number * 20, 90, 200 - number * 9)).save(folder / f"{number:02}.png")
    return folder


def which(asked: Asked) -> int:
    """The number of the photo that was sent."""
    red = asked.image.convert("RGB").getpixel((5, 5))[0]  # type: ignore[index]
    return round(red / 20)


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("openai:m@http://host:8000/v1", "m", "http://host:8000/v1"),
        ("openai:m@http://host:8000/v1/", "m", "http://host:8000/v1"),
        ("openai:qwen2.5vl:7b@http://localhost:11434", "qwen2.5vl:7b", "http://localhost:11434/v1"),
        ("openai:org/name@main@https://host/api/v3", "org/name@main", "https://host/api/v3"),
        ("openai:gpt-4o-mini", "gpt-4o-mini", "https://api.openai.com/v1"),
        ("openai:m@http://[::1]:80", "m", "http://[::1]:80/v1"),
    ],
)
def test_a_name_is_a_model_and_an_address(name: str, model: str, url: str) -> None:
    assert parse_endpoint(name) == Endpoint(model, url)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai:", "names no model"),
        ("openai:@http://host", "names no model"),
        ("openai:m@host:8000", "begins with http"),
        ("openai:http://host/v1", "begins with http"),
        ("openai:m@http://", "is not the address"),
        ("openai:m@http://host/v1?key=x", "is not the address"),
        ("openai:m@https://sk-123:@host/v1", "would stand in logs"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        Captioner.load(name)
    assert raised.value.hint


def test_the_address_may_stand_in_the_configuration(image: Image.Image, tmp_path: Path) -> None:
    with stand_in() as server:
        (tmp_path / "captune.yaml").write_text(f"endpoint: {{base_url: {server.url}, sight_check: false}}")
        image.save(tmp_path / "photo.png")
        config = tmp_path / "captune.yaml"
        (row,) = captune.caption(tmp_path / "photo.png", model="openai:short", config=config, environment={})
        assert [caption.text for caption in row.captions] == ["a dog on the beach"]
        environment = {"OPENAI_BASE_URL": server.url.removesuffix("/v1"), "CAPTUNE_SIGHT_CHECK": "false"}
        for name in ("job", "again"):
            options: dict[str, Any] = {"model": "openai:m", "environment": environment, "max_requests": 1}
            captune.caption_job(tmp_path / "photo.png", tmp_path / name, **options)
        job = json.loads((tmp_path / "job" / "_job" / "manifest.json").read_text())
    assert [asked.body["model"] for asked in server.asked] == ["short", "m", "m"]
    assert (job["model"], job["digest"]) == (f"openai:m@{server.url}", f"m at {server.url}")
    with pytest.raises(UsageError, match="localhost:80 is not the address of an API"):
        Captioner.load("openai:m", base_url="localhost:80")


# -- requests ----------------------------------------------------------------------------------------------------


def test_an_image_is_sent_upright_as_a_small_jpeg(image: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.resize((900, 600)).save(tmp_path / "turned.webp", exif=exif)
    with stand_in() as server:
        captioner = Captioner.load(server.name, **QUICK, image_side=300)
        assert captioner(tmp_path / "turned.webp").text == "a dog on the beach"
        asked = server.asked[0]
    assert (asked.image.format, asked.image.size) == ("JPEG", (200, 300))
    assert asked.prompt == "Describe this image in one sentence."
    assert asked.body["model"] == "a-model"
    assert (asked.body["temperature"], asked.body["max_tokens"], asked.key) == (0, 256, None)


def test_options_are_those_of_the_api(image: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with stand_in() as server:
        captioner = Captioner.load(server.name, **QUICK, system_prompt="Be brief.", prompt="What is it?")
        captioner(image, temperature=0.7, top_p=0.9, sample_seed=5, max_new_tokens=9)
        body, key = server.asked[0].body, server.asked[0].key
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert server.asked[0].prompt == "What is it?"
    assert {name: body[name] for name in ("temperature", "top_p", "seed", "max_tokens")} == {
        "temperature": 0.7, "top_p": 0.9, "seed": 5, "max_tokens": 9,
    }  # fmt: skip
    assert key == "Bearer sk-secret"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 5}, "no beams"),
        ({"no_repeat_ngram_size": 2}, "no --no-repeat-ngram-size"),
        ({"prefill": "A photo"}, "begins its captions itself"),
        ({"num_captions": 3}, "one best caption"),
        ({"max_cost": 1.0}, "needs prices"),
    ],
)
def test_what_a_server_cannot_do_is_refused(options: dict[str, Any], message: str, image: Image.Image) -> None:
    with stand_in() as server:
        with pytest.raises(UsageError, match=message):
            Captioner.load(server.name, **QUICK, **options)(image)
        assert not server.asked


def test_several_captions_come_from_servers_that_give_one_at_a_time(image: Image.Image) -> None:
    with stand_in(lambda asked, number: said(f"caption {number}")) as server:
        captioner = Captioner.load(server.name, **QUICK)
        assert len(captioner.captions(image, sample=True, num_captions=3)) == 3
        assert [one.body.get("n") for one in server.asked] == [3, 3, 3]
        captioner.captions(image, variations=3)
        heats = [one.body["temperature"] for one in server.asked[3:]]
    assert heats == sorted(heats)
    assert len(set(heats)) == 3


def test_a_key_comes_from_a_file(image: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-of-a-file\n")
    with stand_in() as server:
        Captioner.load(server.name, **QUICK, api_key_file=str(tmp_path / "key"))(image)
        assert server.asked[0].key == "Bearer sk-of-a-file"
        with pytest.raises(CaptuneError, match="cannot be read"):
            Captioner.load(server.name, api_key_file=str(tmp_path / "none"))
        (tmp_path / "key").write_text("two\nlines")
        with pytest.raises(CaptuneError, match="holds no key"):
            Captioner.load(server.name, api_key_file=str(tmp_path / "key"))


# -- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (said(""), "answer is empty"),
        (said(None), "answer is empty"),
        (said("<think>hm</think>"), "still thinking"),
        (said("<think>what could it be", "length"), "still thinking"),
        (said("", "length", reasoning_content="what could it be"), "still thinking"),
        (said(None, refusal="I cannot describe people."), "refuses: I cannot describe people"),
        (said("a", "content_filter"), "filter held the caption back"),
        (said(None, "tool_calls", tool_calls=[{"id": "1"}]), "calls a tool"),
        (Reply({"choices": []}), "no choices"),
        (Reply({"choices": [{"text": "a dog"}]}), "no message"),
        (Reply({"error": {"message": "image too large"}}, 400), "answered 400: image too large"),
        (Reply({"detail": "bad image"}, 422), "answered 422: bad image"),
        (Reply(b"<html>Bad gateway</html>", 502), "answered 502: <html>Bad gateway"),
        (Reply([1, 2]), "no choices"),
        (Reply(b"{not json"), "answered 200"),
    ],
)
def test_an_answer_without_a_caption_is_its_images_error(reply: Reply, reason: str, image: Image.Image) -> None:
    with stand_in(lambda asked, number: reply if asked.prompt == "bad" else said("a dog")) as server:
        captioner = Captioner.load(server.name, **QUICK)
        results = [found for _, found in captioner.stream([(0, image)], prompt="bad")]
        assert captioner(image).text == "a dog"
    assert isinstance(results[0], CaptuneError)
    assert reason in results[0].message


@pytest.mark.parametrize(
    ("reply", "text", "cut"),
    [
        (said("<think>hm</think>\n a dog "), "a dog", False),
        (said("a dog on", "length"), "a dog on", True),
        (said([{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}]), "a dog", False),  # type: ignore[arg-type]
    ],
)
def test_a_caption_is_what_the_model_says(reply: Reply, text: str, cut: bool, image: Image.Image) -> None:
    with stand_in(lambda asked, number: reply) as server:
        found = Captioner.load(server.name, **QUICK)(image)
    assert (found.text, found.cut) == (text, cut)
    assert math.isnan(found.confidence)


def test_log_probabilities_are_the_confidence(image: Image.Image) -> None:
    reply = said("a dog")
    reply.body["choices"][0]["logprobs"] = {"content": [{"logprob": math.log(0.5)}, {"logprob": math.log(0.125)}]}
    with stand_in(lambda asked, number: reply) as server:
        assert Captioner.load(server.name, **QUICK)(image).confidence == pytest.approx(0.25)


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Reply({"error": "slow down"}, 429, {"Retry-After": "0"}),
        Reply({"error": "oops"}, 500),
        Reply(b"", 503),
        Reply({"choices": [{"message": {"content": "a dog"}}]}, hang_up=True),
        Reply(b"not json"),
    ],
    ids=["429", "500", "503", "half an answer", "no json"],
)
def test_what_may_pass_is_asked_again(failure: Reply, image: Image.Image) -> None:
    with stand_in(lambda asked, number: failure if number < 2 else said("a dog")) as server:
        assert Captioner.load(server.name, **QUICK)(image).text == "a dog"
        assert len(server.asked) == 3


def test_it_waits_as_long_as_the_server_says(image: Image.Image) -> None:
    busy = Reply({}, 429, {"Retry-After": "0.4"})
    with stand_in(lambda asked, number: busy if number == 0 else said("a dog")) as server:
        Captioner.load(server.name, **QUICK)(image)
        first, second = server.asked
    assert second.at - first.at >= 0.4


@pytest.mark.parametrize(
    ("reply", "message", "hint"),
    [
        (Reply({"error": {"message": "invalid key"}}, 401), "does not accept the key: invalid key", "OPENAI_API_KEY"),
        (Reply({"error": "no such model"}, 404), "has no model a-model", "Known: a-model, another"),
    ],
)
def test_what_no_image_can_pass_ends_all(reply: Reply, message: str, hint: str, photos: Path) -> None:
    with stand_in(lambda asked, number: reply) as server:
        with pytest.raises(CaptuneError, match=message) as raised:
            list(captune.caption(photos, model=server.name, **QUICK, concurrency=4, environment={}))
        assert len(server.asked) <= 4  # those under way at once
    assert hint in raised.value.hint


def test_a_server_that_is_gone_ends_all(image: Image.Image) -> None:
    with stand_in() as server:
        captioner = Captioner.load(server.name, **QUICK)
    with pytest.raises(CaptuneError, match="is not reached"):
        captioner(image)


def test_a_server_with_errors_alone_ends_all(photos: Path) -> None:
    with (
        stand_in(lambda asked, number: Reply({"error": "out of memory"}, 500)) as server,
        pytest.raises(CaptuneError, match=r"captions for none of 1\d images in a row.*out of memory"),
    ):
        list(captune.caption(photos, model=server.name, **{**QUICK, "retries": 0}, environment={}))


def test_a_slow_answer_is_given_up(image: Image.Image) -> None:
    with (
        stand_in(lambda asked, number: Reply({}, wait=5)) as server,
        pytest.raises(CaptuneError, match="--request-timeout"),
    ):
        Captioner.load(server.name, sight_check=False, retries=0, request_timeout=0.2)(image)


def test_an_image_that_gets_no_answer_in_time_ends_nothing(photos: Path) -> None:
    with stand_in(lambda asked, number: Reply(said("a dog").body, wait=0 if which(asked) else 3)) as server:
        options = {"sight_check": False, "retries": 0, "request_timeout": 1.0, "environment": {}}
        rows = list(captune.caption(photos, model=server.name, **options))
    assert [row.status for row in rows] == ["error", *["ok"] * 11]
    assert "no whole answer in time" in str(rows[0].error)


def test_a_server_that_refuses_a_field_is_asked_without_it(image: Image.Image) -> None:
    def script(asked: Asked, number: int) -> Reply:
        if "logprobs" in asked.body:
            return Reply({"error": {"message": "logprobs are not supported by this model"}}, 400)
        if "max_tokens" in asked.body:
            return Reply({"error": {"message": "use 'max_completion_tokens' instead of 'max_tokens'"}}, 400)
        return said("a dog")

    with stand_in(script) as server:
        captioner = Captioner.load(server.name, sight_check=False, retries=0)
        assert [found[0].text for found in captioner.batch([image, image])] == ["a dog", "a dog"]
        captioner(image)
        assert server.asked[-1].body["max_completion_tokens"] == 256
        assert server.asked[-1].body.keys() == {"model", "messages", "temperature", "max_completion_tokens"}
        assert len(server.asked) <= 7


# -- sight -------------------------------------------------------------------------------------------------------


def names_colours(asked: Asked, number: int) -> Reply:
    levels = np.asarray(asked.image.convert("RGB")).mean((0, 1))
    nearest = min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - levels).sum()))
    return said(f"It is {nearest.title()}.")


def test_a_server_that_sees_is_asked_once(image: Image.Image) -> None:
    with stand_in(names_colours) as server:
        captioner = Captioner.load(server.name)
        captioner.batch([image, image])
        assert len(server.asked) == len(COLOURS) + 2


@pytest.mark.parametrize("text", ["a dog on the beach", "red, green, blue or yellow", "It is blue."])
def test_a_blind_server_is_refused(text: str, image: Image.Image) -> None:
    with stand_in(lambda asked, number: said(text)) as server:
        with pytest.raises(CaptuneError, match="a-model does not see"):
            Captioner.load(server.name)(image)
        assert len(server.asked) == len(COLOURS)


# -- many at a time, and budgets ---------------------------------------------------------------------------------


def test_as_many_at_a_time_as_are_allowed_in_order(photos: Path) -> None:
    def script(asked: Asked, number: int) -> Reply:
        return Reply(said(f"photo {which(asked)}").body, wait=0.15 if number == 0 else 0.03)

    with stand_in(script) as server:
        rows = list(captune.caption(photos, model=server.name, **QUICK, concurrency=3, environment={}))
        assert server.most_at_once == 3
    assert [row.captions[0].text for row in rows] == [f"photo {number}" for number in range(12)]


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ({"max_requests": 7}, 7),
        ({"max_tokens_total": 600, "max_new_tokens": 10}, 5),
        ({"max_cost": 0.0006, "price_input": 1.0, "price_output": 2.0, "max_new_tokens": 10}, 5),
    ],
)
def test_a_budget_is_never_exceeded(limit: dict[str, Any], sent: int, photos: Path) -> None:
    with stand_in() as server:
        with pytest.raises(CaptuneError, match="The budget is spent"):
            list(captune.caption(photos, model=server.name, **QUICK, **limit, concurrency=1, environment={}))
        assert len(server.asked) == sent


def test_a_rate_is_kept(photos: Path) -> None:
    with stand_in() as server:
        list(captune.caption(photos, model=server.name, **QUICK, requests_per_minute=1200, environment={}))
        times = sorted(asked.at for asked in server.asked)
    assert times[-1] - times[0] >= 11 * 0.05 * 0.9


def test_a_job_captions_and_names_what_failed(photos: Path, tmp_path: Path) -> None:
    def script(asked: Asked, number: int) -> Reply:
        return said(f"photo {which(asked)}") if which(asked) else said(None, refusal="no")

    (photos / "99.png").write_bytes(b"\x89PNG, and nothing more")
    with stand_in(script) as server:
        report = captune.caption_job(photos, tmp_path / "out", model=server.name, **QUICK, shard_size=5, environment={})
        again = captune.caption_job(photos, tmp_path / "out", model=server.name, **QUICK, shard_size=5, environment={})
        asked = len(server.asked)
    assert (report.done, report.failed, again.captioned, asked) == (13, 2, 0, 12)
    rows = [json.loads(line) for path in sorted((tmp_path / "out").glob("*.jsonl")) for line in path.open()]
    assert [row["caption"] for row in rows[1:12]] == [f"photo {number}" for number in range(1, 12)]
    assert [row["status"] for row in rows] == ["error", *["ok"] * 11, "error"]
    assert "refuses" in rows[0]["error"]


def test_a_stopped_job_asks_for_nothing_twice(photos: Path, tmp_path: Path) -> None:
    """In the middle of its first shard; the folder stays, though no shard is written."""
    out, options = tmp_path / "out", {**QUICK, "concurrency": 1, "environment": {}}
    with stand_in(lambda asked, number: said(f"photo {which(asked)}")) as server:
        with pytest.raises(CaptuneError, match="The budget is spent"):
            captune.caption_job(photos, out, model=server.name, **options, max_requests=7)
        kept = (out / "_job" / "answers-1-of-1.jsonl").read_bytes()
        (out / "_job" / "answers-1-of-1.jsonl").write_bytes(kept[:-20])  # the last line was cut off
        captune.caption_job(photos, out, model=server.name, **options)
        assert len(server.asked) == 7 + 1 + 5
    (file,) = out.glob("*.jsonl")
    assert [json.loads(line)["caption"] for line in file.open()] == [f"photo {number}" for number in range(12)]
    assert not list((out / "_job").glob("answers*"))


def test_a_killed_job_asks_for_nothing_twice(photos: Path, tmp_path: Path) -> None:
    """Not even for what was under way: the process that asks outlives it."""
    out = tmp_path / "out"
    with stand_in(lambda asked, number: Reply(said(f"photo {which(asked)}").body, wait=0.3)) as server:
        words = ["caption", photos, "--out", out, "--format", "jsonl", "--model", server.name, "--no-sight-check"]
        command = [sys.executable, "-m", "captune", *map(str, words), "--concurrency", "2", "--shard-size", "5"]
        for answers in (1, 5, 8):
            job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while len(server.asked) < answers:
                time.sleep(0.01)
            job.kill()
            job.wait()
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert len(server.asked) == 12
    captions = [json.loads(line)["caption"] for file in sorted(out.glob("*.jsonl")) for line in file.open()]
    assert captions == [f"photo {number}" for number in range(12)]
    assert not list((out / "_job").glob("answers*"))


def test_flagged_captions_are_asked_for_again(photos: Path, tmp_path: Path) -> None:
    def script(asked: Asked, number: int) -> Reply:
        return said(f"Sure! Photo {which(asked)}" if number < 12 and which(asked) < 3 else f"photo {which(asked)}")

    with stand_in(script) as server:
        model = {"model": server.name, **QUICK, "shard_size": 5, "environment": {}}
        captune.caption_job(photos, tmp_path / "out", **model)
        first = [json.loads(line) for file in sorted((tmp_path / "out").glob("*.jsonl")) for line in file.open()]
        assert [row["flags"] for row in first] == [["chat"]] * 3 + [[]] * 9
        report = captune.caption_job(photos, tmp_path / "out", **model, retry_flagged=True)
        assert (report.captioned, len(server.asked)) == (3, 15)
    rows = [json.loads(line) for file in sorted((tmp_path / "out").glob("*.jsonl")) for line in file.open()]
    assert [row["caption"] for row in rows] == [f"photo {number}" for number in range(12)]
    assert not any(row["flags"] for row in rows)


# -- other verbs -------------------------------------------------------------------------------------------------


def test_questions_are_the_prompt(photos: Path) -> None:
    with stand_in(lambda asked, number: said(asked.prompt)) as server:
        (answer,) = captune.ask(photos / "00.png", "What colour is it?", model=server.name, **QUICK, environment={})
        (told,) = captune.ask(
            photos / "00.png", "What colour is it?", model=server.name, prompt="Be brief.", **QUICK, environment={}
        )
    assert (answer.answer, told.answer) == ("What colour is it?", "Be brief. What colour is it?")


def test_an_evaluation_counts_what_has_no_caption_as_empty(tiny_data: Path, tmp_path: Path) -> None:
    class Warned(Silent):
        sentences: ClassVar[list[str]] = []

        def warn(self, text: str) -> None:
            self.sentences.append(text)

    def script(asked: Asked, number: int) -> Reply:
        return said("a red square") if number else said(None, refusal="no")

    with stand_in(script) as server:
        found = captune.evaluate(
            server.name, tiny_data, split="test", metrics=("bleu",), resamples=0, draw_report=False, progress=Warned(),
            **QUICK, concurrency=1, environment={},
        )  # fmt: skip
        assert 0 < found.scores["bleu_1"] < 1
        assert "perplexity" not in found.scores
        assert any("Without a caption, and counted as empty: 1 of 4 images" in one for one in Warned.sentences)
        with pytest.raises(CaptuneError, match="Perplexity needs the model itself"):
            captune.evaluate(server.name, tiny_data, split="test", perplexity=True, **QUICK, environment={})


def test_models_here_and_behind_servers_are_compared(tiny_data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    FAMILIES["blip"].tiny().save(tmp_path / "here")
    options: dict[str, Any] = {"metrics": ("bleu",), "resamples": 10, "draw_report": False, "environment": {}, **QUICK}
    with stand_in(lambda asked, number: said("a red square")) as server:
        both = (str(tmp_path / "here"), tiny_data)
        with pytest.raises(UsageError, match="has no beams"):  # before the first model has captioned
            captune.evaluate(*both, against=server.name, out=tmp_path / "no", num_beams=3, **options)
        with pytest.raises(CaptuneError, match=r"no model folder \./typo"):
            captune.evaluate(*both, against="./typo", out=tmp_path / "no", **options)
        assert not (tmp_path / "no").exists()
        captune.evaluate(*both, against=server.name, out=tmp_path / "both", **options)
    found = captune.compare([tmp_path / "both"], metrics=("bleu",), resamples=10)
    assert list(found.reports) == [both[0], server.name]
    assert "a red square" in write_report(tmp_path / "both", figures=False).read_text()
    assert found.reports[server.name].scores["bleu_1"] > found.reports[both[0]].scores["bleu_1"]


def test_what_needs_the_weights_says_so(photos: Path, tiny_data: Path, tmp_path: Path) -> None:
    name, image = "openai:m@http://127.0.0.1:9", photos / "00.png"
    for asks in (
        lambda: captune.export(name, tmp_path / "x"),
        lambda: captune.train(tiny_data, name, tmp_path / "x", environment={}),
        lambda: captune.Captioner.load(name).inspect(image),
        lambda: captune.Captioner.load(name).explain(image),
    ):
        with pytest.raises(CaptuneError, match="is behind a server"):
            asks()


def test_captunes_server_hands_its_captions_on() -> None:
    """Also as a stream, and a refusal as an error."""
    photo = picture(1)
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(photo)}}]}]
    chat = {"model": "far", "messages": messages}
    with stand_in() as server, running({"far": server.name}, **QUICK) as serving, serving.client() as client:
        answer = client.post("/v1/caption", json={"image": encoded(photo), "max_new_tokens": 9})
        assert (answer.status_code, answer.json()["captions"][0]["text"]) == (200, "a dog on the beach")
        assert server.asked[0].body["max_tokens"] == 9
        whole = client.post("/v1/chat/completions", json=chat).json()["choices"][0]
        assert (whole["message"]["content"], whole["finish_reason"]) == ("a dog on the beach", "stop")
        stream = client.post("/v1/chat/completions", json={**chat, "stream": True}).text
        assert "a dog on the beach" in stream
        server.script = lambda asked, number: said(None, refusal="no")
        answer = client.post("/v1/caption", json={"image": encoded(photo)})
        assert answer.status_code == 422
        assert "the model refuses: no" in answer.json()["detail"]


def test_who_stops_a_job_does_not_wait_for_the_server(photos: Path, tmp_path: Path) -> None:
    """Answers under way still come into the file; a request that waits to be sent again is not sent."""
    busy = Reply({}, 429, {"Retry-After": "300"})
    with stand_in(lambda asked, number: Reply(said("a dog").body, wait=3) if number == 0 else busy) as server:
        words = ["caption", photos, "--out", tmp_path / "out", "--format", "jsonl", "--model", server.name]
        command = [sys.executable, "-m", "captune", *map(str, words), "--no-sight-check", "--concurrency", "2"]
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while len(server.asked) < 2:
            time.sleep(0.01)
        started = time.monotonic()
        job.send_signal(signal.SIGINT)
        _, message = job.communicate(timeout=30)
        assert (job.returncode, "the same command goes on" in message) == (130, True)
        assert time.monotonic() - started < 2.5
        kept, lock = (tmp_path / "out" / "_job" / f"answers-1-of-1.{end}" for end in ("jsonl", "lock"))
        while lock.exists():
            assert time.monotonic() - started < 20, "the process that asks does not end"
            time.sleep(0.02)
        assert len(kept.read_text().split()) > 1
        assert len(server.asked) == 2


def test_clients_leave_no_threads(image: Image.Image) -> None:
    with stand_in() as server:
        before = threading.active_count()
        for _ in range(20):
            Captioner.load(server.name, **QUICK)(image)
        gc.collect()
        end = time.monotonic() + 10
        while threading.active_count() > before + 4 + (os.cpu_count() or 1) and time.monotonic() < end:
            time.sleep(0.02)
        assert threading.active_count() <= before + 4 + (os.cpu_count() or 1)
