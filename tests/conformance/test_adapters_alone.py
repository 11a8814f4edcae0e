"""--save-adapter-only: a checkpoint is adapters beside the name of their model, for captune and for transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.runs import Run
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.loading.loader import load_backbone
from random_weights import LIVELY
from tiny_vlms import lively

pytest.importorskip("peft")
ONCE: dict[str, Any] = {
    "lora": "r=2,alpha=64",
    "save_adapter_only": True,
    "max_steps": 4,
    "eval_steps": 2,
    "batch_size": 4,
    "learning_rate": 3e-2,
    "validation_images": 0,
    "trackers": ("none",),
    "keep_checkpoints": 0,
    "environment": {},
}


def saved(name: str, folder: Path) -> Path:
    if name in LIVELY and name != "vlm":
        torch.manual_seed(3)
        made: Backbone = FAMILIES[name].tiny()
        with torch.no_grad():
            LIVELY[name](made.model)
    else:
        made = lively("qwen2_5_vl")
    made.save(folder)
    return folder


def logits(backbone: Backbone) -> torch.Tensor:
    side = backbone.pixels.size or 64
    image = np.random.default_rng(4).integers(0, 255, (1, 3, side, side), dtype=np.uint8)
    encoded = backbone.encode_reference("a red square", 20)
    with torch.no_grad():
        found = backbone.teacher_forced(backbone.image_features(image), encoded.tokens, encoded.prompt_length)
    assert found is not None
    return found.logits


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("alone")
    base = saved("vlm", folder / "base")
    return base, Run(captune.train(tiny_data, str(base), folder / "run", **ONCE).run)


@pytest.mark.parametrize("name", ["blip", "clip-gpt2"])
def test_adapters_alone_say_what_the_merged_model_says(name: str, tiny_data: Path, tmp_path: Path) -> None:
    base = saved(name, tmp_path / "base")
    runs = [
        captune.train(tiny_data, str(base), tmp_path / kind, **{**ONCE, "save_adapter_only": kind == "alone"}).run
        for kind in ("alone", "whole")
    ]
    alone, whole = (load_backbone(str(run)) for run in runs)
    torch.testing.assert_close(logits(alone), logits(whole), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(alone), logits(load_backbone(str(base))), rtol=1e-2, atol=1e-2)
    assert not list(Run(runs[0]).checkpoint("last").path.rglob("model*.safetensors"))


def test_a_checkpoint_holds_no_weights_of_the_model(trained: tuple[Path, Run]) -> None:
    base, run = trained
    folder = run.checkpoint("last").path
    assert [path.name for path in folder.rglob("*.safetensors")] == ["adapter_model.safetensors"]
    assert not (folder / "config.json").exists()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base.resolve())


def test_transformers_and_peft_read_it(trained: tuple[Path, Run]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    base, run = trained
    folder = run.checkpoint("last").path
    own = load_backbone(str(run.path))
    expected = logits(own)
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval()
    wrapped = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), folder).eval()
    for model in (plain, wrapped.base_model.model):
        own.model = model
        torch.testing.assert_close(logits(own), expected, rtol=1e-4, atol=1e-4)


def test_it_resumes_exactly(trained: tuple[Path, Run], tmp_path: Path) -> None:
    _, run = trained
    stopped = Run(shutil.copytree(run.path, tmp_path / "b", symlinks=True))
    shutil.rmtree(stopped.last().path)
    captune.train(out=stopped.path, resume=True, environment={})
    first, second = (load_file(one.checkpoint("last").path / "adapter_model.safetensors") for one in (run, stopped))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_captions_and_trains_on(trained: tuple[Path, Run], tiny_data: Path, tmp_path: Path) -> None:
    _, run = trained
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    captioner = captune.Captioner.load(str(run.path), max_new_tokens=3)
    assert isinstance(captioner(tmp_path / "a.png").text, str)
    again = {**ONCE, "lora": None, "save_adapter_only": False, "max_steps": 1, "eval_steps": 1, "learning_rate": 1e-5}
    whole = captune.train(tiny_data, str(run.path), tmp_path / "run", **again).run
    assert (Run(whole).checkpoint("last").path / "model.safetensors").is_file()


def test_what_a_model_is_needed_for_is_said(trained: tuple[Path, Run], tmp_path: Path) -> None:
    base, run = trained
    folder = shutil.copytree(run.checkpoint("last").path, tmp_path / "adapters")
    (folder / "complete.json").unlink()  # it is no checkpoint of a run any more
    config = json.loads((folder / "adapter_config.json").read_text())
    other = shutil.copytree(base, tmp_path / "other")
    (other / "generation_config.json").write_text("{}")
    for name, message in ((tmp_path / "gone", "which is not there"), (other, "files have changed")):
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(name)}))
        with pytest.raises(CaptuneError, match=message):
            load_backbone(str(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": None}, "goes with --lora"),
        ({"image_size": 64}, "without --image-size"),
        ({"model": "new:blip-tiny"}, "is kept nowhere"),
        ({"model": "run"}, "holds adapters itself"),
    ],
)
def test_where_there_is_no_such_model_it_is_refused(
    options: dict[str, Any], message: str, trained: tuple[Path, Run], tiny_data: Path, tmp_path: Path
) -> None:
    base, run = trained
    options = {**ONCE, **options}
    model = options.pop("model", str(base))
    with pytest.raises(UsageError, match=message):
        captune.train(tiny_data, str(run.path) if model == "run" else model, tmp_path / "x", **options)


def test_it_is_not_pushed_as_a_model(trained: tuple[Path, Run], tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="holds adapters alone"):
        captune.push(str(trained[1].path), "me/x", dry_run=True, out=tmp_path / "hub", environment={})
