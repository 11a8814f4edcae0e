"""Keywords by matchers against plain `transformers`: CLIP, SigLIP and BLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.core.errors import CaptuneError
from captune.images.batches import read_pixels
from captune.models.blip_matcher import BlipMatcher
from dual_encoders import save_dual
from noise import noise
from serving import save_tiny

LABELS = {"dog": ("dog", "puppy"), "beach": ("beach",), "two dogs": ("two dogs",), "grass": ("grass", "a lawn")}
TEMPLATES = ("a photo of {label}", "{label} on a picture")
TEXTS = ["a photo of a dog", "two dogs play on a beach", "a lawn with grass on a picture", "a puppy"] * 3


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "labels.txt"
    path.write_text("\n".join([*TEMPLATES, *map(", ".join, LABELS.values())]))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(3):
        noise((50 + 9 * n, 40), 30 + 60 * n, n).convert("RGB").save(folder / f"{n}.png")
    (folder / "1b.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    return folder


def lively(matcher: Any) -> Any:
    with torch.no_grad():
        for parameter in matcher.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return matcher


def unit(rows: Any) -> np.ndarray:
    rows = getattr(rows, "pooler_output", rows).detach().numpy()
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def plain(folder: Path, image: Path) -> np.ndarray:
    """Probabilities of the labels as a careful user computes them, a text at a time."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model: Any = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with Image.open(image) as opened:
        seen = unit(model.get_image_features(pixel_values=processor(opened, return_tensors="pt")["pixel_values"]))[0]
    sigmoid = model.config.model_type == "siglip"
    padding = {"padding": "max_length", "max_length": 16} if sigmoid else {}

    def text(prompt: str) -> np.ndarray:
        return unit(model.get_text_features(input_ids=tokenizer(prompt, return_tensors="pt", **padding)["input_ids"]))[
            0
        ]

    cosines = []
    for names in LABELS.values():
        vectors = [np.mean([text(t.replace("{label}", name)) for t in TEMPLATES], axis=0) for name in names]
        cosines.append(max(float(vector @ seen / np.linalg.norm(vector)) for vector in vectors))
    logits = np.array(cosines) * float(model.logit_scale.detach().exp())
    if sigmoid:
        return 1 / (1 + np.exp(-logits - float(model.logit_bias.detach())))
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_probabilities_are_those_of_transformers(kind: str, labels: Path, pictures: Path, tmp_path: Path) -> None:
    save_dual(tmp_path, kind)
    rows = list(captune.tag(pictures, labels=labels, model=str(tmp_path), threshold=0))
    assert [Path(row.image).name for row in rows] == ["0.png", "1.png", "1b.png", "2.png"]
    assert [row.status for row in rows] == ["ok", "ok", "error", "ok"]
    for row in rows:
        if row.status == "ok":
            expected = dict(zip(LABELS, plain(tmp_path, Path(row.image)), strict=True))
            assert {each.text: each.probability for each in row.keywords} == pytest.approx(expected, abs=1e-5)
            assert [each.text for each in row.keywords] == sorted(expected, key=lambda name: -expected[name])
    sums = [sum(each.probability or 0 for each in row.keywords) for row in rows if row.keywords]
    assert (sums == pytest.approx([1] * 3)) == (kind == "clip"), "CLIP's labels share a probability of 1"
    least = sorted(each.probability or 0 for row in rows for each in row.keywords)[6]
    some = list(captune.tag(pictures, labels=labels, model=str(tmp_path), threshold=least, best=2))
    assert [row.keywords for row in some] == [
        tuple(each for each in row.keywords if (each.probability or 0) >= least)[:2] for row in rows
    ]


def test_blip_judges_the_nearest_labels(labels: Path, pictures: Path, tmp_path: Path) -> None:
    lively(BlipMatcher.tiny(TEXTS)).save(tmp_path)
    matcher = BlipMatcher.load(str(tmp_path))
    rows = [row for row in captune.tag(pictures, labels=labels, model=str(tmp_path), threshold=0) if row.keywords]
    for row in rows:
        patches = matcher.encode(torch.from_numpy(read_pixels(row.image, matcher.pixels))[None])
        seen = matcher.embed_images(patches)[0].numpy()
        for each in row.keywords:
            near = []
            for name in LABELS[each.text]:
                prompts = [template.replace("{label}", name) for template in TEMPLATES]
                vector = np.mean([matcher.embed_texts([prompt])[0].numpy() for prompt in prompts], axis=0)
                near.append((float(vector @ seen / np.linalg.norm(vector)), prompts))
            chances = [float(matcher.probability(patches, [prompt])[0]) for prompt in max(near)[1]]
            assert each.probability == pytest.approx(np.mean(chances), abs=1e-5)
        assert len(row.keywords) == len(LABELS)
    few = list(captune.tag(pictures, labels=labels, model=str(tmp_path), threshold=0, best=1, candidates=1))
    assert [len(row.keywords) for row in few] == [1, 1, 0, 1]


def test_a_model_that_matches_nothing(labels: Path, pictures: Path, tmp_path: Path) -> None:
    from captune.models.blip import Blip

    Blip.tiny().save(tmp_path)
    with pytest.raises(CaptuneError, match="writes texts, and does not compare"):
        captune.tag(pictures, labels=labels, model=str(tmp_path))


def test_captions_that_a_model_writes_now(labels: Path, pictures: Path, tmp_path: Path) -> None:
    model = save_tiny(tmp_path)
    rows = list(captune.tag(pictures, labels=labels, captioner=model, num_beams=1, max_new_tokens=7))
    captions = list(captune.caption(pictures, model=model, num_beams=1, max_new_tokens=7))
    assert [row.caption for row in rows] == [row.captions[0].text if row.captions else None for row in captions]
    assert [row.status for row in rows] == ["ok", "ok", "error", "ok"]
