"""BLIP against plain transformers, and folders as the Hub holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.inference.batches import collate
from captune.models.blip import Blip
from captune.models.generate import generate
from captune.models.layers.vision_encoder import grid_positions
from noise import noise


@pytest.fixture
def blip() -> Blip:
    torch.manual_seed(0)
    made = Blip.tiny()
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    made.model.eval()
    return made


REFERENCES = [["a red circle", "two dogs play on a bike"], ["a man"], ["two red dogs", "a circle .", "a man on a bike"]]


@pytest.mark.parametrize("prompt", ["", "two dogs"])
def test_grouped_losses_and_gradients_are_plain_ones(blip: Blip, prompt: str) -> None:
    blip.prompt = prompt
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    encoded = [[blip.encode_reference(text, 20) for text in texts] for texts in REFERENCES]
    batch = collate(list(zip(pixels.numpy(), encoded, strict=True)), blip.pad_token_id)
    losses = blip.token_losses(
        blip.image_features(batch["images"]), batch["tokens"], batch["lengths"], batch["owner"], batch["given"]
    )
    losses.nll.mean().backward()
    ours = {name: p.grad.clone() for name, p in blip.model.named_parameters() if p.grad is not None}
    blip.model.zero_grad()
    steps = torch.arange(batch["tokens"].shape[1])
    mask = steps < batch["lengths"][:, None]
    labels = batch["tokens"].masked_fill(~mask | (steps < batch["given"][:, None]), -100)
    plain = blip.model(
        pixel_values=blip.pixels.normalise(batch["images"])[batch["owner"]],
        input_ids=batch["tokens"],
        attention_mask=mask.long(),
        labels=labels,
    )
    plain.loss.backward()
    assert losses.nll.mean().item() == pytest.approx(plain.loss.item(), rel=1e-6)
    theirs = {name: p.grad for name, p in blip.model.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    size = sum(float(g.square().sum()) for g in theirs.values()) ** 0.5
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-6 * size, name


def test_smoothing_is_that_of_cross_entropy(blip: Blip) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    batch = collate([(pixels[0].numpy(), [blip.encode_reference("two dogs play", 20)])], blip.pad_token_id)
    objective = blip.token_losses(
        blip.encode(pixels), batch["tokens"], batch["lengths"], batch["owner"], batch["given"], label_smoothing=0.1
    ).objective
    logits = blip.model(pixel_values=pixels, input_ids=batch["tokens"]).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, batch["tokens"][0, 1:], reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(objective, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"num_beams": 1}, {"num_beams": 1}),
        ({"num_beams": 3}, {"num_beams": 3}),
        ({"num_beams": 4, "num_captions": 3}, {"num_beams": 4, "num_return_sequences": 3}),
        ({"num_beams": 3, "length_penalty": 2.0, "min_new_tokens": 4},
         {"num_beams": 3, "length_penalty": 2.0, "min_new_tokens": 4}),
        ({"num_beams": 5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.05, "early_stopping": True},
         {"num_beams": 5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.05, "early_stopping": True}),
    ],
)  # fmt: skip
def test_captions_are_those_of_plain_generate(blip: Blip, options: dict[str, Any], plain: dict[str, Any]) -> None:
    pixels = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        ours = generate(blip, blip.encode(pixels), GenerationOptions(max_new_tokens=9, prompt="a man", **options))
        given = torch.tensor([[0, *blip.tokenize("a man"), blip.eos_token_id]]).repeat(4, 1)
        theirs = blip.model.generate(pixels, input_ids=given, max_new_tokens=9, do_sample=False, **plain)
    texts = [blip.tokenizer.decode(row[len(blip.tokenize("a man")) + 1 :], skip_special_tokens=True) for row in theirs]
    assert [c.text for each in ours for c in each] == [text.strip() for text in texts]


def as_on_the_hub(blip: Blip, folder: Path) -> Path:
    """The layout of Salesforce/blip-image-captioning-base: old files, old keys, a tokenizer without [DEC]."""
    blip.model.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    state["text_decoder.bert.embeddings.position_ids"] = torch.arange(128)[None]
    state["text_decoder.cls.predictions.decoder.weight"] = state[
        "text_decoder.bert.embeddings.word_embeddings.weight"
    ].clone()
    state["text_decoder.cls.predictions.decoder.bias"] = state["text_decoder.cls.predictions.bias"].clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    config |= {"architectures": ["BlipForConditionalGeneration"], "torch_dtype": "float32", "projection_dim": 512}
    config["text_config"]["torch_dtype"] = None
    (folder / "config.json").write_text(json.dumps(config))
    words = sorted(blip.tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words if word not in ("[DEC]", "[ENC]")))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "mask", "pad", "sep", "unk")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = {**special, "do_lower_case": True, "model_max_length": 512, "processor_class": "BlipProcessor",
                 "tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    pixels = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 1 / 255, "resample": 3,
              "image_processor_type": "BlipImageProcessor", "processor_class": "BlipProcessor", "size_divisor": 32,
              "image_mean": list(blip.pixels.mean), "image_std": list(blip.pixels.std),
              "size": {"height": 32, "width": 32}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


@pytest.fixture
def hub_folder(blip: Blip, tmp_path: Path) -> Path:
    return as_on_the_hub(blip, tmp_path / "blip-image-captioning-base")


def test_a_folder_as_on_the_hub_captions_like_plain_transformers(hub_folder: Path) -> None:
    from transformers import AutoProcessor, BlipForConditionalGeneration

    image = noise((50, 37), 60).convert("RGB")
    model = BlipForConditionalGeneration.from_pretrained(hub_folder).eval()
    processor = AutoProcessor.from_pretrained(hub_folder)
    inputs = processor(images=image, return_tensors="pt")
    theirs = processor.decode(model.generate(**inputs, num_beams=3, max_new_tokens=9)[0], skip_special_tokens=True)
    assert captune.Captioner.load(str(hub_folder), num_beams=3, max_new_tokens=9)(image).text == theirs.strip()


def test_a_folder_as_on_the_hub_trains_with_its_vision_frozen(
    hub_folder: Path, tiny_data: Path, tmp_path: Path
) -> None:
    result = captune.train(
        tiny_data, str(hub_folder), tmp_path / "run", max_steps=3, eval_steps=3, batch_size=4, validation_images=1,
        learning_rate=1e-2, max_new_tokens=5, trackers="none", environment={},
    )  # fmt: skip
    before, after = load_file(hub_folder / "model.safetensors"), load_file(result.best / "model.safetensors")
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(name.startswith("vision_model.") for name in moved)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["trained_parameters"] < sum(
        value.numel() for value in after.values()
    )


def test_another_image_size_interpolates_positions_and_is_saved(blip: Blip, tmp_path: Path) -> None:
    blip.save(tmp_path / "a")
    larger = Blip.load(tmp_path / "a", image_size=64)
    assert larger.encode(torch.randn(1, 3, 64, 64)).shape == (1, 65, 32)
    larger.save(tmp_path / "b")
    again = Blip.load(tmp_path / "b")
    assert again.pixels.size == 64
    torch.testing.assert_close(
        again.model.vision_model.embeddings.position_embedding, larger.model.vision_model.embeddings.position_embedding
    )
    with pytest.raises(UsageError, match="multiple of the patch size"):
        Blip.load(tmp_path / "a", image_size=50)


def test_what_is_no_model_is_said_so(tmp_path: Path, hub_folder: Path) -> None:
    load = captune.Captioner.load
    with pytest.raises(CaptuneError, match=r"no config\.json"):
        load(str(tmp_path))
    with pytest.raises(CaptuneError, match="There is no model folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(CaptuneError, match="captune demo") as caught:
        load("nobody/no-such-model")
    assert "hf download nobody/no-such-model" in caught.value.hint
    (hub_folder / "model.safetensors").write_bytes((hub_folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(CaptuneError, match="cannot be loaded"):
        load(str(hub_folder))
    (hub_folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CaptuneError, match="'bert', which captune does not know"):
        load(str(hub_folder))


def test_weights_of_another_user_are_said_to_be_unreadable(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub_folder / "model.safetensors").write_bytes(b"")
    # The tests may run as root, who may read everything.
    monkeypatch.setattr(
        "captune.models.loading.errors.os.access", lambda path, mode: Path(path).suffix != ".safetensors"
    )
    with pytest.raises(CaptuneError, match=r"model\.safetensors may not be read by this user") as caught:
        captune.Captioner.load(str(hub_folder))
    assert f"chmod -R a+rX {hub_folder}" in caught.value.hint


def test_an_unknown_size_lists_the_known(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="smal") as caught:
        captune.train(tiny_data, "new:blip-smal", tmp_path / "run", environment={})
    assert "Did you mean 'new:blip-small'" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_new_models_positions_say_where_a_patch_lies() -> None:
    positions = grid_positions(6, 32)
    assert positions.shape == (36, 32)
    apart = torch.cdist(positions, positions)
    assert apart[~torch.eye(36, dtype=torch.bool)].min() > 0.1
    row, column = divmod(14, 6)
    near = [apart[14, (row + down) * 6 + column + right] for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    torch.testing.assert_close(torch.stack(near), near[0].expand(4))  # the same step in every direction
    assert apart[14].topk(5, largest=False).indices.sort().values.tolist() == [8, 13, 14, 15, 20]
