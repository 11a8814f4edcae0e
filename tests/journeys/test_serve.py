"""The server, asked over a real port: the captions are those of the model alone, whoever else asks."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import schemathesis
from PIL import Image

import captune
from captune.captions.quality import flags_of
from captune.captions.wording import worded
from captune.core.options import WordingOptions
from serving import Serving, data_url, encoded, picture, running, save_tiny
from translators import marian

PICTURES = [picture(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "base": save_tiny(folder / "base"),
        "tuned": save_tiny(folder / "tuned", seed=2),
        "vqa": save_tiny(folder / "vqa", "blip-vqa"),
        "matcher": save_tiny(folder / "matcher", "matcher"),
    }


@pytest.fixture(scope="module")
def library(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> captune.Library:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(5):
        (folder / f"{number}.png").write_bytes(PICTURES[number])
        (folder / f"{number}.txt").write_text(f"a photo of {number} dogs")
    library = captune.Library(folder, create=True)
    library.add()
    library.embed(models["matcher"])
    return library


@pytest.fixture(scope="module")
def server(models: dict[str, str], library: captune.Library) -> Iterator[Serving]:
    limits = {"max_wait": 20.0, "max_body": 2.0, "max_pixels": 1_000_000, "timeout": 20.0}
    with running(models, library=str(library.folder), **limits) as serving:
        yield serving


@pytest.fixture(scope="module")
def alone(models: dict[str, str]) -> dict[str, captune.Captioner]:
    return {
        name: captune.Captioner.load(models[name], device="cpu", precision="fp32") for name in ("base", "tuned", "vqa")
    }


@pytest.fixture
def client(server: Serving) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def texts(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [caption["text"] for caption in answer.json()["captions"]]


def test_a_file_of_a_form_and_base64_say_the_same(client: httpx.Client, alone: dict[str, Any]) -> None:
    form = client.post("/v1/caption", files={"image": ("a.png", PICTURES[0])}, data={"num_beams": "2"})
    plain = client.post("/v1/caption", json={"image": encoded(PICTURES[0]), "num_beams": 2})
    url = client.post("/v1/caption", json={"image": data_url(PICTURES[0]), "num_beams": 2, "model": "base"})
    assert form.json() == plain.json() == url.json()
    (caption,) = form.json()["captions"]
    said = alone["base"](PICTURES[0], num_beams=2)
    assert form.json()["model"] == "base"
    assert (caption["text"], caption["confidence"]) == (said.text, pytest.approx(said.confidence, abs=1e-5))


def test_the_prompt_of_a_request_is_filled_from_its_image(client: httpx.Client) -> None:
    photo = (Path(__file__).parents[1] / "unit" / "images" / "tagged" / "photo.jpg").read_bytes()

    def caption(image: bytes, prompt: str) -> dict[str, Any]:
        answer = client.post("/v1/caption", json={"image": encoded(image), "prompt": prompt, "model": "tuned"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    template, literal = "a dog[ of {names}][ from {place}] {stem}", "a dog of Anna Ærø, Ben from Seefeld, Zürich, "
    filled = caption(photo, template)
    assert filled == caption(photo, f"{literal}Switzerland ")
    assert filled != caption(photo, "a dog ")
    assert caption(PICTURES[0], template) == caption(PICTURES[0], "a dog ")
    batch = client.post("/v1/captions:batch", json={"images": [encoded(photo)], "prompt": template, "model": "tuned"})
    assert batch.json()["results"][0]["captions"] == filled["captions"]
    unknown = client.post("/v1/caption", json={"image": encoded(photo), "prompt": "a {nmes}"})
    assert unknown.status_code == 422
    assert "no field {nmes}" in unknown.text


def test_a_photo_of_a_phone(client: httpx.Client) -> None:
    """HEIC by each way in is read, or refused with what is missing."""
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.open(io.BytesIO(PICTURES[0])).convert("RGB")).save(file, quality=-1)
    photo = file.getvalue()
    ways: list[dict[str, Any]] = [
        {"files": {"image": ("IMG_1.HEIC", photo, "image/heic")}},
        {"json": {"image": encoded(photo)}},
        {"json": {"image": data_url(photo).replace("image/png", "image/heic")}},
    ]
    answers = [client.post("/v1/caption", **way) for way in ways]
    assert len({text for answer in answers for text in texts(answer)}) == 1
    cut = client.post("/v1/caption", json={"image": encoded(photo[:-200])})
    assert cut.status_code == 422
    assert "truncated" in cut.text


def test_captions_are_explained(client: httpx.Client, alone: dict[str, Any]) -> None:
    asked = {"image": encoded(PICTURES[3]), "num_captions": 2, "num_beams": 2, "explain": True}
    answer = client.post("/v1/caption", json=asked)
    assert len(texts(answer)) == 2
    first = answer.json()["captions"][0]
    told = alone["base"].explain(PICTURES[3], num_captions=2, num_beams=2).to_json()
    assert [word["word"] for word in first["explained"]["words"]] == [word["word"] for word in told["words"]]
    assert first["explained"]["words"][0]["map"][0] == pytest.approx(told["words"][0]["map"][0], abs=1e-4)
    assert "explained" not in client.post("/v1/caption", json={**asked, "explain": False}).json()["captions"][0]


def test_captions_in_a_language_that_is_offered(models: dict[str, str], alone: dict[str, Any], tmp_path: Path) -> None:
    german = marian(tmp_path / "opus")
    with running({"base": models["base"]}, languages=("de",), translator=german) as serving, serving.client() as client:
        asked = {"image": encoded(PICTURES[1]), "num_captions": 2, "num_beams": 2}
        plain, said = (client.post("/v1/caption", json={**asked, **more}) for more in ({}, {"language": "de"}))
        wanted = alone["base"].captions(PICTURES[1], num_captions=2, num_beams=2, language="de", translator=german)
        assert texts(said) == [caption.text for caption in wanted]
        assert [one["original"] for one in said.json()["captions"]] == texts(plain)
        assert "original" not in plain.json()["captions"][0]
        refused = client.post("/v1/caption", json={**asked, "language": "fr"})
        assert refused.status_code == 422
        assert "Offered here: de, en" in refused.json()["hint"]
        chat = openai.OpenAI(base_url=f"{serving.url}/v1", api_key="none")
        message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(PICTURES[1])}}]}
        pieces = chat.chat.completions.create(
            model="base", messages=[message], stream=True, extra_body={"language": "de"}
        )
        spoken = "".join(shard.choices[0].delta.content or "" for shard in pieces if shard.choices)
        assert spoken == alone["base"](PICTURES[1], num_beams=1, language="de", translator=german).text


def test_many_clients_with_mixed_options_and_models_get_the_captions_of_each_alone(
    server: Serving, client: httpx.Client, alone: dict[str, Any]
) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"num_beams": 1, "max_new_tokens": 8},
        {"num_captions": 3, "num_beams": 4},
        {"prompt": "a red", "max_new_tokens": 5},
        {"sample": True, "sample_seed": 7, "num_beams": 1},
        {"variations": 3, "sample_seed": 3},
    ]
    jobs = [(n, kind, model) for n in range(len(PICTURES)) for kind in kinds for model in ("base", "tuned")]

    def ask(job: tuple[int, dict[str, Any], str]) -> list[str]:
        n, kind, model = job
        return texts(client.post("/v1/caption", json={"image": encoded(PICTURES[n]), "model": model, **kind}))

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, jobs))
    for (n, kind, model), said in zip(jobs, found, strict=True):
        assert said == [caption.text for caption in alone[model].captions(PICTURES[n], **kind)], (n, kind, model)
    assert len({tuple(said) for said in found}) > len(PICTURES)  # the images do matter
    largest = [
        float(line.rpartition(" ")[2])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith('captune_batch_pictures_bucket{le="1.0",model="base"')
    ]
    count = next(
        float(line.rpartition(" ")[2])
        for line in client.get("/metrics").text.splitlines()
        if line.startswith('captune_batch_pictures_count{model="base"')
    )
    assert largest[0] < count  # clients did share batches


def test_unseeded_chance_differs_from_request_to_request(client: httpx.Client) -> None:
    asked = {"image": encoded(PICTURES[0]), "sample": True, "num_beams": 1, "top_k": 0, "temperature": 2.0}
    assert len({tuple(texts(client.post("/v1/caption", json=asked))) for _ in range(5)}) > 1


def test_a_batch_loses_only_its_bad_pictures(client: httpx.Client, alone: dict[str, Any]) -> None:
    images = [encoded(PICTURES[1]), encoded(b"no picture"), "!!!", encoded(PICTURES[2][:200]), encoded(PICTURES[2])]
    answer = client.post("/v1/captions:batch", json={"images": images, "num_beams": 1})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["error"]["status"] for result in results[1:4]] == [422] * 3
    assert all(result["error"]["detail"] for result in results[1:4])
    for place, data in ((0, PICTURES[1]), (4, PICTURES[2])):
        assert results[place]["captions"][0]["text"] == alone["base"](data, num_beams=1).text
    form = client.post("/v1/captions:batch", files=[("images", data) for data in PICTURES[:2]])
    assert [len(result["captions"]) for result in form.json()["results"]] == [1, 1]


def test_flags_and_what_stands_around_captions(client: httpx.Client, alone: dict[str, Any]) -> None:
    """Flags are about the caption as the model wrote it; an answer to a question is left as it is."""
    request = {"images": [encoded(image) for image in PICTURES], "max_new_tokens": 6, "prefix": "ohwx,", "one_line": 1}
    results = client.post("/v1/captions:batch", json=request).json()["results"]
    own = [alone["base"](image, max_new_tokens=6) for image in PICTURES]
    assert [one["captions"][0].get("flags", {}) for one in results] == [flags_of(caption) for caption in own]
    assert [one["captions"][0]["text"] for one in results] == [
        worded(caption, WordingOptions(prefix="ohwx,", one_line=True)).text for caption in own
    ]
    assert {"cut"} <= {flag for caption in own for flag in flags_of(caption)}
    no_room = client.post("/v1/caption", json={"image": encoded(PICTURES[0]), "max_characters": 3, "suffix": "(ai)"})
    assert no_room.status_code == 422
    assert "max_characters 3 leaves no room" in no_room.json()["detail"]
    question = {"image": encoded(PICTURES[0]), "question": "a", "prefix": "x"}
    assert client.post("/v1/ask", json=question).status_code == 422


def test_questions_and_matches(client: httpx.Client, alone: dict[str, Any], models: dict[str, str]) -> None:
    answer = client.post("/v1/ask", files={"image": PICTURES[3]}, data={"question": "what colour"}).json()
    assert answer["model"] == "vqa"
    assert answer["answers"][0]["text"] == alone["vqa"](PICTURES[3], prompt="what colour").text
    captioned = client.post("/v1/ask", json={"image": encoded(PICTURES[3]), "question": "a red", "model": "base"})
    assert captioned.json()["answers"][0]["text"] == alone["base"](PICTURES[3], prompt="a red").text
    wanted = ["a red circle", "dogs"]
    many = client.post("/v1/match", files={"image": PICTURES[3]}, data={"texts": wanted}).json()
    one = client.post("/v1/match", json={"image": encoded(PICTURES[3]), "texts": wanted[1:]}).json()
    assert [match["text"] for match in many["matches"]] == wanted
    assert many["matches"][1] == pytest.approx(one["matches"][0], abs=1e-5)
    assert client.post("/v1/match", json={"image": "AA", "texts": ["x"], "model": "base"}).status_code == 422
    assert client.post("/v1/caption", json={"image": "AA", "model": "matcher"}).status_code == 422


def test_a_library_is_searched_by_words_by_meaning_and_by_an_image(
    client: httpx.Client, library: captune.Library
) -> None:
    def search(**request: Any) -> list[dict[str, Any]]:
        answer = client.post("/v1/search", **request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for mode in ("meaning", "both"):
        found = search(json={"words": "a dog 3", "mode": mode, "limit": 4})
        alone = [each.to_json() for each in library.search("a dog 3", mode=mode, limit=4)]
        assert [each.pop("similarity") for each in found] == pytest.approx(
            [e.pop("similarity") for e in alone], abs=1e-5
        )
        assert [each.pop("score") for each in found] == pytest.approx([each.pop("score") for each in alone], abs=1e-5)
        assert found == alone
    uploaded = search(files={"like": ("a.png", PICTURES[2])}, data={"limit": "2"})
    assert (len(uploaded), uploaded[0]["path"]) == (2, "2.png")
    assert uploaded[0]["similarity"] == pytest.approx(1, abs=1e-2)
    assert uploaded == search(json={"like": encoded(PICTURES[2]), "limit": 2})
    cut = client.post("/v1/search", json={"like": encoded(PICTURES[2][:-300])})
    assert (cut.status_code, "truncated" in cut.text) == (422, True)


def test_models_options_health_and_the_page(client: httpx.Client, models: dict[str, str]) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == list(models)
    assert [model["family"] for model in listed] == ["blip", "blip", "blip-vqa", "matcher"]
    assert client.get("/v1/options").json()["properties"]["num_beams"]["maximum"] == 64
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    page = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) == 3
    assert "//" not in page.replace("</script>", "").replace("// ", "")
    for file in files:
        assert client.get(file).status_code == 200, file
    assert client.get("/docs/files/../server.py").status_code == 404
    schema = client.get("/openapi.json").json()
    assert "/v1/captions:batch" in schema["paths"]
    assert "example" in schema["paths"]["/v1/caption"]["post"]["requestBody"]["content"]["application/json"]


@pytest.fixture
def chat(server: Serving) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=server.client()
    ) as client:
        yield client


def message(*parts: str, image: bytes) -> list[Any]:
    words = [{"type": "text", "text": text} for text in parts]
    return [{"role": "user", "content": [*words, {"type": "image_url", "image_url": {"url": data_url(image)}}]}]


def test_the_openai_client(chat: openai.OpenAI, alone: dict[str, Any]) -> None:
    assert [model.id for model in chat.models.list()] == ["base", "tuned", "vqa", "matcher"]
    whole = chat.chat.completions.create(model="base", messages=message(image=PICTURES[4]), max_tokens=12)
    assert whole.choices[0].message.content == alone["base"](PICTURES[4], max_new_tokens=12).text
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    several = chat.chat.completions.create(
        model="tuned", messages=message("a red", image=PICTURES[4]), n=2, extra_body={"num_beams": 4}
    )
    said = alone["tuned"].captions(PICTURES[4], num_beams=4, num_captions=2, prompt="a red")
    assert [choice.message.content for choice in several.choices] == [caption.text for caption in said]


def test_the_openai_client_with_more_tokens_than_there_is_room_for(
    chat: openai.OpenAI, alone: dict[str, Any], server: Serving
) -> None:
    said = alone["base"](PICTURES[4], max_new_tokens=alone["base"].model.codec.token_budget()).text
    for most in (512, 1024, 4096):
        for more in ({"max_tokens": most}, {"max_completion_tokens": most}, {"max_tokens": most, "n": 16}):
            found = chat.chat.completions.create(model="base", messages=message(image=PICTURES[4]), **more)
            assert "n" in more or found.choices[0].message.content == said
    chunks = list(
        chat.chat.completions.create(model="base", messages=message(image=PICTURES[4]), max_tokens=4096, stream=True)
    )
    assert chunks[-1].choices[0].finish_reason == "stop"
    with server.client() as client:
        long = client.post(
            "/v1/caption", json={"model": "base", "image": data_url(PICTURES[4]), "max_new_tokens": 4096}
        )
        assert long.json()["captions"][0]["text"] == said
        for wrong in (0, -1):
            asked = {"messages": message(image=PICTURES[4]), "max_tokens": wrong}
            assert client.post("/v1/chat/completions", json=asked).status_code == 422


def test_the_openai_client_streams(chat: openai.OpenAI, alone: dict[str, Any]) -> None:
    for image in PICTURES[:4]:
        stream = chat.chat.completions.create(
            model="base", messages=message(image=image), stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == "".join(alone["base"].speak(image))
        cut = alone["base"](image, num_beams=1).cut
        assert chunks[-2].choices[0].finish_reason == ("length" if cut else "stop")
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens > 0


def test_the_openai_client_stops_and_tells_probabilities_whole_and_streamed(
    chat: openai.OpenAI, alone: dict[str, Any]
) -> None:
    """A stop sequence is never sent in part; what a stream says is what the whole answer says."""
    image, spoken = PICTURES[5], ""
    options = {"max_tokens": 12, "temperature": 0, "extra_body": {"num_beams": 1, "min_new_tokens": 8}}
    own = alone["base"](image, num_beams=1, min_new_tokens=8, max_new_tokens=12)
    for stop in (None, own.text[3:6], ["@", own.text[2:4]], [own.text[0]]):
        asked: dict[str, Any] = {"model": "base", "messages": message(image=image), "logprobs": True, "stop": stop}
        whole = chat.chat.completions.create(**asked, **options)
        stream = chat.chat.completions.create(**asked, **options, stream=True, stream_options={"include_usage": True})
        chunks = list(stream)
        (choice,), deltas = whole.choices, [chunk.choices[0] for chunk in chunks if chunk.choices]
        spoken = "".join(delta.delta.content or "" for delta in deltas)
        ends = [own.text.index(one) for one in ([stop] if isinstance(stop, str) else stop or []) if one in own.text]
        assert choice.message.content == spoken == own.text[: min(ends, default=None)]
        assert deltas[-1].finish_reason == choice.finish_reason == ("length" if own.cut and not ends else "stop")
        assert chunks[-1].usage == whole.usage
        streamed = [one for delta in deltas if delta.logprobs for one in delta.logprobs.content]
        found = choice.logprobs.content if choice.logprobs else []
        assert streamed == found
        assert "".join(one.token for one in found).startswith(choice.message.content)
    whole = chat.chat.completions.create(model="base", messages=message(image=image), logprobs=True, **options)
    found = whole.choices[0].logprobs.content
    ended = not own.cut
    assert [one.logprob for one in found] == pytest.approx(own.log_probs[: len(own.log_probs) - ended], rel=1e-4)
    assert whole.usage.completion_tokens == len(own.tokens)


def test_the_openai_client_goes_on_talking(chat: openai.OpenAI, alone: dict[str, Any]) -> None:
    """The image is in an earlier message; several captions are streamed, each with its own end."""
    turns = [*message("a", image=PICTURES[0]), {"role": "assistant", "content": "a dog"}]
    turns += [*message(image=PICTURES[1]), {"role": "assistant", "content": "b"}, {"role": "user", "content": "a red"}]
    said = chat.chat.completions.create(model="vqa", messages=turns)
    assert said.choices[0].message.content == alone["vqa"](PICTURES[1], prompt="a red").text
    drawn: dict[str, Any] = {"model": "base", "messages": turns, "n": 3, "seed": 5, "temperature": 1.5}
    whole = chat.chat.completions.create(**drawn)
    chunks = [chunk.choices[0] for chunk in chat.chat.completions.create(**drawn, stream=True)]
    for choice in whole.choices:
        parts = [chunk for chunk in chunks if chunk.index == choice.index]
        assert "".join(part.delta.content or "" for part in parts) == choice.message.content
        assert [part.finish_reason for part in parts] == [None, choice.finish_reason]


def ollama(client: httpx.Client, path: str, **request: Any) -> list[dict[str, Any]]:
    """The lines of an answer; the body has the type that `curl -d` sends."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post(path, content=json.dumps({"model": "base:latest", **request}), headers=form)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_client_of_ollama(client: httpx.Client, alone: dict[str, Any]) -> None:
    image, options = encoded(PICTURES[6]), {"num_predict": 7, "temperature": 0, "repeat_penalty": 1.1, "num_ctx": 2048}
    own = alone["base"](PICTURES[6], num_beams=1, max_new_tokens=7, repetition_penalty=1.1)
    sent: dict[str, Any] = {"images": [image], "suffix": "", "options": options, "keep_alive": "5m"}
    lines = ollama(client, "/api/generate", **sent)
    assert "".join(line["response"] for line in lines) == own.text
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    last = lines[-1]
    assert (last["done_reason"], last["eval_count"]) == ("length" if own.cut else "stop", len(own.tokens))
    assert last["total_duration"] >= last["eval_duration"] > 0
    assert last["model"] == "base:latest"
    (whole,) = ollama(client, "/api/generate", **{**sent, "options": {**options, "num_beams": 1}}, stream=False)
    assert (whole["response"], whole["done"], whole["prompt_eval_count"]) == (own.text, True, last["prompt_eval_count"])
    messages = [{"role": "user", "content": "a red", "images": [image]}]
    (talk,) = ollama(client, "/api/chat", messages=messages, stream=False, options={"stop": ["a"]})
    assert talk["message"]["content"] == alone["base"](PICTURES[6], prompt="a red").text.partition("a")[0]
    assert ollama(client, "/api/generate")[0]["done_reason"] == "load"
    listed = client.get("/api/tags").json()["models"]
    assert [(model["name"], model["details"]["family"]) for model in listed] == [
        ("base:latest", "blip"), ("tuned:latest", "blip"), ("vqa:latest", "blip-vqa"),
    ]  # fmt: skip
    assert "vision" in client.post("/api/show", content=b'{"name": "base"}').json()["capabilities"]
    assert client.get("/api/version").json() == {"version": captune.__version__}
    assert client.head("/").status_code == 200
    for wrong in (
        {"prompt": "hi"},
        {"images": [image] * 2},
        {"images": ["!!!"]},
        {"images": [image], "format": "json"},
    ):
        refused = client.post("/api/generate", json={"model": "base", **wrong})
        assert refused.status_code == 422
        assert refused.json()["detail"] in refused.json()["error"]


