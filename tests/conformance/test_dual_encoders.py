"""Dual encoders of every kind against plain `transformers`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

import captune
from captune.models.loading.loader import family_of
from dual_encoders import KINDS, LONGEST, save_dual
from noise import noise

SIGMOID = ("siglip", "siglip2")
QUERIES = ["A dog on a beach", "a red circle", "grass"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: save_dual(folder / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        noise((90 + 9 * n, 40), 30 + 60 * n, n).convert("RGB").save(folder / f"{n}.png")
    return [str(folder / f"{n}.png") for n in range(3)]


def plain(folder: str, images: list[str], texts: list[str]) -> Any:
    """What the model itself computes of each image and each text, a pair at a time, as its model card has it."""
    # With sdpa the texts of an AIMv2 are causal only where one is padded: a text alone has another vector.
    attention = "eager" if folder.endswith("aimv2") else None
    model = AutoModel.from_pretrained(folder, attn_implementation=attention).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    sigmoid = model.config.model_type in SIGMOID
    padding = {"padding": "max_length", "max_length": LONGEST} if sigmoid else {}
    logits, cosines = np.zeros((len(images), len(texts))), np.zeros((len(images), len(texts)))
    for row, path in enumerate(images):
        with Image.open(path) as image:
            pixels = processor(images=image, return_tensors="pt")
        for column, text in enumerate(texts):
            ready = tokenizer(text.lower() if sigmoid else text, return_tensors="pt", **padding)
            ids = {name: ready[name] for name in ("input_ids",) + ("attention_mask",) * (not sigmoid)}
            with torch.no_grad():
                found = model(**ids, **pixels)
            logits[row, column] = found.logits_per_image
            unit = torch.nn.functional.normalize
            cosines[row, column] = (unit(found.image_embeds, dim=-1) * unit(found.text_embeds, dim=-1)).sum()
    return logits, cosines


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_transformers(saved: dict[str, str], pictures: list[str], kind: str) -> None:
    assert family_of(saved[kind]) == "matcher"
    logits, cosines = plain(saved[kind], pictures, QUERIES)
    found = captune.match(pictures, QUERIES, model=saved[kind]).pairs
    assert [(pair.image, pair.text) for pair in found] == [(image, text) for image in pictures for text in QUERIES]
    assert [pair.similarity for pair in found] == pytest.approx(cosines.ravel(), abs=1e-5)
    assert np.ptp(cosines, axis=0).min() > 1e-3
    assert np.ptp(cosines, axis=1).min() > 1e-3
    if kind in SIGMOID:
        assert [pair.probability for pair in found] == pytest.approx(1 / (1 + np.exp(-logits.ravel())), abs=1e-5)
        assert {pair.share for pair in found} == {None}
    else:
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert [pair.share for pair in found] == pytest.approx(shares.ravel(), abs=1e-5)
        assert {pair.probability for pair in found} == {None}
