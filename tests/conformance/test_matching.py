"""Matching, retrieval and embeddings against plain `transformers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.images.batches import read_pixels
from captune.models.blip import Blip
from captune.models.blip_matcher import BlipMatcher

TEXTS = ["a red circle", "two dogs play on a bike", "a man"]


def lively(mode: Any) -> Any:
    with torch.no_grad():
        for parameter in mode.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return mode


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("modes") / "matcher"
    lively(BlipMatcher.tiny(TEXTS * 3)).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tiny_data: Path) -> list[str]:
    return [str(path) for path in sorted((tiny_data.parent / "Images").iterdir())[:6]]


def plain_scores(matcher: str, image: str, text: str) -> tuple[float, float]:
    """As a careful user computes them: a pair at a time, without padding."""
    from transformers import AutoTokenizer, BlipForImageTextRetrieval

    model = BlipForImageTextRetrieval.from_pretrained(matcher).eval()
    mode = BlipMatcher.load(matcher)
    pixels = mode.pixels.normalise(torch.from_numpy(read_pixels(image, mode.pixels))[None])
    words = AutoTokenizer.from_pretrained(matcher)(text, return_tensors="pt")
    words = {name: words[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        fits = model(pixel_values=pixels, **words).itm_score.softmax(-1)[0, 1]
        near = model(pixel_values=pixels, **words, use_itm_head=False).itm_score[0, 0]
    return float(fits), float(near)


def test_scores_are_those_of_transformers(matcher: str, pictures: list[str]) -> None:
    found = captune.match(pictures, TEXTS, model=matcher)
    assert [(p.image, p.text) for p in found.pairs] == [(image, text) for image in pictures for text in TEXTS]
    for pair in found.pairs[:6]:
        fits, near = plain_scores(matcher, pair.image, pair.text)
        assert pair.probability == pytest.approx(fits, abs=1e-5)
        assert pair.similarity == pytest.approx(near, abs=1e-5)
    assert len({round(pair.probability, 4) for pair in found.pairs}) > 3, "the image matters"


@pytest.mark.parametrize("find", ["pictures", "texts"])
def test_retrieval_finds_the_likeliest(matcher: str, pictures: list[str], find: str) -> None:
    every = captune.match(pictures, TEXTS, model=matcher).pairs
    found = captune.match(pictures, TEXTS, model=matcher, find=find, best=2).pairs
    side = (lambda pair: pair.text) if find == "pictures" else (lambda pair: pair.image)
    for key in TEXTS if find == "pictures" else pictures:
        right = sorted((p for p in every if side(p) == key), key=lambda p: -p.probability)[:2]
        mine = [p for p in found if side(p) == key]
        assert [p.probability for p in mine] == pytest.approx([p.probability for p in right], abs=1e-5)


def test_saved_embeddings_stand_for_the_pictures(matcher: str, pictures: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xffnothing")
    kept = captune.embed([*pictures, str(tmp_path / "broken.jpg")], tmp_path / "e.npz", model=matcher)
    assert kept.images == tuple(pictures)
    assert list(kept.failed) == [str(tmp_path / "broken.jpg")]
    np.testing.assert_allclose(np.linalg.norm(kept.vectors, axis=1), 1, rtol=1e-5)
    again = captune.match(tmp_path / "e.npz", TEXTS, model=matcher, find="pictures")
    once = captune.match(pictures, TEXTS, model=matcher, find="pictures")
    assert again.pairs == once.pairs
    with pytest.raises(CaptuneError, match="holds no embeddings"):
        captune.match(pictures[0] + ".npz", TEXTS, model=matcher)


def test_the_command_line(
    matcher: str, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from captune.cli.main import run

    (tmp_path / "texts.txt").write_text("a red circle\n\na man\n")
    assert run(["match", pictures[0], "--texts", str(tmp_path / "texts.txt"), "--model", matcher, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pairs"]) == 2
    assert run(["embed", *pictures, "--out", str(tmp_path / "e.npz"), "--model", matcher, "--quiet"]) == 0
    assert run(["match", str(tmp_path / "e.npz"), "--text", "a man", "--find", "pictures", "--model", matcher]) == 0
    assert "cosine" in capsys.readouterr().out


def test_wrong_use_is_said(matcher: str, pictures: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no text"):
        captune.match(pictures, [], model=matcher)
    Blip.tiny().save(tmp_path / "captioner")
    with pytest.raises(CaptuneError, match="writes texts, and does not compare"):
        captune.match(pictures, TEXTS, model=str(tmp_path / "captioner"))
    (tmp_path / "broken.jpg").write_text("no image")
    found = captune.match(tmp_path / "broken.jpg", TEXTS, model=matcher, find="pictures")
    assert (found.pairs, len(found.failed)) == ((), 1)
    with pytest.raises(UsageError, match=r"does not end in \.npz"):
        captune.embed(pictures, tmp_path / "e.txt", model=matcher)


def test_capfilt_keeps_what_the_matcher_finds_true(
    matcher: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioner = tmp_path / "run"
    captune.train(
        tiny_data, "new:blip-tiny", captioner, max_steps=60, batch_size=6, learning_rate=5e-3, validation_images=0,
        trackers=("none",), environment={},
    )  # fmt: skip
    monkeypatch.setattr(
        BlipMatcher, "probability", lambda self, patches, texts: torch.tensor([float("red" in text) for text in texts])
    )
    done = captune.capfilt(
        tiny_data, tmp_path / "clean", model=str(captioner), matcher=matcher, max_new_tokens=2, environment={}
    )
    rows = [json.loads(line) for line in (tmp_path / "clean" / "captions.jsonl").read_text().splitlines()]
    dropped = [json.loads(line) for line in (tmp_path / "clean" / "report" / "dropped.jsonl").read_text().splitlines()]
    assert rows
    assert dropped
    assert all("red" in row["caption"] for row in rows)
    assert not any("red" in row["text"] for row in dropped)
    assert sum(done.kept.values()) == len(rows)
    assert sum(done.dropped.values()) == len(dropped)
    assert {row["from"] for row in dropped} == {"web", "written"}
    assert done.pictures + done.empty == 20
    again = captune.prepare(tmp_path / "clean", tmp_path / "data", duplicates=False)
    assert sum(count.images for count in again.splits.values()) == done.pictures
    with pytest.raises(CaptuneError, match="not empty"):
        captune.capfilt(tiny_data, tmp_path / "clean", model=str(captioner), matcher=matcher, environment={})
