"""How many tokens an image takes: capped as each kind of model means it, saved, and the same everywhere."""

from pathlib import Path

import pytest
from PIL import Image

import captune
from captune.core.errors import UsageError
from captune.models.loading.loader import load_backbone
from captune.models.vlm.image_tokens import DEFAULT_MOST, count_tokens, limit_by_default, limit_tokens, most_tokens
from captune.models.vlm.images import prepare
from tiny_vlms import BUILDERS

# Kinds whose images can have fewer tokens, with the fewest.
LEAST = {
    **dict.fromkeys(("qwen2_5_vl", "qwen3_vl", "mistral3", "internvl"), 6),
    **dict.fromkeys(("idefics3", "smolvlm"), 7),
    "llava_onevision": 36,
}
SIZES = ((90, 90), (2000, 400), (300, 900))


@pytest.mark.parametrize("kind", LEAST)
def test_no_image_has_more_tokens_than_are_allowed(kind: str) -> None:
    processor = BUILDERS[kind]().processor
    before = most_tokens(processor)
    for most in (before, before - 1, LEAST[kind]):
        limit_tokens(processor, most)
        assert LEAST[kind] <= most_tokens(processor) <= most
        assert all(count_tokens(processor, Image.new("RGB", size)) <= most for size in SIZES)


@pytest.mark.parametrize("kind", ["idefics3", "internvl", "llava_onevision", "llava", "gemma3"])
def test_fewer_than_a_kind_can_have_are_refused(kind: str) -> None:
    processor = BUILDERS[kind]().processor
    least = LEAST.get(kind) or most_tokens(processor)
    with pytest.raises(UsageError, match=f"at least {least} tokens"):
        limit_tokens(processor, least - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    BUILDERS["qwen2_5_vl"]().save(folder)
    return folder


def test_a_saved_model_makes_as_many_tokens(folder: Path, tmp_path: Path) -> None:
    captioner = captune.Captioner.load(str(folder), image_tokens=6, max_new_tokens=2)
    image = tmp_path / "image.png"
    Image.new("RGB", (200, 150), "red").save(image)
    inspected = captioner.inspect(str(image))
    assert inspected.memory[0] == 4  # 2 × 2: three columns of two rows would change its aspect
    vlm = load_backbone(str(folder))
    vlm.limit_image_tokens(6)
    vlm.save(tmp_path / "saved")
    again = load_backbone(str(tmp_path / "saved"))
    before, after = (prepare(one.processor, Image.new("RGB", (200, 150))) for one in (vlm, again))
    assert before.text == after.text
    assert before.text.count(vlm.processor.image_token) == 4


def test_published_models_that_take_any_size_have_a_limit_of_their_own() -> None:
    processor = BUILDERS["qwen2_5_vl"]().processor
    processor.image_processor.size = {"shortest_edge": 4 * 28**2, "longest_edge": 16384 * 28**2}
    limit_by_default(processor)
    assert most_tokens(processor) == DEFAULT_MOST
    limit_tokens(processor, 2000)  # it is no lower bound
    assert most_tokens(processor) == DEFAULT_MOST


def test_a_prompt_has_room_beside_the_largest_image() -> None:
    vlm = BUILDERS["qwen2_5_vl"]()
    assert vlm.max_length == 512 - 16
    vlm.limit_image_tokens(5)
    assert vlm.max_length == 512 - 5


def test_other_families_have_a_fixed_number(tmp_path: Path) -> None:
    from captune.models.blip import Blip

    Blip.tiny().save(tmp_path)
    with pytest.raises(UsageError, match="fixed in the family blip"):
        captune.Captioner.load(str(tmp_path), image_tokens=6)
