"""Adapters on every family: they begin as nothing, learn alone, and are saved both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import captune
from captune.core.errors import CaptuneError, UsageError
from captune.core.options import GenerationOptions
from captune.core.runs import Run
from captune.inference.batches import collate
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.generate import generate
from captune.models.lora import ADAPTER, Lora, add_lora, load_adapter
from random_weights import LIVELY

pytest.importorskip("peft")
OPTIONS = GenerationOptions(max_new_tokens=8)


@pytest.fixture(params=sorted(LIVELY))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(3)
    made: Backbone = FAMILIES[request.param].tiny()
    made.model.eval()
    with torch.no_grad():
        LIVELY[request.param](made.model)
    return made


def seen(backbone: Backbone) -> torch.Tensor:
    side = backbone.pixels.size or 32
    return torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


def said(backbone: Backbone) -> list[str]:
    with torch.inference_mode():
        return [each[0].text for each in generate(backbone, backbone.image_features(seen(backbone)), OPTIONS)]


def learn(backbone: Backbone, steps: int = 4) -> None:
    references = [[backbone.encode_reference(text, 20)] for text in ("a red circle", "a man", "two dogs", "a bike")]
    batch = collate(list(zip(seen(backbone).numpy(), references, strict=True)), backbone.pad_token_id)
    optimizer = torch.optim.AdamW([p for p in backbone.model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(steps):
        memory = backbone.image_features(batch["images"])
        losses = backbone.token_losses(memory, *(batch[k] for k in ("tokens", "lengths", "owner", "given")))
        losses.nll.mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("targets", [("bridge", "text"), ("vision", "bridge", "text")])
def test_adapters_start_without_effect_learn_alone_and_merge(
    backbone: Backbone, targets: tuple[str, ...], tmp_path: Path
) -> None:
    before = said(backbone)
    weights = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    add_lora(backbone, Lora(r=4, alpha=8, targets=targets))
    assert said(backbone) == before
    learn(backbone)
    after = said(backbone)
    assert after != before
    for name, parameter in backbone.model.named_parameters():
        plain = name.replace(".base_layer", "")
        if plain in weights:
            assert torch.equal(parameter, weights[plain]), name
    # captune's own search sees the adapters as transformers' does.
    backbone.own_search = False
    assert said(backbone) == after
    backbone.own_search = True

    backbone.save(tmp_path / "m")
    whole = type(backbone).load(tmp_path / "m")
    whole.model.eval()
    assert not any("lora" in name for name in whole.model.state_dict())
    assert said(whole) == after
    assert said(backbone) == after, "saving changes nothing"


def test_adapters_saved_alone_load_again(backbone: Backbone, tmp_path: Path) -> None:
    backbone.save(tmp_path / "base")
    add_lora(backbone, Lora(r=2))
    learn(backbone)
    backbone.save(tmp_path / "m")
    again = type(backbone).load(tmp_path / "base")
    again.model.eval()
    add_lora(again, Lora(r=2))
    assert said(again) != said(backbone)
    load_adapter(again, tmp_path / "m" / ADAPTER)
    assert said(again) == said(backbone)


def test_peft_itself_reads_the_adapters(tmp_path: Path) -> None:
    from peft import PeftModel

    torch.manual_seed(0)
    backbone = FAMILIES["blip"].tiny()
    with torch.no_grad():
        LIVELY["blip"](backbone.model)
    backbone.model.eval()
    backbone.save(tmp_path / "base")
    add_lora(backbone, Lora(r=2))
    learn(backbone)
    backbone.save(tmp_path / "m")
    base = FAMILIES["blip"].load(tmp_path / "base")
    base.model = PeftModel.from_pretrained(base.model, str(tmp_path / "m" / ADAPTER)).merge_and_unload()
    base.model.eval()
    assert said(base) == said(backbone)


def test_a_run_with_adapters_resumes_exactly(tiny_data: Path, tmp_path: Path) -> None:
    once = {
        "lora": "r=4,targets=text",
        "max_steps": 6,
        "eval_steps": 3,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "validation_images": 0,
        "trackers": ("none",),
        "keep_checkpoints": 0,
        "environment": {},
    }
    whole = Run(captune.train(tiny_data, "new:blip-tiny", tmp_path / "a", **once).run)
    stopped = Run(captune.train(tiny_data, "new:blip-tiny", tmp_path / "b", **once).run)
    import shutil

    shutil.rmtree(stopped.checkpoints()[-1].path)
    captune.train(out=tmp_path / "b", resume=True, environment={})
    first, second = (FAMILIES["blip"].load(run.checkpoint("last").path).model.state_dict() for run in (whole, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)
    manifest = whole.manifest()
    assert manifest["trained_parameters"] < manifest["parameters"] / 5
    assert len(captune.Captioner.load(str(whole.path))(next((tiny_data.parent / "Images").iterdir())).text) >= 0


def test_what_a_lora_may_say() -> None:
    assert Lora.parse("on") == Lora()
    assert Lora.parse("r=8") == Lora(8, 16)
    assert Lora.parse("r=8,alpha=4,dropout=0.1,targets=vision+text") == Lora(8, 4, 0.1, ("vision", "text"))
    for wrong in ("r=x", "rank=3", "targets=eyes", "r=0", "dropout=1"):
        with pytest.raises(UsageError, match="--lora"):
            Lora.parse(wrong)


def test_without_peft_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(CaptuneError, match="needs peft"):
        add_lora(FAMILIES["blip"].tiny(), Lora())


def test_parts_have_learning_rates_of_their_own(tiny_data: Path, tmp_path: Path) -> None:
    from captune.models import FAMILIES

    run = captune.train(
        tiny_data,
        "new:blip-tiny",
        tmp_path / "run",
        max_steps=2,
        batch_size=6,
        learning_rate=1e-2,
        part_learning_rates=("vision=0", "text=1e-4"),
        weight_decay=0.0,
        schedule="constant",
        warmup_ratio=0.0,
        validation_images=0,
        trackers=("none",),
        keep_checkpoints=0,
        environment={},
    ).run
    first, last = (FAMILIES["blip"].load(Run(run).checkpoint(which).path) for which in ("checkpoint-0", "last"))
    moved = {}
    for part in ("vision", "bridge", "text"):
        pairs = zip(first.parts()[part], last.parts()[part], strict=True)
        moved[part] = max(float((a - b).abs().max()) for a, b in pairs)
    assert moved["vision"] == 0
    assert moved["text"] < 5e-4 < 5e-3 < moved["bridge"]
    for wrong in ("eyes=1e-3", "vision", "text=-1", "text=fast"):
        with pytest.raises(UsageError, match="part-learning-rates"):
            captune.train(tiny_data, "new:blip-tiny", tmp_path / "b", part_learning_rates=(wrong,), environment={})
