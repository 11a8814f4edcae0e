"""Blocks run in order, bring what they need, and say which one failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import captune
from captune.api.blocks import PIPELINE, Block, BlockError, block, run_pipeline
from captune.api.blocks.pipeline import read_settings
from captune.core.errors import CaptuneError, UsageError

NAMES = [
    "01_setup_env",
    "02_download_flickr8k",
    "03_prepare_data",
    "04_load_datasets",
    "05_build_processor_and_collator",
    "06_build_model",
    "07_train",
    "08_eval_bleu",
    "09_infer_core",
    "10_demo_widgets",
]


@block("a")
def a(cfg: Mapping[str, Any], ctx: dict[str, Any]) -> dict[str, Any]:
    return {"value": cfg["start"]}


@block("b", needs=["a"])
def b(cfg: Mapping[str, Any], ctx: dict[str, Any]) -> dict[str, Any]:
    return {"value": ctx["a"]["value"] + 1}


@block("c", needs=["b"])
def c(cfg: Mapping[str, Any], ctx: dict[str, Any]) -> dict[str, Any]:
    return {"value": ctx["b"]["value"] * 10}


def long_block(left: dict[str, Any] | None) -> Block:
    """A `b` that is long work, with what it left on disk."""
    return block("b", needs=["a"], recall=lambda cfg: left)(b.run)


def test_the_ten_names() -> None:
    assert [one.name for one in captune.PIPELINE] == NAMES
    assert captune.PIPELINE is PIPELINE
    assert all(one.run.__doc__ for one in PIPELINE)


def test_blocks_run_in_order_and_keep_results() -> None:
    assert run_pipeline([a, b, c], {"start": 1}) == {"a": {"value": 1}, "b": {"value": 2}, "c": {"value": 20}}


def test_a_block_is_a_value_that_can_be_called() -> None:
    assert b({}, {"a": {"value": 4}}) == {"value": 5}
    with pytest.raises(AttributeError):
        a.name = "z"  # type: ignore[misc]


@pytest.mark.parametrize("only", ["b", ["b"]])
def test_only_runs_quick_needs_as_well(only: Any) -> None:
    assert list(run_pipeline([a, b, c], {"start": 1}, only=only)) == ["a", "b"]


def test_an_earlier_ctx_is_used_and_added_to() -> None:
    earlier = {"b": {"value": 7}}
    assert run_pipeline([a, b, c], {"start": 1}, only=["c"], ctx=earlier) is earlier
    assert earlier == {"b": {"value": 7}, "c": {"value": 70}}


def test_long_work_is_not_done_because_another_block_needs_it() -> None:
    with pytest.raises(UsageError, match="c needs b") as raised:
        run_pipeline([a, long_block(None), c], {"start": 1}, only=["c"])
    assert "only=['b', 'c']" in raised.value.hint


def test_long_work_is_taken_from_disk() -> None:
    pipeline = [a, long_block({"value": 3}), c]
    assert run_pipeline(pipeline, {"start": 1}, only=["c"]) == {"b": {"value": 3}, "c": {"value": 30}}
    assert run_pipeline(pipeline, {"start": 1})["b"] == {"value": 3}


def test_long_work_that_is_asked_for_is_done() -> None:
    assert run_pipeline([a, long_block(None), c], {"start": 1}, only=["b"])["b"] == {"value": 2}


def test_an_unknown_block_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="08_eval_blue") as raised:
        run_pipeline(PIPELINE, {}, only=["08_eval_blue"])
    assert "Did you mean '08_eval_bleu'?" in raised.value.hint


@pytest.mark.parametrize(("pipeline", "said"), [([b, a], "b needs a"), ([a, a], "Two blocks"), ([c], "c needs b")])
def test_a_pipeline_that_cannot_work(pipeline: list[Block], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_pipeline(pipeline, {"start": 1})


def test_an_error_names_its_block_and_keeps_the_results_before_it() -> None:
    @block("d", needs=["a"])
    def d(cfg: Mapping[str, Any], ctx: dict[str, Any]) -> dict[str, Any]:
        raise CaptuneError("the disk is full", "free some", code=7)

    with pytest.raises(BlockError, match="d: the disk is full") as raised:
        run_pipeline([a, d], {"start": 1})
    error = raised.value
    assert (error.block, error.ctx, error.hint, error.code) == ("d", {"a": {"value": 1}}, "free some", 7)


def test_an_unforeseen_error_carries_the_name_of_the_block() -> None:
    ctx: dict[str, Any] = {}
    with pytest.raises(KeyError) as raised:
        run_pipeline([a, b], {}, ctx=ctx)
    assert "in the block a" in raised.value.__notes__[0]
    assert ctx == {}


def test_a_block_that_returns_nothing_is_told() -> None:
    with pytest.raises(BlockError, match="e: The block returned NoneType"):
        run_pipeline([block("e")(lambda cfg, ctx: None)], {})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"epoch": 1}, "cfg has no key 'epoch'"),
        ({"epochs": -1}, "-1 is not allowed"),
        ({"preset": "flickr8k-quik"}, "flickr8k-quik"),
        ({"model": ""}, r"cfg\['model'\] is empty"),
        ({"run": ""}, r"cfg\['run'\] is empty"),
        ({"scenes": {"trian": 4}}, "trian"),
        ({"scenes": {"train": 0}}, "not allowed"),
        ({"scenes": [600, 60, 60]}, "not allowed"),
    ],
)
def test_a_cfg_is_checked_before_anything_runs(cfg: dict[str, Any], said: str) -> None:
    with pytest.raises(BlockError, match=said):
        run_pipeline(PIPELINE, cfg, only=["01_setup_env"])


def test_defaults_are_the_two_epoch_recipe(tmp_path: Path) -> None:
    asked = read_settings({"work": tmp_path, "epochs": 1, "limit_images": 20, "own": {"mine": 1}})
    assert (asked.preset, asked.model) == ("flickr8k-quick", "Salesforce/blip-image-captioning-base")
    assert asked.prepare_options() == {"split": "auto"}
    assert asked.base == asked.model
    assert asked.options == {"epochs": 1, "limit_images": 20}
    assert read_settings({"model": "new:blip-tiny"}).base == "captune-work/run@checkpoint-0"


def test_cfg_is_an_object_with_attributes_and_still_a_dictionary() -> None:
    cfg = captune.Cfg(epochs=2)
    cfg.lr = 1e-3
    cfg["seed"] = 7
    assert (cfg.epochs, cfg.learning_rate, cfg.seed, dict(cfg)) == (2, 1e-3, 7, {"epochs": 2, "lr": 1e-3, "seed": 7})
    assert (cfg.num_beams, cfg.batch_size, cfg.split, cfg.run) == (5, 4, ("auto",), "run")
    del cfg.lr
    assert "lr" not in cfg
    with pytest.raises(AttributeError, match=r"cfg has no key 'epoch'.* Did you mean 'epochs'"):
        cfg.epoch  # noqa: B018
    assert run_pipeline([a, b], captune.Cfg(start=1))["b"] == {"value": 2}


@dataclass
class OwnCfg:
    start: int = 1
    lr: float = 5e-5


class PlainCfg:
    start = 1


@pytest.mark.parametrize("cfg", [OwnCfg(), PlainCfg, PlainCfg(), SimpleNamespace(start=1)])
def test_an_object_of_ones_own_is_read_by_its_attributes(cfg: Any) -> None:
    assert run_pipeline([a, b], cfg)["b"] == {"value": 2}


def test_the_notebooks_names_of_keys(tmp_path: Path) -> None:
    given = {"lr": 1e-3, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 3, "grad_accum": 4}
    asked = read_settings({**given, "model_id": "m", "outputs_dir": tmp_path, "max_length": 20})
    assert (asked.model, asked.work) == ("m", tmp_path)
    assert asked.options == {
        "learning_rate": 1e-3,
        "batch_size": 2,
        "eval_batch_size": 3,
        "gradient_accumulation": 4,
        "max_caption_tokens": 20,
    }
    with pytest.raises(UsageError, match="'lr' and 'learning_rate' are the same key"):
        read_settings({"lr": 1e-3, "learning_rate": 1e-4})


def test_a_block_without_arguments_is_named_after_its_function() -> None:
    @block
    def longest(cfg: Mapping[str, Any], ctx: dict[str, Any]) -> dict[str, Any]:
        return {"value": 5}

    assert isinstance(longest, Block)
    assert run_pipeline([longest], {}) == {"longest": {"value": 5}}


def test_short_names_of_blocks() -> None:
    pipeline = [
        block("01_start", also=["01_begin"])(lambda cfg, ctx: {"value": 1}),
        block("02_end", needs=["01_begin"])(
            lambda cfg, ctx: {"value": ctx["01_begin"]["value"] + ctx["start"]["value"]}
        ),
    ]
    ctx = run_pipeline(pipeline, {}, only="end")
    assert ctx == {"01_start": {"value": 1}, "02_end": {"value": 2}}
    assert ctx["01_begin"] is ctx["start"] is ctx.get("01_start")
    assert ("01_begin" in ctx, "03" in ctx, ctx.get("03")) == (True, False, None)


def test_a_folders_own_splits_are_kept(tmp_path: Path) -> None:
    from PIL import Image

    source = tmp_path / "own"
    source.mkdir()
    numbers = iter(range(60))
    for split, count in (("train", 4), ("val", 3), ("test", 15)):
        lines = ["image_path,caption"]
        for number in (next(numbers) for _ in range(count)):
            Image.new("RGB", (16, 16), (4 * number, 255 - 4 * number, number)).save(source / f"{number}.png")
            lines.append(f"{source / f'{number}.png'},number {number}")
        (source / f"{split}.csv").write_text("\n".join(lines), encoding="utf-8")
    cfg = {"source": source, "work": tmp_path / "work", "duplicates": False, "workers": 1}
    counts = run_pipeline(PIPELINE, cfg, only="prepare_data")["prepare_data"]["counts"]
    assert {name: count["images"] for name, count in counts.items()} == {"train": 4, "val": 3, "test": 15}
