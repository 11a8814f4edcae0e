"""Models as people have them: the published configuration and tokenizer files, in the layouts of several years."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import captune
from captune.core.errors import CaptuneError
from published import edit, published

pytestmark = pytest.mark.real
SEARCH: Any = {"num_beams": 2, "max_new_tokens": 6, "precision": "fp32"}
BLIP, BLIP2 = "blip-image-captioning-base", "blip2-opt-2.7b"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def models(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small model with a published one's files; made once."""
    made: dict[str, Path] = {}

    def model(name: str) -> Path:
        if name not in made:
            made[name] = published(hub, name, tmp_path_factory.mktemp("hub") / name)
        return made[name]

    return model


def drop(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


def before_2024(folder: Path) -> None:
    """BLIP-2 as it was saved before language models were told of images by a token."""
    edit(folder / "config.json", image_token_index=None, num_query_tokens=None)
    drop(folder, "processor_config.json", "generation_config.json", "added_tokens.json")
    tokens = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    edit(folder / "tokenizer_config.json", added_tokens_decoder={n: t for n, t in tokens.items() if n != "50265"})
    words = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    edit(folder / "tokenizer.json", added_tokens=[word for word in words if word["content"] != "<image>"])


def words_as_text(folder: Path) -> None:
    drop(folder, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    drop(folder, "model.safetensors")


def feature_extractor(folder: Path) -> None:
    edit(
        folder / "preprocessor_config.json",
        image_processor_type=None,
        processor_class=None,
        feature_extractor_type="BlipFeatureExtractor",
    )


def unnamed_tokenizer(folder: Path) -> None:
    drop(folder, "tokenizer.json")
    edit(folder / "tokenizer_config.json", tokenizer_class=None)


OLD = [
    (BLIP2, before_2024),
    (BLIP2, unnamed_tokenizer),
    (BLIP, words_as_text),
    (BLIP, unnamed_tokenizer),
    (BLIP, feature_extractor),
    (BLIP, pickled),
]


@pytest.mark.parametrize(("name", "age"), OLD, ids=[f"{name} {age.__name__}" for name, age in OLD])
def test_an_older_layout_captions_as_the_present_one_and_is_saved_in_it(
    name: str, age: Callable[[Path], None], models: Callable[[str], Path], image: Path, tmp_path: Path
) -> None:
    now = captune.Captioner.load(models(name), **SEARCH)(image)
    shutil.copytree(models(name), tmp_path / "old")
    age(tmp_path / "old")
    old = captune.Captioner.load(tmp_path / "old", **SEARCH)
    assert old(image) == now
    assert now.text
    old.backbone.save(tmp_path / "saved")
    assert captune.Captioner.load(tmp_path / "saved", **SEARCH)(image) == now
    if name == BLIP2:
        config = json.loads((tmp_path / "saved" / "config.json").read_text())
        assert (config["image_token_index"], config["num_query_tokens"]) == (50265, 32)


def test_what_is_missing_is_named(models: Callable[[str], Path], tmp_path: Path) -> None:
    bare, blind, cut = (shutil.copytree(models(BLIP), tmp_path / name) for name in ("bare", "blind", "cut"))
    drop(bare, "tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
    with pytest.raises(CaptuneError, match="holds no tokenizer") as caught:
        captune.Captioner.load(bare)
    assert "captune convert" in caught.value.hint
    drop(blind, "preprocessor_config.json")
    with pytest.raises(CaptuneError, match=r"no preprocessor_config\.json"):
        captune.Captioner.load(blind)
    state = load_file(cut / "model.safetensors")
    torch.save({n: v for n, v in state.items() if "crossattention" not in n}, cut / "pytorch_model.bin")
    drop(cut, "model.safetensors")
    with pytest.raises(CaptuneError, match=r"lacks .* weights .*crossattention.*random"):
        captune.Captioner.load(cut)


PAIR = "clip-vit-base-patch32+gpt2"


@pytest.mark.parametrize("name", [BLIP, BLIP2, f"{BLIP2} before 2024", PAIR])
def test_a_published_model_learns_is_saved_and_captions(
    name: str, models: Callable[[str], Path], image: Path, tiny_data: Path, tmp_path: Path
) -> None:
    if name == PAIR:  # its GPT-2 tells of a quantization that its weights do not have
        base = "+".join(str(models(part)) for part in name.split("+"))
    else:
        base = str(shutil.copytree(models(name.split()[0]), tmp_path / "base"))
    if name.endswith("2024"):
        before_2024(Path(base))
    run = captune.train(
        tiny_data, base, tmp_path / "run", max_steps=1, batch_size=4, trackers=("none",),
        validation_images=0, device="cpu", precision="fp32", environment={},
    )  # fmt: skip
    said = captune.Captioner.load(run.run, **SEARCH)(image)
    assert said.text
    loaded = next(check for check in captune.doctor(str(run.run)) if check.name.startswith("model /"))
    assert loaded.status == "ok", loaded
