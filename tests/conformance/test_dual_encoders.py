"""Dual encoders of every kind against plain `transformers`."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    Blip2ForImageTextRetrieval,
    CLIPTextConfig,
    CLIPTextModel,
    FlavaForPreTraining,
    GPT2Config,
    GPT2Model,
)

import captune
from captune.cli.main import run
from captune.core.errors import CaptuneError, UsageError
from captune.images.batches import read_pixels
from captune.inference.match import Match, match_pixels
from captune.library.library import Library
from captune.models.blip_matcher import BlipMatcher
from captune.models.loading.loader import family_of
from captune.models.matcher import load_matcher
from dual_encoders import KINDS, LONGEST, WIDE, save_blip2, save_dual
from noise import noise
from recorded import RecordedProgress
from serving import save_tiny

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
    auto = FlavaForPreTraining if folder.endswith("flava") else AutoModel
    model = auto.from_pretrained(folder, attn_implementation=attention).eval()
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
            if auto is FlavaForPreTraining:  # what its loss compares; an image and a text are vectors of every token
                logits[row, column] = found.contrastive_logits_per_image
                cosines[row, column] = logits[row, column] / model.flava.logit_scale.exp().item()
                continue
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


def test_blip2_by_its_nearest_query_and_by_its_head(pictures: list[str], tmp_path: Path) -> None:
    name = save_blip2(tmp_path / "blip2")
    model, processor = Blip2ForImageTextRetrieval.from_pretrained(name).eval(), AutoProcessor.from_pretrained(name)
    cosines, heads = [], []
    for path in pictures:
        for text in QUERIES:
            with Image.open(path) as image, torch.no_grad():
                inputs = processor(images=image, text=text, return_tensors="pt")
                cosines.append(float(model(**inputs).logits_per_image))
                heads.append(
                    float(model(**inputs, use_image_text_matching_head=True).logits_per_image.softmax(1)[0, 1])
                )
    assert family_of(name) == "matcher"
    found = captune.match(pictures, QUERIES, model=name).pairs
    assert [pair.similarity for pair in found] == pytest.approx(cosines, abs=1e-5)
    assert [pair.probability for pair in found] == pytest.approx(heads, abs=1e-5)
    assert np.ptp(cosines) > 1e-2 < np.ptp(heads)
    captune.embed(pictures, tmp_path / "e.npz", model=name)
    best = captune.match(tmp_path / "e.npz", QUERIES, find="pictures", best=3).pairs
    assert [(pair.similarity, pair.probability) for pair in best] == [
        pytest.approx(each, abs=1e-5)
        for column in range(len(QUERIES))
        for each in sorted(zip(cosines[column::3], heads[column::3], strict=True), key=lambda pair: -pair[1])
    ]
    with pytest.raises(CaptuneError, match="has 3 vectors of an image, and a library has one"):
        Library(tmp_path, create=True).embed(name)


@pytest.mark.parametrize("kind", ["clip", "siglip", "altclip"])
def test_a_long_text_is_read_to_its_limit_and_no_further(saved: dict[str, str], pictures: list[str], kind: str) -> None:
    progress = RecordedProgress()
    long = "a dog on a beach " * 20
    short, first, second = captune.match(
        pictures[0], ["a dog", long, long + "and a puppy"], model=saved[kind], progress=progress
    ).pairs
    assert [short.cut, first.cut, second.cut] == [False, True, True]
    assert first.similarity == second.similarity != short.similarity
    assert progress.warnings == [f"2 texts are longer than the {LONGEST} tokens that this model reads: {long[:60]!r}…"]


def test_one_text_alone_has_no_share(saved: dict[str, str], pictures: list[str]) -> None:
    found = captune.match(pictures, "a dog", model=saved["clip"]).pairs
    assert [(pair.probability, pair.share) for pair in found] == [(None, None)] * 3


def test_a_server_gives_each_image_its_own_texts(saved: dict[str, str], pictures: list[str]) -> None:
    matcher = load_matcher(saved["clip"])
    texts = [QUERIES, QUERIES[1:]]
    found = match_pixels(matcher, [read_pixels(path, matcher.pixels) for path in pictures[:2]], texts)
    for path, own_texts, pairs in zip(pictures[:2], texts, found, strict=True):
        expected = captune.match(path, own_texts, model=saved["clip"]).pairs
        assert [pair.text for pair in pairs] == own_texts
        assert [pair.share for pair in pairs] == pytest.approx([pair.share for pair in expected], abs=1e-6)


def test_vectors_stand_for_images_that_are_gone(saved: dict[str, str], pictures: list[str], tmp_path: Path) -> None:
    images = [str(shutil.copy(path, tmp_path)) for path in pictures]
    every = captune.match(images, QUERIES, model=saved["siglip2"]).pairs
    captune.embed(images, tmp_path / "e.npz", model=saved["siglip2"])
    for path in images:
        Path(path).unlink()

    def best(side: Callable[[Match], str], name: str) -> list[Match]:
        return sorted((pair for pair in every if side(pair) == name), key=lambda pair: -pair.similarity)[:2]

    expected = {
        "all": list(every),
        "pictures": [pair for text in QUERIES for pair in best(lambda pair: pair.text, text)],
        "texts": [pair for image in images for pair in best(lambda pair: pair.image, image)],
    }
    for find, pairs in expected.items():
        found = captune.match(tmp_path / "e.npz", QUERIES, find=find, best=2).pairs
        assert [(pair.image, pair.text) for pair in found] == [(pair.image, pair.text) for pair in pairs]
        assert [pair.similarity for pair in found] == pytest.approx([pair.similarity for pair in pairs], abs=1e-6)
        assert [pair.probability for pair in found] == pytest.approx([pair.probability for pair in pairs], abs=1e-6)


def test_the_next_command_works_as_printed(
    saved: dict[str, str], pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["embed", *pictures, "--out", str(tmp_path / "e.npz"), "--model", saved["siglip"]]) == 0
    printed = capsys.readouterr().err
    command = shlex.split(printed[printed.index("captune match") :])
    assert run(command[1:]) == 0
    assert capsys.readouterr().out.count("a dog on a beach") == 3


def test_vectors_belong_to_the_weights_that_made_them(
    saved: dict[str, str], pictures: list[str], tmp_path: Path
) -> None:
    model, vectors = tmp_path / "model", tmp_path / "e.npz"
    shutil.copytree(saved["clip"], model)
    captune.embed(pictures, vectors, model=str(model))
    # The same weights by another name are the same model; a file that came from elsewhere chooses no model by itself.
    same = captune.match(vectors, QUERIES, model=saved["clip"]).pairs
    assert same == captune.match(vectors, QUERIES).pairs
    sent = shutil.copy(vectors, tmp_path / "sent.npz")
    with pytest.raises(CaptuneError, match=r"was made by .*, not Salesforce") as caught:
        captune.match(sent, QUERIES)
    assert caught.value.hint == f"Use --model {model}."
    with pytest.raises(CaptuneError, match=r"was made by .*model, not .*siglip"):
        captune.match(vectors, QUERIES, model=saved["siglip"])
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    with pytest.raises(CaptuneError, match="before its files changed"):
        captune.match(vectors, QUERIES)


def test_models_that_match_nothing(saved: dict[str, str], tmp_path: Path) -> None:
    def refused(kind: str, match: str, hint: str = "Take") -> None:
        with pytest.raises(CaptuneError, match=match) as caught:
            load_matcher(str(tmp_path / kind))
        assert hint in caught.value.hint

    half = shutil.copytree(saved["clip"], tmp_path / "half")
    weights = load_file(half / "model.safetensors")
    texts = {name: value for name, value in weights.items() if not name.startswith("vision")}
    save_file(texts, half / "model.safetensors", {"format": "pt"})
    refused("half", "39 weights are missing, such as vision_model", "may be a part alone")
    BlipMatcher.tiny().save(tmp_path / "blip")
    weights = load_file(tmp_path / "blip" / "model.safetensors")
    headless = {name: value for name, value in weights.items() if "itm_head" not in name}
    save_file(headless, tmp_path / "blip" / "model.safetensors", {"format": "pt"})
    refused("blip", "2 weights are missing, such as itm_head.bias")
    CLIPTextModel(CLIPTextConfig(vocab_size=9, **WIDE)).save_pretrained(tmp_path / "texts")
    refused("texts", r"is the text part of a model alone \(CLIPTextModel\)", "Take the whole")
    GPT2Model(GPT2Config(vocab_size=9, n_layer=1, n_head=1, n_embd=8)).save_pretrained(tmp_path / "gpt2")
    refused("gpt2", "is a GPT2Model: captune knows no vectors of images and texts")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "open_clip_config.json").write_text("{}")
    refused("open", "layout of open_clip")
    (tmp_path / "st" / "0_CLIPModel").mkdir(parents=True)
    refused("st", "sentence-transformers", "0_CLIPModel")
    config = json.loads((half / "config.json").read_text())
    for kind, does in (("clipseg", "finds what a text names"), ("xclip", "compares films"), ("blip", "writes texts")):
        (half / "config.json").write_text(json.dumps({**config, "model_type": kind, "architectures": [kind]}))
        refused("half", f"is a {kind}: it {does}")


def test_capfilt_with_a_clip_needs_a_cosine(saved: dict[str, str], tiny_data: Path, tmp_path: Path) -> None:
    captioner = save_tiny(tmp_path / "captioner")
    given: dict[str, Any] = {"model": captioner, "matcher": saved["clip"], "max_new_tokens": 3, "environment": {}}
    with pytest.raises(UsageError, match="has no probability") as caught:
        captune.capfilt(tiny_data, tmp_path / "clean", **given)
    assert "--keep-cosine" in caught.value.hint
    assert not (tmp_path / "clean").exists()
    done = captune.capfilt(tiny_data, tmp_path / "clean", keep_cosine=0.1, **given)
    rows = [json.loads(line) for line in (done.folder / "captions.jsonl").read_text().splitlines()]
    dropped = [json.loads(line) for line in (done.folder / "report" / "dropped.jsonl").read_text().splitlines()]
    assert len(rows) == sum(done.kept.values()) > 0
    assert {row["match"] for row in dropped} == {None}
    assert max(row["cosine"] for row in dropped) < 0.1
    for row in rows[:3]:
        assert captune.match(row["image"], row["caption"], model=saved["clip"]).pairs[0].similarity >= 0.1


def test_a_library_by_meaning(saved: dict[str, str], pictures: list[str], tmp_path: Path) -> None:
    for path in pictures:
        shutil.copy(path, tmp_path)
    library = Library(tmp_path, create=True)
    library.add()
    assert library.embed(saved["siglip2"]) == {}
    expected = sorted(captune.match(pictures, QUERIES[0], model=saved["siglip2"]).pairs, key=lambda p: -p.similarity)
    found = library.search(QUERIES[0], mode="meaning")
    assert [each.path for each in found] == [Path(pair.image).name for pair in expected]
    assert [each.similarity for each in found] == pytest.approx([p.similarity for p in expected], abs=2e-3)
