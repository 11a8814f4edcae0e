"""Vision-language models learn: adapters, frozen parts, recomputed layers, number types."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import DeviceOptions, GenerationOptions
from captune.core.runs import Run
from captune.datasets.prepared import read_split
from captune.images.batches import stack
from captune.inference.batches import collate
from captune.inference.features import cached_features
from captune.inference.loading import placing_for
from captune.models import FAMILIES
from captune.models.generate import generate
from captune.models.loading.loader import load_backbone
from captune.models.lora import ADAPTER, Lora, add_lora, load_adapter, merged
from captune.models.vlm import Vlm
from captune.models.vlm.number_types import unquantized
from captune.models.weights import Placing
from recorded import RecordedProgress
from tiny_vlms import BUILDERS, lively

REFERENCES = [["a dog runs", "two dogs play in the snow"], ["a man on a bike"]]


@pytest.fixture(params=sorted(BUILDERS))
def vlm(request: pytest.FixtureRequest) -> Vlm:
    return lively(request.param)


def seen() -> np.ndarray:
    """Two RGB images (3, height, width) of their own aspects."""
    sizes = [(60, 90), (64, 64)]
    return stack(
        [np.random.default_rng(n).integers(0, 255, (3, *size), dtype=np.uint8) for n, size in enumerate(sizes)]
    )


@pytest.fixture(scope="module")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight prepared images of several aspects."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "images").mkdir()
    lines = []
    for number, (width, height) in enumerate([(60, 90), (110, 70), (64, 64), (90, 60)] * 2):
        levels = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / "images" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"image {number} of a dog"}))
    (folder / "images" / "metadata.jsonl").write_text("\n".join(lines))
    captune.prepare(folder / "images", folder / "data", split="60/20/20", environment={})
    return folder / "data"


def objective(vlm: Vlm, *, recompute: bool = False) -> torch.Tensor:
    encoded = [[vlm.encode_reference(text, 20) for text in texts] for texts in REFERENCES]
    batch = collate(list(zip(seen(), encoded, strict=True)), vlm.pad_token_id)
    features = vlm.image_features(batch.pop("images"))
    return vlm.token_losses(features, **batch, recompute=recompute).nll.mean()


def learn(vlm: Vlm, steps: int = 2, *, recompute: bool = False) -> None:
    """Steps of an optimizer, and the gradients of one more."""
    vlm.model.train()
    optimizer = torch.optim.AdamW([p for p in vlm.model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps + 1):
        optimizer.zero_grad()
        objective(vlm, recompute=recompute).backward()
        if step < steps:
            optimizer.step()
    vlm.model.eval()


def logits(vlm: Vlm) -> torch.Tensor:
    encoded = vlm.encode_reference("a dog runs", 20)
    with torch.no_grad():
        found = vlm.teacher_forced(vlm.image_features(seen()[:1]), encoded.tokens, encoded.prompt_length)
    assert found is not None
    return found.logits


def test_adapters_are_on_the_language_model_alone_and_all_of_them_learn(vlm: Vlm) -> None:
    before, weights = logits(vlm), {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    add_lora(vlm, Lora(r=2))
    torch.testing.assert_close(logits(vlm), before)
    head = vlm.model.get_output_embeddings()
    adapted = {name for name, module in vlm.model.named_modules() if hasattr(module, "lora_A")}
    assert len(adapted) == 2 * 7, "two layers: four matrices of attention, three behind it"
    assert all(name.startswith(("model.language_model.layers", "model.text_model.layers")) for name in adapted)
    assert not hasattr(head, "lora_A")
    assert vlm.lora is not None
    assert vlm.lora.targets == ("text",)

    learn(vlm, 1)
    for name, parameter in vlm.model.named_parameters():
        assert parameter.requires_grad == (".lora_" in name), name
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert bool(parameter.grad.abs().max() > 0), name
        else:
            assert torch.equal(parameter, weights[name.replace(".base_layer", "")]), name
    assert not torch.equal(logits(vlm), before)


@pytest.mark.parametrize("freeze", [(), ("vision", "bridge"), ("text",)], ids=lambda freeze: "+".join(freeze) or "none")
def test_what_is_not_frozen_learns(vlm: Vlm, freeze: tuple[str, ...]) -> None:
    vlm.freeze(freeze)
    before = {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    learn(vlm, 1)
    moved = {"vision": 0, "bridge": 0, "text": 0}
    for name, parameter in vlm.model.named_parameters():
        moved[vlm.part_of(name)] += not torch.equal(parameter, before[name])
    assert [part for part, count in moved.items() if count] == [part for part in moved if part not in freeze]
    assert vlm.image_features(seen()).joined()["image"].pooler_output[0].requires_grad == ("vision" not in freeze)


def test_a_frozen_vision_part_keeps_nothing_for_a_backward_pass(vlm: Vlm) -> None:
    vlm.freeze(("vision", "bridge"))
    enabled: list[bool] = []
    for name, module in vlm.model.named_modules():
        if vlm.part_of(name) == "vision" and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    vlm.image_features(seen())
    assert enabled
    assert not any(enabled)


def test_recomputed_layers_give_adapters_the_same_gradients(vlm: Vlm) -> None:
    add_lora(vlm, Lora(r=2))
    learn(vlm, 1)
    gradients = []
    for recompute in (False, True):
        vlm.model.train()
        vlm.model.zero_grad()
        objective(vlm, recompute=recompute).backward()
        gradients.append({name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_merged_adapters_are_saved_as_plain_weights(vlm: Vlm, tmp_path: Path) -> None:
    before = logits(vlm)
    add_lora(vlm, Lora(r=2))
    learn(vlm, 1)
    after = logits(vlm)
    vlm.save(tmp_path)
    again = load_backbone(str(tmp_path))
    assert isinstance(again, Vlm)
    torch.testing.assert_close(logits(again), after, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(again), before, rtol=1e-3, atol=1e-3)
    assert torch.equal(logits(vlm), after), "saving changes nothing"


def test_a_merged_copy_shares_what_has_no_adapter() -> None:
    vlm = Vlm.tiny()
    add_lora(vlm, Lora(r=2))
    whole = dict(merged(vlm.model).named_parameters())
    for name, parameter in vlm.model.named_parameters():
        if ".lora_" not in name:
            same = whole[name.replace(".base_layer", "")].data_ptr() == parameter.data_ptr()
            assert same == (".base_layer" not in name), name


def test_dropout_is_on_all_that_layers_add_and_saved(tmp_path: Path) -> None:
    made = Vlm.tiny()
    made.set_dropout(0.4)
    made.set_dropout(0.5)
    made.save(tmp_path)
    for vlm in (made, load_backbone(str(tmp_path))):
        layer = vlm.model.get_decoder().layers[0]
        ones = torch.ones(1, 64, layer.mlp.down_proj.in_features)
        dropped = (layer.mlp.down_proj.train()(ones) == 0).float().mean()
        assert 0.4 < dropped < 0.6
        assert not (layer.mlp.down_proj.eval()(ones) == 0).any()
        assert layer.self_attn.attention_dropout == 0.5


@pytest.mark.parametrize("change", ["missing", "renamed"])
def test_adapters_of_another_name_are_refused(change: str, tmp_path: Path) -> None:
    vlm = Vlm.tiny()
    add_lora(vlm, Lora(r=2))
    vlm.save(tmp_path)
    file = tmp_path / ADAPTER / "adapter_model.safetensors"
    state = load_file(file)
    name = next(iter(state))
    value = state.pop(name)
    if change == "renamed":
        state[name.replace("language_model", "text_model")] = value
    save_file(state, file)
    with pytest.raises(CaptuneError, match="is missing"):
        load_adapter(vlm, tmp_path / ADAPTER)


@pytest.mark.parametrize("options", [{"lora": "r=2"}, {"stage": "scst", "scst_references": 0.2}], ids=["lora", "scst"])
def test_a_stopped_run_ends_as_one_that_was_not_stopped(
    options: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    lively("qwen2_5_vl").save(tmp_path / "model")
    once = {
        "max_steps": 4,
        "eval_steps": 2,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "num_beams": 1,
        "max_new_tokens": 6,
        "validation_metrics": ("cider",),
        "trackers": ("none",),
        "keep_checkpoints": 0,
        "environment": {},
    }
    whole = Run(captune.train(tiny_data, str(tmp_path / "model"), tmp_path / "a", **once, **options).run)
    stopped = Run(shutil.copytree(whole.path, tmp_path / "b", symlinks=True))
    shutil.rmtree(stopped.last().path)
    captune.train(out=stopped.path, resume=True, environment={})
    ends = [{p.name: p for p in run.checkpoint("last").path.rglob("*.safetensors")} for run in (whole, stopped)]
    assert ends[0].keys() == ends[1].keys()
    for name in ends[0]:
        first, second = (load_file(files[name]) for files in ends)
        assert all(torch.equal(first[weight], second[weight]) for weight in first)
    start = load_file(tmp_path / "model" / "model.safetensors")
    end = load_file(ends[0]["model.safetensors"])
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    assert moved
    assert not any("visual" in name for name in moved)


def test_adapters_in_fp32_learn_on_weights_in_bf16(mixed_data: Path, tmp_path: Path) -> None:
    lively("qwen3_vl").save(tmp_path / "model")
    once = {"max_steps": 2, "batch_size": 4, "validation_images": 0, "trackers": ("none",), "environment": {}}
    run = captune.train(
        mixed_data, str(tmp_path / "model"), tmp_path / "run", lora="r=2", precision="bf16", learning_rate=1e-2, **once
    ).run
    folder = Run(run).checkpoint("last").path
    whole, adapters = load_file(folder / "model.safetensors"), load_file(folder / ADAPTER / "adapter_model.safetensors")
    assert {value.dtype for value in whole.values()} == {torch.bfloat16}
    assert {value.dtype for value in adapters.values()} == {torch.float32}
    assert all(bool(value.abs().max() > 0) for value in adapters.values())
    before = load_file(tmp_path / "model" / "model.safetensors")
    moved = {name for name, value in whole.items() if not torch.equal(before[name].to(torch.bfloat16), value)}
    assert moved
    assert all(name.removesuffix(".weight") + ".lora_A.weight" in str(sorted(adapters)) for name in moved)


# -- number types ---------------------------------------------------------------------------


def test_layers_of_the_language_model_alone_are_quantized(vlm: Vlm) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    skipped = unquantized(type(vlm.model), vlm.model.config, vlm.part_of)
    linear = [name for name, module in vlm.model.named_modules() if isinstance(module, torch.nn.Linear)]
    head = next(name for name, module in vlm.model.named_modules() if module is vlm.model.get_output_embeddings())
    assert head in skipped
    converted = [name for name in linear if should_convert_module(name, skipped)]
    assert len(converted) == 2 * 7, "two layers: four matrices of attention, three behind it"
    assert all(vlm.part_of(name) == "text" for name in converted)


def test_what_bitsandbytes_is_told(tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    lively("qwen2_5_vl").save(tmp_path)
    told = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["lm_head"])
    with pytest.raises((ImportError, RuntimeError)):  # there is no bitsandbytes, or no card
        Vlm.load(tmp_path, quantization_config=told, dtype=torch.bfloat16)
    assert sorted(told.llm_int8_skip_modules) == ["lm_head", "model.visual"]


def test_gemma_in_fp16_is_refused(tmp_path: Path) -> None:
    vlm = lively("gemma3")
    with pytest.raises(UsageError, match="range of fp16"):
        vlm.check_number_type(torch.float16)
    vlm.check_number_type(torch.bfloat16)
    vlm.save(tmp_path)
    with pytest.raises(UsageError, match="range of fp16"):
        load_backbone(str(tmp_path), placing=Placing(torch.float16))
    lively("llava").check_number_type(torch.float16)


@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma3", "idefics3"])
def test_layers_that_lie_apart_caption_the_same(kind: str, tmp_path: Path) -> None:
    """Half on the disk instead of on another card: hooks of accelerate bring both together."""
    from accelerate import dispatch_model

    vlm = lively(kind)
    options = GenerationOptions(num_beams=2, max_new_tokens=6)

    def said() -> list[tuple[int, ...]]:
        with torch.inference_mode():
            return [each[0].tokens for each in generate(vlm, vlm.image_features(seen()), options)]

    before, loss = said(), float(objective(vlm))
    layers = next(name for name, _ in vlm.model.named_modules() if name.endswith("layers.1") and "vis" not in name)
    places = {}
    for name, module in vlm.model.named_modules():
        beside = f"{layers}.".startswith(name[: name.rfind(".") + 1]) and not f"{layers}.".startswith(f"{name}.")
        if name.startswith(f"{layers}.") and not list(module.children()):
            places[name] = "disk"
        elif name and beside:
            places[name] = "cpu"
    dispatch_model(vlm.model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert said() == before
    with torch.no_grad():
        assert float(objective(vlm)) == pytest.approx(loss, rel=1e-5)


def test_all_cards_are_for_captioning_with_these_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("vlm", "git"):
        FAMILIES[family].tiny().save(tmp_path / family)
    with pytest.raises(CaptuneError, match="no CUDA"):
        placing_for(str(tmp_path / "vlm"), DeviceOptions(device="all"))
    with pytest.raises(UsageError, match="of the family git"):
        placing_for(str(tmp_path / "git"), DeviceOptions(device="all"))
    with pytest.raises(UsageError, match="for captioning"):
        placing_for(str(tmp_path / "vlm"), DeviceOptions(device="all"), learns=["text"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    placing = placing_for(str(tmp_path / "vlm"), DeviceOptions(device="all", precision="fp32"))
    assert placing == Placing(torch.float32, device=torch.device("cuda:0"), spread=True)


# -- cached features ------------------------------------------------------------------------


def test_features_come_back_as_they_were_encoded(vlm: Vlm) -> None:
    features = vlm.image_features(seen())
    rows = vlm.stored_features(features)
    assert all(row.dtype == np.uint16 for row in rows)
    again = vlm.image_features(stack(rows))
    assert again.texts == features.texts
    assert again.inputs.keys() == features.inputs.keys()
    for name, values in features.inputs.items():
        assert all(torch.equal(one, other) for one, other in zip(values, again.inputs[name], strict=True))
    before, after = features.joined()["image"], again.joined()["image"]
    for one, other in zip(flat(before), flat(after), strict=True):
        torch.testing.assert_close(other, one.to(torch.bfloat16).to(one.dtype), rtol=0, atol=0)


def flat(value: Any) -> list[torch.Tensor]:
    """The tensors in an output of `get_image_features`."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = [getattr(value, "deepstack_features", None) or [], value.pooler_output] if hasattr(value, "keys") else value
    return [tensor for part in parts for tensor in flat(part)]


