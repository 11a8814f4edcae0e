"""CLIP+GPT-2, GIT and BLIP-2 against plain `transformers`: the same losses, gradients and captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.inference.batches import collate
from captune.models.backbone import Backbone
from captune.models.blip2 import Blip2
from captune.models.clip_gpt2 import ClipGpt2
from captune.models.florence2 import Florence2
from captune.models.from_scratch import learn_tokenizer
from captune.models.generate import generate
from captune.models.git import Git
from captune.models.loading.loader import load_backbone, pair_backbone
from model_pairs import save_clip, save_gpt2
from random_weights import LIVELY
from vision_parts import vision_part

TEXTS = ["a red circle", "two dogs play on a bike", "a man", "two red dogs", "a circle .", "a man on a bike"]
REFERENCES = [["a red circle", "two dogs play on a bike"], ["a man"], ["two red dogs", "a circle .", "a man on a bike"]]
Losses = dict[str, Any]


def lively(backbone: Backbone, times: float = 4) -> Backbone:
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(times)
    backbone.model.eval()
    return backbone


def batch_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    side = backbone.pixels.size or 32
    seen = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    encoded = [[backbone.encode_reference(text, 20) for text in texts] for texts in REFERENCES]
    return collate(list(zip(seen.numpy(), encoded, strict=True)), backbone.pad_token_id)


def plain_clip_gpt2(backbone: Backbone, batch: Losses) -> torch.Tensor:
    mask, labels = _mask(batch), _labels(batch)
    return backbone.model(
        pixel_values=backbone.pixels.normalise(batch["images"])[batch["owner"]],
        decoder_input_ids=batch["tokens"][:, :-1],
        decoder_attention_mask=mask[:, :-1],
        labels=labels[:, 1:],
    ).loss


def plain_git(backbone: Backbone, batch: Losses) -> torch.Tensor:
    return backbone.model(
        pixel_values=backbone.pixels.normalise(batch["images"])[batch["owner"]],
        input_ids=batch["tokens"],
        attention_mask=_mask(batch),
        labels=_labels(batch),
    ).loss


def plain_opt(backbone: Backbone, batch: Losses) -> torch.Tensor:
    tokens, queries = batch["tokens"], backbone.model.config.num_query_tokens
    image = tokens.new_full((len(tokens), queries), backbone.model.config.image_token_id)
    return backbone.model(
        pixel_values=backbone.pixels.normalise(batch["images"])[batch["owner"]],
        input_ids=torch.cat([image, tokens], 1),
        attention_mask=torch.cat([torch.ones_like(image), _mask(batch)], 1),
        labels=torch.cat([torch.full_like(image, -100), _labels(batch)], 1),
    ).loss


def plain_t5(backbone: Backbone, batch: Losses) -> torch.Tensor:
    tokens, queries, given = batch["tokens"], backbone.model.config.num_query_tokens, int(batch["given"][0])
    image = tokens.new_full((len(tokens), queries), backbone.model.config.image_token_id)
    end = tokens.new_full((len(tokens), 1), backbone.eos_token_id)
    return backbone.model(
        pixel_values=backbone.pixels.normalise(batch["images"])[batch["owner"]],
        input_ids=torch.cat([image, tokens[:, 1:given], end], 1),
        labels=_labels(batch)[:, given:].contiguous(),
    ).loss


def _mask(batch: Losses) -> torch.Tensor:
    return (torch.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]).long()


def _labels(batch: Losses) -> torch.Tensor:
    steps = torch.arange(batch["tokens"].shape[1])
    ignored = (steps >= batch["lengths"][:, None]) | (steps < batch["given"][:, None])
    return batch["tokens"].masked_fill(ignored, -100)


def _vit_bert() -> ClipGpt2:
    """A `VisionEncoderDecoderModel` whose decoder is no GPT-2."""
    from transformers import BertConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    tokenizer = learn_tokenizer(TEXTS * 4, 200)
    ids = tokenizer.get_vocab()
    narrow = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    vision = ViTConfig(image_size=32, patch_size=8, hidden_size=32, **narrow)
    text = BertConfig(vocab_size=len(tokenizer), hidden_size=48, is_decoder=True, add_cross_attention=True, **narrow)
    config = VisionEncoderDecoderConfig(encoder=vision.to_dict(), decoder=text.to_dict())
    model: Any = VisionEncoderDecoderModel(config)
    for one in (model.config, model.generation_config):
        one.decoder_start_token_id, one.eos_token_id, one.pad_token_id = ids["[CLS]"], ids["[SEP]"], ids["[PAD]"]
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    return ClipGpt2.from_components(model, tokenizer, processor)


def _florence_inputs(backbone: Backbone, images: int) -> dict[str, torch.Tensor]:
    """What the encoder reads in plain transformers: an image's tokens, a start, the prompt, an end."""
    image = [backbone.model.config.image_token_id] * backbone.processor.image_seq_length
    ids = torch.tensor([[*image, *backbone.codec.start(backbone.prompt), backbone.eos_token_id]]).repeat(images, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def plain_florence2(backbone: Backbone, batch: Losses) -> torch.Tensor:
    """Its own shift of the labels; the token that begins every caption is given."""
    start = len(backbone.codec.start(backbone.prompt))
    labels = torch.full_like(batch["tokens"], -100)
    for row, (tokens, length) in enumerate(zip(batch["tokens"], batch["lengths"], strict=True)):
        labels[row, start:length] = tokens[start:length]
    captions = torch.cat([batch["tokens"][:, :1], batch["tokens"][:, start:]], 1)
    begins = torch.full((len(labels), 1), backbone.text_config.decoder_start_token_id)
    return backbone.model(
        pixel_values=backbone.pixels.normalise(batch["images"])[batch["owner"]],
        **_florence_inputs(backbone, len(labels)),
        decoder_input_ids=torch.cat([begins, captions[:, :-1]], 1),
        labels=torch.cat([torch.full((len(labels), 1), -100), labels[:, start:]], 1),
    ).loss


MAKERS: dict[str, tuple[Any, Any]] = {
    "clip-gpt2": (lambda: ClipGpt2.new("tiny", TEXTS), plain_clip_gpt2),
    "vit-bert": (_vit_bert, plain_clip_gpt2),
    "git": (lambda: Git.new("tiny", TEXTS), plain_git),
    "blip-2 opt": (lambda: Blip2.new("tiny", TEXTS), plain_opt),
    "blip-2 t5": (lambda: Blip2.new("tiny-t5", TEXTS), plain_t5),
    "florence-2": (lambda: Florence2.new("tiny", TEXTS), plain_florence2),
}


@pytest.mark.parametrize("prompt", ["", "two dogs"])
@pytest.mark.parametrize("kind", MAKERS)
def test_losses_and_gradients_are_plain_ones(kind: str, prompt: str) -> None:
    torch.manual_seed(0)
    make, plain_loss = MAKERS[kind]
    backbone = lively(make())
    backbone.set_dropout(0.0)
    backbone.prompt = prompt
    batch = batch_of(backbone)
    losses = backbone.token_losses(
        backbone.image_features(batch["images"]), *(batch[k] for k in ("tokens", "lengths", "owner", "given"))
    )
    losses.nll.mean().backward()
    ours = {name: p.grad.clone() for name, p in backbone.model.named_parameters() if p.grad is not None}
    backbone.model.zero_grad()
    plain = plain_loss(backbone, batch)
    plain.backward()
    assert losses.nll.mean().item() == pytest.approx(plain.item(), rel=1e-5)
    theirs = {name: p.grad for name, p in backbone.model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    size = sum(float(g.square().sum()) for g in theirs.values()) ** 0.5
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() < 1e-4 * gradient.norm() + 2e-6 * size, name


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 3, "repetition_penalty": 1.5}])
@pytest.mark.parametrize("kind", MAKERS)
def test_captions_are_those_of_plain_generate(kind: str, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    backbone = MAKERS[kind][0]()
    backbone.model.eval()
    with torch.no_grad():
        LIVELY[backbone.family](backbone.model)
    side = backbone.pixels.size or 32
    seen = torch.randint(0, 256, (12, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    values = backbone.pixels.normalise(seen)
    plain: dict[str, Any] = {**options, "max_new_tokens": 9, "do_sample": False}
    if kind != "git":
        plain |= {"eos_token_id": backbone.eos_token_id, "pad_token_id": backbone.pad_token_id}
    if kind == "blip-2 t5":
        image = torch.full((12, backbone.model.config.num_query_tokens), backbone.model.config.image_token_id)
        plain["input_ids"] = torch.cat([image, torch.full((12, 1), backbone.eos_token_id)], 1)
    if kind == "florence-2":
        plain |= _florence_inputs(backbone, 12)
        plain |= {"max_new_tokens": 10, "suppress_tokens": list(backbone.suppressed_tokens)}
    with torch.inference_mode():
        ids = backbone.model.generate(pixel_values=values, **plain)
        found = generate(backbone, backbone.image_features(seen), GenerationOptions(max_new_tokens=9, **options))
    if kind == "blip-2 opt":
        ids = ids[:, backbone.model.config.num_query_tokens :]
    theirs = [backbone.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids.tolist()]
    assert [each[0].text for each in found] == theirs
    assert len(set(theirs)) > 1, "random weights that ignore the image prove nothing"


@pytest.mark.parametrize("kind", MAKERS)
def test_a_saved_folder_loads_with_plain_transformers(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    backbone = lively(MAKERS[kind][0]())
    backbone.save(tmp_path / "m")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "m")
    assert type(plain) is type(backbone.model)
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "m")) == len(backbone.tokenizer)
    assert plain.generation_config.num_beams == GenerationOptions().num_beams
    if kind not in ("clip-gpt2", "vit-bert"):  # these have no processor class, as on the Hub
        AutoProcessor.from_pretrained(tmp_path / "m")


def test_blip_2_lets_the_bridge_alone_learn_by_default() -> None:
    assert Blip2.frozen_by_default == ("vision", "text")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole CLIP and a GPT-2 with its own kind of tokenizer, as two checkpoints on disk."""
    folder = tmp_path_factory.mktemp("pair")
    save_clip(folder / "clip")
    save_gpt2(folder / "gpt2", TEXTS)
    return folder / "clip", folder / "gpt2"


def test_a_clip_and_a_gpt2_are_joined_trained_and_loaded_again(
    pair: tuple[Path, Path], tiny_data: Path, tmp_path: Path
) -> None:
    name = f"{pair[0]}+{pair[1]}"
    backbone = pair_backbone(name, seed=1, image_size=None)
    assert backbone.model.enc_to_dec_proj.weight.shape == (48, 32)
    assert backbone.pixels.shorter == 32
    # The end is learned though it is the start, the filler, and one token.
    encoded = backbone.encode_reference("a man", 20)
    assert encoded.tokens[0] == encoded.tokens[-1] == backbone.eos_token_id == backbone.pad_token_id
    assert backbone.tokenizer.decode(encoded.tokens[1:-1]) == "a man"
    backbone.prompt = "a picture of"
    encoded = backbone.encode_reference("a man", 20)
    assert backbone.tokenizer.decode(encoded.tokens[1:-1]) == "a picture of a man"
    again = pair_backbone(name, seed=1, image_size=None)
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value), key
    out = captune.train(
        tiny_data,
        name,
        tmp_path / "run",
        max_steps=30,
        learning_rate=5e-3,
        batch_size=6,
        trackers=("none",),
        validation_metrics=("bleu", "cider"),
        environment={},
    )
    before, after = (line["loss"] for line in captune_history(out.run)[:: len(captune_history(out.run)) - 1])
    assert after < before
    captioner = captune.Captioner.load(str(out.run), num_beams=2)
    image = next((tiny_data.parent / "Images").iterdir())
    assert 0 < len(captioner(str(image)).text) < 100
    assert captioner.backbone.searched_by == "captune"


def captune_history(run: Path) -> list[dict[str, Any]]:
    from captune.core.runs import Run

    return [line for line in Run(run).history() if "eval_loss" in line and not line.update(loss=line["eval_loss"])]


def test_what_cannot_be_joined_is_said(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not learned to look yet"):
        load_backbone(f"{pair[0]}+{pair[1]}")
    with pytest.raises(CaptuneError, match="cannot be joined"):
        pair_backbone(f"{tmp_path}+{pair[1]}", seed=1, image_size=None)
    with pytest.raises(CaptuneError, match="cannot be joined"):
        pair_backbone(f"{pair[0]}+{pair[0]}", seed=1, image_size=None)


@pytest.mark.parametrize("family", [ClipGpt2, Git])
def test_another_image_size_keeps_the_model_working(family: Any, tmp_path: Path) -> None:
    lively(family.new("tiny", TEXTS)).save(tmp_path / "m")
    larger = family.load(tmp_path / "m", image_size=48)
    larger.model.eval()
    assert larger.pixels.size == 48
    seen = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        memory = larger.image_features(seen)
        assert memory.shape == (2, 37, 32)
        found = generate(larger, memory, GenerationOptions(max_new_tokens=6))
    larger.save(tmp_path / "larger")
    again = family.load(tmp_path / "larger")
    again.model.eval()
    with torch.inference_mode():
        assert generate(again, again.image_features(seen), GenerationOptions(max_new_tokens=6)) == found


@pytest.mark.parametrize("kind", ["vit", "dinov2", "siglip"])
def test_other_vision_parts_are_joined(kind: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    backbone = pair_backbone(f"{vision_part(kind, tmp_path / kind)}+{pair[1]}", seed=1, image_size=None)
    backbone.model.eval()
    assert (backbone.pixels.size, backbone.pixels.shorter) == (32, 40 if kind == "dinov2" else 0)
    assert "pooler" not in " ".join(name for name, _ in backbone.model.named_parameters() if kind == "vit")
    batch = batch_of(backbone)
    losses = backbone.token_losses(
        backbone.image_features(batch["images"]), *(batch[k] for k in ("tokens", "lengths", "owner", "given"))
    )
    losses.nll.mean().backward()
    backbone.save(tmp_path / "m")
    again = load_backbone(str(tmp_path / "m"))
    options = GenerationOptions(max_new_tokens=6)
    with torch.inference_mode():
        assert generate(again, again.image_features(batch["images"]), options) == generate(
            backbone, backbone.image_features(batch["images"]), options
        )
    with pytest.raises(UsageError, match="cannot be changed"):
        ClipGpt2.load(tmp_path / "m", image_size=64)
