"""Self-critical training: gradients of expected rewards, ends that count, and a guard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import captune
from captune.core.runs import Run
from captune.metrics.reward import CiderReward
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.training.loop.scst import SelfCritical, SelfCriticalModule
from random_weights import LIVELY
from recorded import RecordedProgress

REFERENCES = {0: ["a red circle", "one red circle"], 1: ["two dogs play"], 2: ["a man on a bike .", "a man"]}


@pytest.fixture(params=sorted(LIVELY))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(3)
    made: Backbone = FAMILIES[request.param].tiny()
    with torch.no_grad():
        LIVELY[request.param](made.model)
    made.model.train()
    return made


def pictures(backbone: Backbone) -> torch.Tensor:
    side = backbone.pixels.size or 32
    return torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("search", "baseline"), [("chance", "samples"), ("chance", "greedy"), ("beams", "samples")])
def test_the_scst_loss_is_advantage_times_log_likelihood(backbone: Backbone, search: str, baseline: str) -> None:
    torch.manual_seed(0)

    def reward(captions: list[str], images: list[int], ended: list[bool] | None = None) -> np.ndarray:
        # Random captions share no words with references: pay for letters instead.
        return np.array([len(text) + image for text, image in zip(captions, images, strict=True)], float)

    module = SelfCriticalModule(backbone, reward, SelfCritical(4, search, baseline, 0.0, 6), recompute=False)
    said = []
    whole = module._sample

    def listen(memory: torch.Tensor, images: list[int], captions: int, search: str) -> tuple:
        said.append(whole(memory, images, captions, search))
        return said[-1]

    module._sample = listen
    supervised = {"lengths": torch.tensor([3]), "given": torch.tensor([1])}
    found = module(pictures(backbone), torch.tensor([2, 0, 1]), **supervised)
    found["objective"].backward()
    written, rewards, ended = said[0]
    rows = [tuple(row) for picture in written.tokens.tolist() for row in picture]
    assert search == "chance" or len(set(rows[:4])) == len(set(rows[4:8])) == 4, "beams are different captions"
    # By hand: rewards of the texts, then the policy gradient's loss with plain likelihoods.
    lengths = written.lengths.flatten().tolist()
    texts = [
        backbone.tokenizer.decode(row[:n], skip_special_tokens=True).strip()
        for row, n in zip(written.tokens.flatten(0, 1).tolist(), lengths, strict=True)
    ]
    paid = reward(texts, np.repeat([2, 0, 1], 4).tolist(), ended.tolist())
    np.testing.assert_allclose(rewards.flatten().numpy(), paid, rtol=1e-5)
    if baseline == "greedy":
        (_, base, _) = said[1]
    else:
        base = torch.stack([(row.sum() - row) / 3 for row in rewards])
    tokens, sizes, owner, given = module._with_prefix(written)
    losses = backbone.token_losses(backbone.image_features(pictures(backbone)), tokens, sizes, owner, given)
    weights = (rewards - base).flatten()[losses.caption]
    assert found["objective"].item() == pytest.approx(float((weights * losses.nll).mean()), rel=1e-4, abs=1e-6)
    assert found["reward"].item() == pytest.approx(paid.mean(), rel=1e-5)
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in backbone.parts()["text"])
    assert backbone.model.training, "sampling leaves the model as it was"


def test_a_caption_that_never_ends_is_paid_less() -> None:
    reward = CiderReward(REFERENCES)
    whole, cut = reward(["a red circle", "a red circle"], [0, 0], [True, False])
    assert whole > cut
    assert reward(["a red circle"], [0]) == whole


ONCE = {
    "batch_size": 6,
    "trackers": ("none",),
    "validation_metrics": ("cider",),
    "best_metric": "cider",
    "num_beams": 1,
    "max_new_tokens": 8,
    "logging_steps": 5,
    "keep_checkpoints": 0,
    "environment": {},
}


@pytest.fixture(scope="module")
def learned(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scst") / "xe"
    captune.train(tiny_data, "new:blip-tiny", out, max_steps=150, eval_steps=150, learning_rate=5e-3, **ONCE)
    return out


def test_a_second_stage_raises_the_reward(learned: Path, tiny_data: Path, tmp_path: Path) -> None:
    run = Run(
        captune.train(
            tiny_data,
            str(learned),
            tmp_path / "scst",
            stage="scst",
            max_steps=40,
            eval_steps=20,
            learning_rate=1e-3,
            freeze=("none",),
            scst_guard=1.0,
            **ONCE,
        ).run
    )
    history = run.history()
    rewards = [line["reward"] for line in history if "reward" in line]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3])
    assert all(0 <= line["ended"] <= 1 for line in history if "ended" in line)
    assert history[0]["step"] == 0
    assert "eval_cider" in history[0]
    assert "checkpoint-0" in {checkpoint.name for checkpoint in run.checkpoints()}
    best = max((line for line in history if "eval_cider" in line), key=lambda line: line["eval_cider"])
    assert run.pointed("best-metric") == f"checkpoint-{best['step']}"


def test_the_guard_stops_what_falls(learned: Path, tiny_data: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    run = Run(
        captune.train(
            tiny_data,
            str(learned),
            tmp_path / "scst",
            stage="scst",
            max_steps=40,
            eval_steps=4,
            learning_rate=0.5,
            freeze=("none",),
            progress=progress,
            **ONCE,
        ).run
    )
    assert run.last().step < 40
    assert any("training stops" in text for text in progress.lines)
    assert run.pointed("best-metric") != run.last().name
    assert run.manifest()["ended"]["reason"] == "scst-guard"


def test_it_resumes_exactly(learned: Path, tiny_data: Path, tmp_path: Path) -> None:
    import shutil

    options = {"stage": "scst", "max_steps": 6, "eval_steps": 3, "learning_rate": 1e-4, "scst_references": 0.2, **ONCE}
    for name in ("a", "b"):
        captune.train(tiny_data, str(learned), tmp_path / name, **options)
    shutil.rmtree(Run(tmp_path / "b").last().path)
    captune.train(out=tmp_path / "b", resume=True, environment={})
    first, second = (
        FAMILIES["blip"].load(Run(tmp_path / name).checkpoint("last").path).model.state_dict() for name in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
