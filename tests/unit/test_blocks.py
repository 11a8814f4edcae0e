"""Blocks run in order, bring what they need, and say which one failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.app.blocks import PIPELINE, Block, BlockError, block, run_pipeline
from captune.app.blocks.settings import settings
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
    asked = settings({"work": tmp_path, "epochs": 1, "limit_images": 20, "own": {"mine": 1}})
    assert (asked.preset, asked.model) == ("flickr8k-quick", "Salesforce/blip-image-captioning-base")
    assert asked.prepare_options() == {"split": "80/10/10"}
    assert asked.base == asked.model
    assert asked.options == {"epochs": 1, "limit_images": 20}
    assert settings({"model": "new:blip-tiny"}).base == "captune-work/run@checkpoint-0"