def test_instructions_are_left_out_and_the_servers_wording_is_everywhere(
    models: dict[str, str], alone: dict[str, Any]
) -> None:
    """What PhotoPrism sends to a captioner that would continue it."""
    with running({"base": models["base"]}, ignore_instructions=True, suffix="(ai)") as serving:
        sent = {"model": "base", "prompt": "Write one sentence.", "images": [encoded(PICTURES[0])]}
        with serving.client() as client:
            said = "".join(line["response"] for line in ollama(client, "/api/generate", **sent))
            plain = client.post("/v1/caption", json={"image": sent["images"][0], "num_beams": 1})
        assert said == f"{alone['base'](PICTURES[0], num_beams=1).text} (ai)" == texts(plain)[0]


def test_the_openai_client_learns_what_is_wrong(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        chat.chat.completions.create(model="gpt-4o", messages=message(image=PICTURES[0]))
    with pytest.raises(openai.UnprocessableEntityError):
        chat.chat.completions.create(model="base", messages=[{"role": "user", "content": "no picture"}])
    with pytest.raises(openai.UnprocessableEntityError):
        chat.chat.completions.create(model="base", messages=message(image=b"no picture"), stream=True)
    for more in (
        {"top_logprobs": 2, "logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"stop": ["a"] * 5},
    ):
        with pytest.raises(openai.UnprocessableEntityError):
            chat.chat.completions.create(model="base", messages=message(image=PICTURES[0]), **more)


def test_models_come_and_go_within_the_memory_but_not_under_a_request(models: dict[str, str]) -> None:
    size = max(Path(models[name], "model.safetensors").stat().st_size for name in ("base", "tuned"))
    two = {name: models[name] for name in ("base", "tuned")}
    with running(two, memory=1.5 * size / 1e9, max_wait=1.0) as serving, serving.client() as client:

        def loaded() -> list[str]:
            return [model["id"] for model in client.get("/v1/models").json()["data"] if model["loaded"]]

        assert loaded() == ["base"]
        expected = {name: captune.Captioner.load(two[name], device="cpu")(PICTURES[0]).text for name in two}

        def ask(name: str) -> tuple[str, list[str]]:
            return name, texts(client.post("/v1/caption", json={"image": encoded(PICTURES[0]), "model": name}))

        assert ask("tuned") == ("tuned", [expected["tuned"]])
        assert loaded() == ["tuned"]
        with ThreadPoolExecutor(8) as pool:  # both at once: each waits for the other to be done
            for name, said in pool.map(ask, ["base", "tuned"] * 8):
                assert said == [expected[name]]
        assert len(loaded()) == 1
        assert all(model.users == 0 for model in serving.service.pool.models.values())


def test_no_input_of_the_schema_breaks_the_server(server: Serving) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: list[int] = []

    from hypothesis import HealthCheck, Phase, given, settings

    for operation in (result.ok() for result in schema.get_all_operations()):

        @settings(
            max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate], derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def go(case: Any) -> None:
            answer = case.call(timeout=20)
            seen.append(answer.status_code)
            assert answer.status_code < 500, (answer.status_code, answer.text)

        go()
    assert {200, 422} <= set(seen)
    assert len(seen) > 60


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"a":' * 100_000),
        ("application/json", b"[]"),
        ("application/json", b"null"),
        ("application/json", b'{"image": NaN}'),
        ("application/json", b'{"image": "\\ud800"}'),
        ("application/json", b'{"image": "\xff"}'),
        ("application/json", b'{"image": 1' + b"0" * 5000 + b"}"),
        ("application/json", b'{"image": "AA", "num_beams": 1e999}'),
        ("application/json", b'{"image": "AA", "num_beams": [1]}'),
        ("application/json", b'{"image": {"a": 1}}'),
        ("application/json", json.dumps({"image": "AA", "prompt": "x" * 5000}).encode()),
        ("application/json", json.dumps({"image": encoded(PICTURES[0]), "model": "../../etc/passwd"}).encode()),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nYWJj'),
        (
            "multipart/form-data; boundary=x; charset=nonsense",
            b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--x--\r\n',
        ),
        ("multipart/form-data; boundary=" + "x" * 300, b"--x--"),
        ("text/plain", b"hello"),
        ("application/x-www-form-urlencoded", b"image=AA"),
        ("", b"\x00\x01"),
    ],
)
def test_garbage_is_told_so(client: httpx.Client, content: str, body: bytes) -> None:
    for path in ("/v1/caption", "/v1/captions:batch", "/v1/ask", "/v1/match", "/v1/search", "/v1/chat/completions"):
        answer = client.post(path, content=body, headers={"Content-Type": content} if content else {})
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
