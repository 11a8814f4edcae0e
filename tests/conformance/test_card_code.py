"""The code of a model card, run word by word with plain transformers, says what captune says."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

import captune
from captune.export.card import CardFacts, card
from captune.models import FAMILIES
from noise import noise
from random_weights import LIVELY

SEED = 11  # of models whose captions have words
SEARCHES: dict[str, dict[str, Any]] = {
    "": {},
    "a man": {"num_beams": 4, "max_new_tokens": 9, "length_penalty": -1.0, "min_new_tokens": 3, "early_stopping": "on"},
    'he said "two" dogs': {"num_beams": 1, "max_new_tokens": 7, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
}
MODELS = [*((name, "tiny") for name in sorted(FAMILIES)), ("blip-2", "tiny-t5")]


def run_card(text: str, model: Path, place: Path) -> str:
    code = text.split("```python\n")[1].split("```")[0].replace("mine/captioner", str(model))
    heard = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(heard):
        exec(compile(code, "README.md", "exec"), {})
    return heard.getvalue().strip()


@pytest.mark.parametrize("prompt", SEARCHES)
@pytest.mark.parametrize(("family", "size"), MODELS, ids=["-".join(each) for each in MODELS])
def test_the_card_captions_as_captune_does(family: str, size: str, prompt: str, tmp_path: Path) -> None:
    texts = ("a red circle", "two dogs play", 'he said a man on a bike " .', "what is it ?")
    torch.manual_seed(SEED)
    made = FAMILIES[family].new(size, texts)
    with torch.no_grad():
        LIVELY[family](made.model)
    made.prompt, made.generation = prompt, SEARCHES[prompt]
    made.save(tmp_path / "model")
    noise((50, 40), 90).convert("RGB").save(tmp_path / "photo.jpg")
    done = captune.push(str(tmp_path / "model"), "mine/captioner", dry_run=True, out=tmp_path / "hub", environment={})
    options: dict[str, Any] = {"precision": "fp32", "device": "cpu"}
    if family == "blip-vqa":
        own = captune.ask(tmp_path / "photo.jpg", "what is it?", model=done.folder, **options)[0].answer
    else:
        own = captune.Captioner.load(done.folder, **options)(tmp_path / "photo.jpg").text
    assert own
    assert run_card((tmp_path / "hub" / "README.md").read_text(), Path(done.folder), tmp_path) == own


def test_the_card_of_a_vision_language_model_has_the_hubs_word_for_it() -> None:
    assert "pipeline_tag: image-text-to-text\n" in card(CardFacts("mine/captioner", "vlm"))


def test_the_card_tells_the_search_that_was_measured() -> None:
    text = card(CardFacts("mine/captioner", "blip", generation={"num_beams": 5, "max_new_tokens": 17}, prompt="a"))
    assert "generate(**inputs, max_new_tokens=17, num_beams=5)" in text
    assert "text='a'" in text