@pytest.mark.parametrize("kind", ["qwen3_vl", "gemma3"])
def test_cached_features_train_the_same(
    kind: str, mixed_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path / "cache"))
    lively(kind).save(tmp_path / "model")
    once = {
        "max_steps": 2,
        "eval_steps": 2,
        "logging_steps": 1,
        "batch_size": 4,
        "learning_rate": 1e-4,
        "validation_images": 0,
        "trackers": ("none",),
        "environment": {},
    }
    losses, said = [], []
    for name, cached in (("plain", False), ("cached", True), ("again", True)):
        progress = RecordedProgress()
        train = captune.train(
            mixed_data, str(tmp_path / "model"), tmp_path / name, cache_features=cached, progress=progress, **once
        )
        losses.append([line[key] for line in Run(train.run).history() for key in ("loss", "eval_loss") if key in line])
        said.append([line for line in progress.lines if line.startswith("Features of")])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[2] == losses[1]
    assert [len(lines) for lines in said] == [0, 1, 0]


def test_cached_features_need_a_frozen_bridge(mixed_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="vision and a bridge part"):
        captune.train(
            mixed_data, "new:vlm-tiny", tmp_path / "a", freeze=("vision",), cache_features=True, environment={}
        )


def test_a_part_that_was_cut_off_is_made_again(
    mixed_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTUNE_CACHE", str(tmp_path))
    vlm = lively("qwen2_5_vl")
    images = [record.image for record in read_split(mixed_data, "train")]
    made = cached_features(vlm, images, part_size=2)
    parts = sorted(tmp_path.rglob("*.bin"))
    assert len(parts) == -(-len(images) // 2)
    parts[0].write_bytes(parts[0].read_bytes()[:-2])
    again = cached_features(vlm, images, part_size=2)
    assert all(np.array_equal(made[image], again[image]) for image in images)
    with pytest.raises(CaptuneError, match="no room"):
        cached_features(lively("qwen3_vl"), images, spare=1 << 60)
