"""Ways in which other programs get vision-language models silently wrong, each tried here.

What other files of tests show (masks of labels, batches, prefills, limits of image tokens) is not repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import captune
from captune.core.errors import CaptuneError
from captune.core.options import GenerationOptions
from captune.core.progress import Silent
from captune.core.runs import Run
from captune.images.batches import read_pixels
from captune.inference.batches import collate
from captune.models.generate import generate
from captune.models.vlm import Vlm
from captune.models.vlm.chat import ChatTemplate
from captune.models.vlm.images import keywords
from captune.models.vlm.patches import PatchEmbedding, multiply_patches
from noise import noise
from tiny_vlms import BUILDERS, lively

GREEDY = GenerationOptions(num_beams=1, max_new_tokens=8)
# Not for the language model as keywords: tokens, pixels (encoded before), labels (the loss is captune's own).
OTHERWISE = {"input_ids", "attention_mask", "pixel_values", "pixel_attention_mask", "labels"}


@pytest.fixture(scope="module")
def vlm() -> Vlm:
    return lively("qwen2_5_vl")


@pytest.fixture
def levels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 60, 90), dtype=np.uint8)


def losses_of(vlm: Vlm, levels: np.ndarray, *references: str) -> torch.Tensor:
    batch = collate([(levels, [vlm.encode_reference(text, 20) for text in references])], vlm.pad_token_id)
    return vlm.token_losses(vlm.image_features(batch.pop("images")), **batch).nll


# -- the loss ----------------------------------------------------------------------------------------------------


def test_trap_2_a_template_that_writes_an_answered_message_otherwise_is_refused() -> None:
    vlm = lively("llava")
    vlm.processor.chat_template = vlm.processor.chat_template.replace(
        "{{ part['text'] }} ", "{{ part['text'] }} {% if messages|length > 1 %}(answered) {% endif %}"
    )
    with pytest.raises(CaptuneError, match="another way once it is answered: nothing could be learned"):
        vlm.encode_reference("a dog runs", 20)


def test_trap_3_the_end_is_supervised_where_padding_is_the_same_token(levels: np.ndarray) -> None:
    """Captions of different lengths: what pads the short one is no target, its end is."""
    vlm = lively("llava")
    vlm.tokenizer.pad_token = vlm.tokenizer.eos_token
    assert vlm.pad_token_id == vlm.eos_token_id
    references = ("a dog", "two dogs play in the snow")
    encoded = [vlm.encode_reference(text, 20) for text in references]
    assert {one.tokens[-1] for one in encoded} == {vlm.eos_token_id}
    together = losses_of(vlm, levels, *references)
    assert len(together) == sum(len(one.tokens) - one.prompt_length for one in encoded)
    torch.testing.assert_close(together, torch.cat([losses_of(vlm, levels, text) for text in references]))


@pytest.mark.parametrize("template", ["begins", "begins not"])
def test_trap_5_a_text_begins_once(template: str) -> None:
    """Where the tokenizer would add the first token as well, and where the template leaves it out on purpose."""
    from tokenizers.processors import TemplateProcessing

    vlm = lively("gemma3")
    words, bos = vlm.tokenizer, vlm.tokenizer.bos_token_id
    words.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    assert words("a dog")["input_ids"][0] == bos
    if template == "begins not":
        vlm.processor.chat_template = vlm.processor.chat_template.removeprefix("<s>")
    encoded = vlm.encode_reference("a dog", 20)
    assert vlm.codec.start("Say it.").count(bos) == encoded.tokens.count(bos) == int(template == "begins")


def test_trap_6_scores_are_computed_where_a_token_is_learned_and_nowhere_else(vlm: Vlm, levels: np.ndarray) -> None:
    rows: list[int] = []
    handle = vlm.model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: rows.append(output.shape[:-1].numel())
    )
    with torch.no_grad():
        found = losses_of(vlm, levels, "a dog runs", "two dogs play in the snow")
    handle.remove()
    assert rows == [len(found)]


def test_trap_7_a_step_in_parts_is_the_step_at_once(tiny_data: Path, tmp_path: Path) -> None:
    """Images have one to three references: a part counts as much as it has tokens."""
    shared: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "max_new_tokens": 2, "trackers": "none"}
    losses = []
    for batch, parts in ((4, 1), (1, 4)):
        out, split = tmp_path / str(parts), {"batch_size": batch, "gradient_accumulation": parts}
        run = captune.train(tiny_data, "new:vlm-tiny", out, **shared, **split, learning_rate=1e-2, environment={}).run
        losses.append([line["loss"] for line in Run(run).history() if "loss" in line])
    assert len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_trap_22_patches_are_multiplied_and_weights_keep_their_names(vlm: Vlm, levels: np.ndarray) -> None:
    """A convolution in three axes takes several times as long."""
    features = vlm.image_features([levels]).joined()
    embedding = next(module for module in vlm.model.modules() if isinstance(module, nn.Conv3d))
    names = list(vlm.model.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv3d, "forward", Mock(side_effect=AssertionError("a convolution")))
        torch.testing.assert_close(vlm.image_features([levels]).joined(), features, rtol=0, atol=0)
    embedding.__class__ = nn.Conv3d
    try:
        torch.testing.assert_close(vlm.image_features([levels]).joined(), features)
        assert list(vlm.model.state_dict()) == names
    finally:
        multiply_patches(vlm.model)
    assert type(embedding) is PatchEmbedding


# -- the inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(BUILDERS))
def test_trap_9_the_model_gets_every_input_that_its_processor_makes(kind: str, levels: np.ndarray) -> None:
    vlm = lively(kind)
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Say it."}]}]
    if vlm.processor.chat_template:
        text = vlm.processor.apply_chat_template(message, add_generation_prompt=True)
    else:
        text = vlm.processor.image_token + "Say it."
    made = vlm.processor(text=[text], images=[[Image.fromarray(levels.transpose(1, 2, 0))]], return_tensors="pt")
    images = vlm.image_features(levels[None])
    given = vlm.text_inputs(torch.tensor([vlm.with_image(vlm.codec.start("Say it."), images.texts[0])]), images)
    read = set(made) & keywords(vlm.model.forward) - OTHERWISE
    assert read <= set(given)
    assert read or kind not in ("qwen2_5_vl", "qwen3_vl", "gemma3")


def test_trap_10_a_long_reference_is_cut_behind_whole_message_and_image(vlm: Vlm, levels: np.ndarray) -> None:
    message, images = vlm.codec.start(vlm.prompt), vlm.image_features(levels[None])
    long, short = (vlm.encode_reference(text, 6) for text in ("a man on a bike " * 20, "a man"))
    assert (long.cut, short.cut) == (True, False)
    for encoded in (long, short):
        assert list(encoded.tokens[: encoded.prompt_length]) == message
        assert encoded.tokens[-1] == vlm.eos_token_id
    assert len(long.tokens) == len(message) + 6 + 1
    whole = vlm.with_image(long.tokens[: long.prompt_length], images.texts[0])
    assert whole.count(vlm.processor.image_token_id) == len(images.outputs[0].pooler_output[0])


def test_trap_11_an_image_token_in_a_reference_is_read_as_letters(vlm: Vlm, levels: np.ndarray) -> None:
    encoded = vlm.encode_reference("a <|image_pad|> dog<|im_end|> runs", 60)
    answer = encoded.tokens[encoded.prompt_length :]
    assert vlm.processor.image_token_id not in answer
    assert answer.index(vlm.eos_token_id) == len(answer) - 1
    assert "runs" in vlm.decode(answer)
    assert torch.isfinite(losses_of(vlm, levels, "a <|image_pad|> dog<|im_end|> runs")).all()


def test_trap_14_a_turned_photo_is_read_upright_in_training_and_captioning(vlm: Vlm, tmp_path: Path) -> None:
    upright = noise((60, 90), 3).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    turned, plain = (read_pixels(tmp_path / f"{name}.png", vlm.pixels) for name in ("turned", "upright"))
    np.testing.assert_array_equal(turned, plain)
    vlm.save(tmp_path / "model")
    captioner = captune.Captioner.load(str(tmp_path / "model"), num_beams=1, max_new_tokens=8)
    said = [captioner(tmp_path / f"{name}.png") for name in ("turned", "upright")]
    assert said[0] == said[1]
    with torch.inference_mode():
        assert generate(vlm, vlm.image_features(plain[None]), GREEDY)[0][0].text == said[0].text


def test_trap_14_a_caption_is_learned_behind_what_it_will_be_asked_with(vlm: Vlm) -> None:
    encoded = vlm.encode_reference("a dog runs", 20)
    assert list(encoded.tokens[: encoded.prompt_length]) == vlm.codec.prefix(None, GREEDY)
    question = vlm.encode_reference("two", 20, "How many dogs?")
    asked = vlm.codec.prefix(vlm.prompt_for("How many dogs?"), GREEDY)
    assert list(question.tokens[: question.prompt_length]) == asked


def test_trap_14_the_image_stands_before_the_words(vlm: Vlm) -> None:
    text = ChatTemplate(vlm.processor, vlm.processor.image_token).render("Say it.")
    assert text.index(vlm.processor.image_token) < text.index("Say it.")


# -- bad input -----------------------------------------------------------------------------------------------------


class Warned(Silent):
    """What a training warned of."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def warn(self, text: str) -> None:
        self.sentences.append(text)


def test_references_that_are_cut_are_counted_and_said(tmp_path: Path) -> None:
    from captune.datasets.scenes import write_flickr8k_folder

    write_flickr8k_folder(tmp_path / "flickr8k", train=2, dev=1, test=1, size=40)
    captune.prepare(tmp_path / "flickr8k", tmp_path / "data", split="flickr8k", duplicates=False)
    heard = Warned()
    options: dict[str, Any] = {"max_steps": 1, "max_caption_tokens": 2, "device": "cpu", "trackers": "none"}
    captune.train(
        tmp_path / "data", "new:vlm-tiny", tmp_path / "run", progress=heard, **options, max_new_tokens=4, environment={}
    )
    assert any("10 of 10 training references are cut: they have more than 2 tokens" in one for one in heard.sentences)
