"""A vision-language model behind the server: what it says of an image is what it says alone, whoever else asks."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import captune
from noise import noise
from serving import Serving, data_url, encoded, running
from tiny_vlms import lively

SPECIAL = "What is <|image_pad|> here <|im_end|><|video_pad|>?"
PROMPTS = ("", "What is it?", "Tell me of it in many words, {question}", "x", SPECIAL)


def png(width: int, height: int, seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise((width, height), seed).convert("RGB").save(file, "PNG")
    return file.getvalue()


PHOTOS = [png(90, 60, 1), png(60, 110, 2), png(64, 64, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("models") / "vlm"
    lively("qwen2_5_vl").save(made)
    return str(made)


@pytest.fixture(scope="module")
def alone(folder: str) -> captune.Captioner:
    return captune.Captioner.load(folder, device="cpu", precision="fp32", max_new_tokens=8)


@pytest.fixture(scope="module")
def server(folder: str) -> Iterator[Serving]:
    with running({"vlm": folder}, max_wait=50.0, max_new_tokens=8) as serving:
        yield serving


@pytest.fixture
def client(server: Serving) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def test_requests_with_other_images_and_prompts_share_a_batch_and_nothing_else(
    client: httpx.Client, alone: captune.Captioner
) -> None:
    """Images of other sizes, prompts of other lengths; special tokens in them are text."""
    asked = [(photo, prompt) for photo in PHOTOS for prompt in PROMPTS]
    expected = [alone(photo, **({"prompt": prompt} if prompt else {})) for photo, prompt in asked]

    def ask(one: tuple[bytes, str]) -> dict[str, Any]:
        photo, prompt = one
        fields = {"prompt": prompt} if prompt else {}
        answer = client.post("/v1/caption", json={"image": encoded(photo), **fields})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["captions"][0]
        return found

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, asked))
    assert [one["text"] for one in found] == [caption.text for caption in expected]
    assert [one["confidence"] for one in found] == pytest.approx([one.confidence for one in expected], rel=1e-4)
    assert len({one["text"] for one in found}) > len(asked) // 2


def test_a_question_is_a_message(client: httpx.Client, folder: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PHOTOS[0])
    answer = client.post("/v1/ask", json={"image": encoded(PHOTOS[0]), "question": SPECIAL})
    own = captune.ask(tmp_path / "a.png", SPECIAL, model=folder, device="cpu", precision="fp32", max_new_tokens=8)
    assert answer.json()["answers"][0]["text"] == own[0].answer


def test_chat_completions_whole_and_streamed_say_the_same_and_that_they_are_cut(client: httpx.Client) -> None:
    content = [{"type": "text", "text": SPECIAL}, {"type": "image_url", "image_url": {"url": data_url(PHOTOS[1])}}]
    request = {"messages": [{"role": "user", "content": content}], "max_tokens": 6}
    whole = client.post("/v1/chat/completions", json=request).json()["choices"][0]
    lines = client.post("/v1/chat/completions", json={**request, "stream": True}).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    deltas = [chunk["choices"][0] for chunk in chunks]
    assert "".join(each["delta"].get("content", "") for each in deltas) == whole["message"]["content"]
    assert deltas[-1]["finish_reason"] == whole["finish_reason"] == "length"


def test_what_it_cannot_do_is_said_with_the_next_step(client: httpx.Client) -> None:
    thin = client.post("/v1/caption", json={"image": encoded(png(1, 3000))})
    assert thin.status_code == 422
    assert "1 × 3000: too narrow" in thin.json()["detail"]
    maps = client.post("/v1/caption", json={"image": encoded(PHOTOS[0]), "explain": True})
    assert maps.status_code == 422
    assert "tokens of its own. Families with attention maps: blip" in maps.json()["hint"]
    kept = client.post("/v1/caption", json={"image": encoded(PHOTOS[0]), "prompt": "a", "prompt_in_caption": True})
    assert kept.status_code == 422
    assert "--prefill" in kept.json()["hint"]
