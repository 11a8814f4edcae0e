"""The tokenizer of models from scratch: what it decodes is what the references write, in any language."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from captune.models import FAMILIES
from captune.models.from_scratch import learn_tokenizer

TEXTS = {
    "English": "A dark-haired man's two dogs can't see 3.5 \"big\" cats , isn't it ?",
    "German": "Zwei Männer hören Musik im Büro, groß und schön.",
    "Vietnamese": "Một con chó chạy trên cỏ.",
    "Hindi": "कुत्ता घास पर दौड़ता है।",
    "Japanese": "ガラスの窓の前に犬がいる。",
    "Chinese": "一只狗在草地上奔跑，很快乐。",
    "Korean": "개가 잔디 위를 달린다.",
    "Thai": "สุนัขวิ่งบนหญ้า",
    "Arabic": "العَرَبِيَّة: كلبٌ يركض",
    "Hebrew": "כֶּלֶב רץ על הדשא",
    "Turkish": "İstanbul'da ıslak köpek",
    "French": "L’homme d'ici a-t-il vu « Noël » ?",
    "emoji": "a dog 🐕\u200d🦺 & ½ x² 👍🏽",
}


@pytest.mark.parametrize("language", TEXTS)
def test_decoding_gives_the_reference_back(language: str) -> None:
    text = TEXTS[language]
    tokenizer = learn_tokenizer([text] * 4, 300)
    for form in ("NFC", "NFD"):
        tokens = tokenizer(unicodedata.normalize(form, text))["input_ids"]
        assert tokenizer.unk_token_id not in tokens
        assert tokenizer.decode(tokens, skip_special_tokens=True) == unicodedata.normalize("NFC", text)


def test_more_letters_than_the_vocabulary_has_places_for() -> None:
    text = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 400))
    tokenizer = learn_tokenizer([text], 100)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_white_space_becomes_one_space() -> None:
    tokenizer = learn_tokenizer(["a dog\truns\nfast"] * 4, 100)
    assert (
        tokenizer.decode(tokenizer(" a  dog\truns\r\n fast ")["input_ids"], skip_special_tokens=True)
        == "a dog runs fast"
    )


def test_the_same_texts_give_the_same_tokenizer() -> None:
    first, second = (learn_tokenizer(list(TEXTS.values()) * 3, 500).backend_tokenizer.to_str() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("family", [name for name, kind in FAMILIES.items() if hasattr(kind, "tiny")])
def test_every_family_from_scratch_writes_letters_as_the_references(family: str, tmp_path: Path) -> None:
    text = TEXTS["German"]
    backbone = FAMILIES[family].tiny([text] * 4)
    backbone.save(tmp_path)
    assert backbone.tokenizer.decode(backbone.tokenize(text), skip_special_tokens=True) == text
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.decode(again(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True) == text
