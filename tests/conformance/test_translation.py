"""Captions in other languages: what plain transformers writes, in batches, through every way to ask."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.records import Caption
from captune.inference.captioner import Captioner
from captune.inference.translation import BEAMS, MAX_NEW_TOKENS, Translator, load_translator, translated
from captune.models.blip import Blip
from random_weights import LIVELY
from translators import KINDS, TEXTS, WORDS, m2m100, madlad, marian

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=list(KINDS))
def name(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return KINDS[request.param](tmp_path_factory.mktemp("translators") / request.param)


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> str:
    return marian(tmp_path_factory.mktemp("german") / "opus")


@pytest.fixture(scope="module")
def captioner_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("captioner") / "blip"
    backbone = Blip.tiny(WORDS * 3)
    with torch.no_grad():
        LIVELY["blip"](backbone.model)
    backbone.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tiny_data: Path) -> list[str]:
    return [str(path) for path in sorted((tiny_data.parent / "Images").iterdir())[:5]]


def plain(name: str, text: str) -> str:
    """One text through transformers alone, as the model's card does it."""
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForSeq2SeqLM.from_pretrained(name).eval()
    more = {}
    if model.config.model_type == "m2m_100":
        tokenizer.src_lang = "en"
        more = {"forced_bos_token_id": tokenizer.get_lang_id("de")}
    if model.config.model_type == "t5":
        text = f"<2de> {text}"
    with torch.inference_mode():
        tokens = model.generate(
            **tokenizer(text, return_tensors="pt"), num_beams=BEAMS, max_new_tokens=MAX_NEW_TOKENS, **more
        )
    return tokenizer.decode(tokens[0], skip_special_tokens=True).strip()


def test_a_batch_says_what_transformers_says_of_each(name: str) -> None:
    translator = load_translator(name, "de", CPU)
    said = translator.translate(TEXTS)
    assert said == [plain(name, text) for text in TEXTS]
    assert said == [translator.translate([text])[0] for text in TEXTS]
    assert len(set(said)) > 2, "the test's model says the same of everything"


def test_empty_and_repeated_texts(german: str) -> None:
    translator = load_translator(german, "de", CPU)
    said = translator.translate(["", "a dog", " ", "a dog", "men"])
    assert (said[0], said[2], said[1]) == ("", " ", said[3])
    assert translator.translate([]) == []


def test_another_language_of_the_same_model(tmp_path: Path) -> None:
    for made in (m2m100(tmp_path / "a"), madlad(tmp_path / "b"), marian(tmp_path / "c", codes=(">>de<<", ">>fr<<"))):
        one = load_translator(made, "de", CPU)
        other = one.into("fr")
        assert other.model is one.model
        assert one.translate(TEXTS) != other.translate(TEXTS)
        with pytest.raises(UsageError, match="'xx'"):
            one.into("xx")


def test_a_language_the_model_does_not_speak(german: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not know the language 'fr'"):
        load_translator(german, "fr", CPU)


def test_what_is_no_translator_is_named(captioner_name: str, tmp_path: Path, german: str) -> None:
    with pytest.raises(CaptuneError, match="of the kind 'blip'"):
        load_translator(captioner_name, "de", CPU)
    with pytest.raises(CaptuneError, match="hf download Helsinki-NLP/opus-mt-en-zz"):
        load_translator("Helsinki-NLP/opus-mt-en-zz", "zz", CPU)
    with pytest.raises(CaptuneError, match="no commercial use"):
        load_translator("facebook/nllb-200-distilled-600M", "de", CPU)
    broken = tmp_path / "broken"
    shutil.copytree(german, broken)
    (broken / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(CaptuneError, match="cannot be loaded"):
        load_translator(str(broken), "de", CPU)


def test_nllb_in_a_folder_is_refused(tmp_path: Path) -> None:
    made = Path(m2m100(tmp_path / "model"))
    config = json.loads((made / "tokenizer_config.json").read_text())
    (made / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "NllbTokenizer"}))
    with pytest.raises(CaptuneError):
        load_translator(str(made), "de", CPU)


def test_captions_keep_their_confidence_and_original(captioner_name: str, german: str, pictures: list[str]) -> None:
    plainly = Captioner.load(captioner_name, max_new_tokens=5)
    captioner = Captioner.load(captioner_name, language="de", translator=german, max_new_tokens=5)
    translator = load_translator(german, "de", CPU)
    for one, other in zip(plainly.batch(pictures), captioner.batch(pictures), strict=True):
        assert [c.original for c in other] == [c.text for c in one]
        assert [c.confidence for c in other] == [c.confidence for c in one]
        assert [c.text for c in other] == translator.translate([c.text for c in one])
        assert all(c.original is None for c in one)
    assert captioner(pictures[0], num_captions=2) == captioner.captions(pictures[0], num_captions=2)[0]
    assert plainly(pictures[0], language="de", translator=german) == captioner(pictures[0])
    assert list(plainly.speak(pictures[0], language="de", translator=german)) == [
        translator.translate(["".join(plainly.speak(pictures[0]))])[0]
    ]


def test_a_picture_that_fails_keeps_its_place(german: str) -> None:
    translator = load_translator(german, "de", CPU)
    wrong = CaptuneError("damaged")
    rows = [(n, wrong if n % 3 == 1 else [Caption(text, 0.5)]) for n, text in enumerate(TEXTS)]
    found = dict(translated(iter(rows), translator, 2))
    assert list(found) == list(range(len(TEXTS)))
    assert found[1] is wrong
    assert [c.original for n in (0, 2, 3) for c in found[n]] == [TEXTS[n] for n in (0, 2, 3)]  # type: ignore[union-attr]


def test_maps_are_of_what_the_model_said(captioner_name: str, german: str, pictures: list[str]) -> None:
    captioner = Captioner.load(captioner_name, language="de", translator=german, max_new_tokens=5)
    found = captioner(pictures[0])
    assert captioner.explain(pictures[0], found).caption == found.original


def test_rows_and_answers_have_both(captioner_name: str, german: str, pictures: list[str]) -> None:
    told = {"model": captioner_name, "language": "de", "translator": german, "max_new_tokens": 5, "environment": {}}
    for row in captune.caption(pictures, **told):
        written = row.to_json()
        assert (written["caption"], written["original"]) == (row.captions[0].text, row.captions[0].original)
    (row,) = captune.caption(pictures[0], model=captioner_name, max_new_tokens=5, environment={})
    assert "original" not in row.to_json()
    (answer,) = captune.ask(pictures[0], "what is it?", **told)
    assert answer.original is not None


def test_english_needs_no_translator(captioner_name: str, pictures: list[str]) -> None:
    captioner = Captioner.load(captioner_name, language="en", max_new_tokens=5)
    assert captioner(pictures[0]).original is None
    with pytest.raises(UsageError, match="needs a language"):
        Captioner.load(captioner_name, translator="x/y")
    with pytest.raises(UsageError, match="--language"):
        captune.caption(pictures[0], language="german!", environment={})


def test_without_sentencepiece_the_extra_is_named(german: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(CaptuneError, match=r"captune\[translate\]"):
        load_translator(german, "de", CPU)


def test_a_translator_is_a_value(german: str) -> None:
    found = load_translator(german, "de", CPU)
    assert isinstance(found, Translator)
    assert (found.name, found.language, found.model.training) == (german, "de", False)
