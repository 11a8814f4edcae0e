"""Weights come into memory in the type they run in, and those that do not learn are written once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import captune
from captune.core.errors import CaptuneError
from captune.core.options import DeviceOptions
from captune.core.runs import Run
from captune.inference.loading import placing_for
from captune.models import FAMILIES
from captune.models.blip2 import Blip2
from captune.models.loading.loader import load_backbone, model_info
from captune.models.weights import FROZEN, LEARNED, Placing, Shared, stored_weights
from recorded import RecordedProgress

PRECISE = ("language_projection", "qformer", "query_tokens")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of a family, made and saved once."""
    home = tmp_path_factory.mktemp("models")

    @cache
    def made(family: str) -> Path:
        FAMILIES[family].tiny().save(home / family)
        return home / family

    return made


@pytest.fixture(params=sorted(FAMILIES))
def saved(request: pytest.FixtureRequest, models: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(models(request.param), tmp_path / "model"))


def to_half(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_are_read_in_another_type_as_if_they_were_turned_afterwards(saved: Path) -> None:
    plain = load_backbone(str(saved)).model
    typed = load_backbone(str(saved), placing=Placing(torch.bfloat16)).model
    assert type(typed) is type(plain)
    assert typed.generation_config.to_dict() == plain.generation_config.to_dict()
    theirs = plain.to(torch.bfloat16).state_dict()
    assert {n: (v.dtype, v.tolist()) for n, v in typed.state_dict().items()} == {
        n: (v.dtype, v.tolist()) for n, v in theirs.items()
    }


def test_files_tell_what_they_hold(saved: Path) -> None:
    found = stored_weights(saved)
    assert found is not None
    assert (found.dtype, found.bytes) == (torch.float32, 4 * found.values)
    to_half(saved)
    half = stored_weights(saved)
    assert half is not None
    assert (half.dtype, half.values) == (torch.float16, found.values)
    assert model_info(str(saved)).vision_hidden_size == load_backbone(str(saved)).vision_hidden_size


@pytest.mark.parametrize(
    ("precision", "learns", "placing"),
    [
        ("fp32", None, Placing(torch.float32)),
        ("bf16", None, Placing(torch.bfloat16)),
        ("fp32", ["bridge"], Placing(torch.float32)),
        ("bf16", ["bridge"], Placing(torch.bfloat16, PRECISE)),
        ("bf16", ["bridge", "text"], Placing(torch.bfloat16, ("language_model", *PRECISE))),
        ("bf16", ["bridge", "text", "vision"], Placing(torch.float32)),
    ],
)
def test_what_is_frozen_is_in_the_type_to_compute_in(
    precision: Any, learns: list[str] | None, placing: Placing, tmp_path: Path
) -> None:
    Blip2.tiny().save(tmp_path / "m")
    asked = DeviceOptions(device="cpu", precision=precision)
    found = placing_for(str(tmp_path / "m"), asked, learns=learns)
    assert (found.dtype, found.precise) == (placing.dtype, placing.precise)
    model = load_backbone(str(tmp_path / "m"), placing=found).model
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    wanted = {n: torch.float32 if n.startswith(placing.precise or ("",)) else placing.dtype for n in types}
    assert types == (wanted if placing.precise else dict.fromkeys(types, placing.dtype))


def train(data: Path, model: str, run: Path, **options: Any) -> Run:
    captune.train(
        data, model, run, eval_steps=1, batch_size=4, trackers=("none",), validation_images=2, max_new_tokens=4,
        device="cpu", environment={}, **options,
    )  # fmt: skip
    return Run(run)


def test_a_large_models_frozen_half_stays_as_it_was_and_a_stopped_training_goes_on_exactly(
    tiny_data: Path, tmp_path: Path
) -> None:
    """In bf16 what is frozen is saved in bf16, what learned in fp32; plain transformers opens it."""
    from transformers import Blip2ForConditionalGeneration

    Blip2.tiny().save(tmp_path / "m")
    to_half(tmp_path / "m")
    options = {"precision": "bf16", "max_steps": 2, "keep_checkpoints": 0}
    whole = train(tiny_data, str(tmp_path / "m"), tmp_path / "whole", **options)
    shutil.copytree(whole.path, tmp_path / "part", symlinks=True)
    shutil.rmtree(tmp_path / "part" / "checkpoints" / "checkpoint-2")
    captune.train(out=tmp_path / "part", resume=True, environment={})
    one, two = (load_file(r / "checkpoints/checkpoint-2/model.safetensors") for r in (whole.path, tmp_path / "part"))
    assert {n: v.dtype for n, v in one.items()} == {
        n: torch.float32 if n.startswith(PRECISE) else torch.bfloat16 for n in one
    }
    assert all(torch.equal(one[name], two[name]) for name in one)
    began = load_file(tmp_path / "m" / "model.safetensors")
    for name, value in one.items():
        moved = not torch.equal(value.float(), began[name].to(value.dtype).float())
        assert not moved or name.startswith(PRECISE), name
    Blip2ForConditionalGeneration.from_pretrained(whole.checkpoint("last").path)


@pytest.mark.parametrize("lora", [False, True])
def test_frozen_weights_are_written_once_and_shared(saved: Path, lora: bool, tmp_path: Path) -> None:
    from captune.models.lora import Lora, add_lora

    made = load_backbone(str(saved))
    if lora:
        pytest.importorskip("peft")
        add_lora(made, Lora())
    else:
        made.freeze(["vision"])
    made.save(tmp_path / "one", shared=Shared(None, 0))
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    made.save(tmp_path / "two", shared=Shared(tmp_path / "one", 0))
    made.save(tmp_path / "whole")
    assert os.path.samefile(tmp_path / "one" / FROZEN, tmp_path / "two" / FROZEN)
    assert not (tmp_path / "two" / "model.safetensors").exists()
    shutil.rmtree(tmp_path / "one")  # an older checkpoint goes
    both = {**load_file(tmp_path / "two" / FROZEN), **load_file(tmp_path / "two" / LEARNED)}
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert both.keys() == whole.keys()
    again, plain = load_backbone(str(tmp_path / "two")).model, load_backbone(str(tmp_path / "whole")).model
    theirs = plain.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in again.state_dict().items())
    assert stored_weights(tmp_path / "two") == stored_weights(tmp_path / "whole")


def test_frozen_weights_of_another_type_are_not_linked(tmp_path: Path) -> None:
    made = Blip2.tiny()
    made.freeze(["vision", "text"])
    made.save(tmp_path / "one", shared=Shared(None, 0))
    made.model.bfloat16()
    made.save(tmp_path / "two", shared=Shared(tmp_path / "one", 0))
    assert not os.path.samefile(tmp_path / "one" / FROZEN, tmp_path / "two" / FROZEN)
    made.save(tmp_path / "small", shared=Shared(tmp_path / "two"))
    assert (tmp_path / "small" / "model.safetensors").is_file(), "a small model is one file"


def test_an_index_whose_file_is_gone_is_told(tmp_path: Path) -> None:
    made = Blip2.tiny()
    made.freeze(["vision", "text"])
    made.save(tmp_path / "one", shared=Shared(None, 0))
    (tmp_path / "one" / FROZEN).unlink()
    with pytest.raises(CaptuneError, match=FROZEN):
        captune.Captioner.load(tmp_path / "one")


def test_what_a_training_takes_is_told_before_it_begins(tiny_data: Path, tmp_path: Path) -> None:
    from captune.training.plan import estimate_needs, needs_message

    made = Blip2.tiny()
    made.freeze(["vision", "text"])
    learning = sum(p.numel() for p in made.parts()["bridge"])
    weights = sum(p.nbytes for p in made.model.parameters())
    needs = estimate_needs(made)
    assert (needs.weights, needs.learning, needs.first) == (weights, 12 * learning, weights + 8 * learning)
    assert needs.disk(3) == 3 * needs.first, "a small model shares nothing"
    assert "2 checkpoints" not in needs_message(made, tmp_path / "run", 2)
    assert "for 4 checkpoints" in needs_message(made, tmp_path / "run", 2)
    assert "for each other" in needs_message(made, tmp_path / "run", 0)

    progress = RecordedProgress()
    train(tiny_data, "new:blip-tiny", tmp_path / "run", max_steps=1, progress=progress)
    assert any("of memory" in line and "of disk" in line for line in progress.lines), progress.lines


def quantized(folder: Path, kind: torch.dtype, method: str | None) -> None:
    """Weights as an 8-bit tool leaves them, their scales left out; `method` as config.json names it."""
    state = load_file(folder / "model.safetensors")
    for name in [name for name, value in state.items() if value.ndim == 2][:2]:
        scale = state[name].abs().max() / 100
        state[name] = (state[name] / scale).to(kind)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if method:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method}}))


@pytest.mark.parametrize(("kind", "method"), [(torch.float8_e4m3fn, None), (torch.int8, "not-known")])
def test_quantized_weights_that_nothing_reads_are_no_other_values(
    saved: Path, kind: torch.dtype, method: str | None
) -> None:
    quantized(saved, kind, method)
    for placing in (Placing(), Placing(torch.bfloat16)):
        with pytest.raises(CaptuneError, match=r"are quantized \(.* is (F8_E4M3|I8)\)") as caught:
            load_backbone(str(saved), placing=placing)
        assert (method or "config.json") in caught.value.message
        assert "the model that was quantized" in caught.value.hint


def test_plain_weights_load_whatever_quantization_their_configuration_names(tmp_path: Path) -> None:
    FAMILIES["blip"].tiny().save(tmp_path / "model")
    plain = load_backbone(str(tmp_path / "model")).model.state_dict()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "not-known"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    loaded = load_backbone(str(tmp_path / "model")).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.items())
