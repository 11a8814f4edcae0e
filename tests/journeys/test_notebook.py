"""The notebook runs from the first cell to the last, and its demo captions an uploaded picture."""

from __future__ import annotations

import datetime
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import captune
from captune.core.files import read_json, write_json
from captune.core.files.paths import MARK, mark_written

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "flickr8k.ipynb"
TINY: dict[str, Any] = {
    "source": "scenes",
    "scenes": {"train": 24, "dev": 6, "test": 6},
    "model": "new:blip-tiny",
    "preset": None,
    "epochs": 1,
    "batch_size": 8,
    "validation_images": 4,
    "num_beams": 1,
    "max_new_tokens": 8,
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks") / "work"


@pytest.fixture(scope="module")
def ctx(work: Path) -> dict[str, Any]:
    return captune.run_pipeline(captune.PIPELINE, {**TINY, "work": work})


@pytest.fixture
def copy(ctx: dict[str, Any], work: Path, tmp_path: Path) -> Path:
    """The folder of the blocks, for a test that changes it."""
    there = Path(shutil.copytree(work, tmp_path / "work"))
    for mark in there.rglob(MARK):  # as if it had been made there
        mark_written(mark.parent, read_json(mark))
    return there


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 8
    assert not [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"]]


def test_the_notebook_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (place,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(f"cfg.update({TINY!r})"))
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert not [output for outputs in said.values() for output in outputs if output.output_type == "error"]
    (table,) = (
        "".join(o.get("text", "") for o in outputs) for code, outputs in said.items() if "scores['base']" in code
    )
    assert "6 images, 30 references" in table
    assert "cider" in table
    (widget,) = (outputs for code, outputs in said.items() if code == 'ctx["10_demo_widgets"]["widget"]')
    assert "application/vnd.jupyter.widget-view+json" in widget[0].data
    assert (tmp_path / "captune-scenes" / "run" / "eval_bleu.json").is_file()


def test_every_block_leaves_what_it_promises(ctx: dict[str, Any], work: Path) -> None:
    assert list(ctx) == [one.name for one in captune.PIPELINE]
    assert ctx["01_setup_env"]["device"] in ("cpu", "cuda", "mps")
    assert ctx["03_prepare_data"]["counts"]["train"] == {"images": 24, "references": 120}
    assert ctx["03_prepare_data"]["splits"] == read_json(work / "data" / "splits.json")
    assert {name: len(records) for name, records in ctx["04_load_datasets"].items()} == {
        "train": 24,
        "val": 6,
        "test": 6,
    }
    built = ctx["06_build_model"]
    assert built["parameters"] == sum(part["parameters"] for part in built["parts"].values())
    assert built["parameters"] == read_json(work / "run" / "manifest.json")["parameters"]
    metrics, saved = ctx["07_train"]["metrics"], read_json(work / "run" / "train_metrics.json")
    assert list(metrics)[:2] == ["final_train_loss", "perplexity"]
    assert metrics["final_train_loss"] == saved["train_loss"]
    assert metrics["perplexity"] == pytest.approx(math.exp(saved["eval_loss"]))
    assert metrics["steps"] == 3
    assert not [name for name, value in metrics.items() if isinstance(value, dict | list)]


def test_a_batch_of_the_collator(ctx: dict[str, Any]) -> None:
    built = ctx["05_build_processor_and_collator"]
    batch = built["collate"]([built["encode"](record) for record in ctx["04_load_datasets"]["train"][:3]])
    assert batch["images"].shape == (3, 3, 32, 32)
    assert batch["owner"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    first = ctx["04_load_datasets"]["train"][0].references[0]
    assert built["tokenizer"].decode(batch["tokens"][0], skip_special_tokens=True) == first


def test_evaluation_compares_with_the_untrained_start(ctx: dict[str, Any]) -> None:
    scores = ctx["08_eval_bleu"]
    assert (scores["images"], scores["references"]) == (6, 30)
    assert scores["models"]["base"].endswith("@checkpoint-0")
    assert scores["tuned"]["loss"] < scores["base"]["loss"]
    assert scores["difference"]["loss"] == pytest.approx(scores["tuned"]["loss"] - scores["base"]["loss"])
    assert scores["BLEU_base"] == pytest.approx(100 * scores["base"]["sacrebleu"])
    assert scores["delta"] == pytest.approx(scores["BLEU_finetuned"] - scores["BLEU_base"])
    assert ctx["eval_bleu"] is scores
    assert read_json(scores["file"])["models"][scores["models"]["tuned"]]["scores"] == scores["tuned"]


def test_after_a_restart_only_what_is_asked_is_done(ctx: dict[str, Any], work: Path, copy: Path) -> None:
    cfg = {**TINY, "work": copy, "limit_images": 3, "limit_references": 2}
    again = captune.run_pipeline(captune.PIPELINE, cfg, only=["08_eval_bleu"])
    assert list(again) == ["03_prepare_data", "07_train", "08_eval_bleu"]
    assert again["07_train"] == {
        name: value.replace(str(work), str(copy)) if isinstance(value, str) else value
        for name, value in ctx["07_train"].items()
    }
    assert (again["08_eval_bleu"]["images"], again["08_eval_bleu"]["references"]) == (3, 6)


def test_a_run_of_other_settings_is_not_taken_for_this_one(ctx: dict[str, Any], work: Path) -> None:
    cfg = {**TINY, "work": work, "epochs": 3, "learning_rate": 1e-3}
    with pytest.raises(captune.CaptuneError, match=r"epochs 1.0 → 3.0; learning_rate 2e-05 → 0.001") as raised:
        captune.run_pipeline(captune.PIPELINE, cfg, only=["09_infer_core"])
    assert "cfg['run'] = 'run-2'" in raised.value.hint


def test_other_ways_to_search_and_other_threads_go_on_with_the_run(ctx: dict[str, Any], copy: Path) -> None:
    cfg = captune.Cfg(**TINY, work=copy)
    cfg.threads, cfg.num_beams, cfg.max_new_tokens, cfg.repetition_penalty = 1, 2, 4, 1.5
    again = captune.run_pipeline(captune.PIPELINE, cfg, only=["09_infer_core"])
    assert again["07_train"]["metrics"] == ctx["07_train"]["metrics"]
    options = again["09_infer_core"]["captioner"].options
    assert (options.generation.num_beams, options.generation.max_new_tokens, options.run_on.threads) == (2, 4, 1)


def test_a_stopped_run_goes_on(copy: Path) -> None:
    manifest = read_json(copy / "run" / "manifest.json")
    write_json(copy / "run" / "manifest.json", {**manifest, "finished": False})
    cfg = {**TINY, "work": copy}
    with pytest.raises(captune.CaptuneError, match="09_infer_core needs 07_train"):
        captune.run_pipeline(captune.PIPELINE, cfg, only=["09_infer_core"])
    found = captune.run_pipeline(captune.PIPELINE, cfg, only=["07_train"])
    assert found["07_train"]["metrics"]["steps"] == 3
    assert read_json(copy / "run" / "manifest.json")["finished"] is True


def test_caption_image_core(ctx: dict[str, Any]) -> None:
    core = ctx["09_infer_core"]["caption_image_core"]
    image = Path(ctx["04_load_datasets"]["test"][0].image)
    text = core(image, max_new_tokens=24, num_beams=3)
    assert isinstance(text, str)
    assert text == core(image.read_bytes(), max_new_tokens=24, num_beams=3)
    assert text == captune.Captioner.load(ctx["07_train"]["run"])(image, max_new_tokens=24, num_beams=3).text
    assert len(core(image, max_new_tokens=2).split()) <= 2


def test_the_demo_captions_what_is_uploaded(ctx: dict[str, Any]) -> None:
    parts = ctx["10_demo_widgets"]["parts"]
    image = Path(ctx["04_load_datasets"]["test"][0].image)
    core = ctx["09_infer_core"]["caption_image_core"]
    parts["button"].click()
    assert parts["output"].value == "Choose an image first."
    parts["upload"].value = (upload(image.name, image.read_bytes()),)
    assert core(image, max_new_tokens=24, num_beams=3) in parts["output"].value
    parts["beams"].value, parts["length"].value = 1, 3
    parts["button"].click()
    assert core(image, max_new_tokens=3, num_beams=1) in parts["output"].value
    assert parts["picture"].value == image.read_bytes()
    assert "% confidence" in parts["output"].value
    parts["looked"].value = True
    assert bytes(parts["picture"].value).startswith(b"\x89PNG")
    parts["looked"].value = False
    assert parts["picture"].value == image.read_bytes()
    parts["upload"].value = (upload("letter.txt", b"no picture"),)
    assert "<b>" not in parts["output"].value
    assert parts["picture"].layout.display == "none"


def test_the_page_about_the_pipeline_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (NOTEBOOK.parents[1] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    first, _, some, own = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    for code in (first.replace("cfg = {", "cfg = {'scenes': {'train': 24, 'dev': 6, 'test': 6}, "), some, own):
        exec(code, names)
    assert list(names["ctx"])[-2:] == ["08_eval_bleu", "11_longest"]
    assert names["ctx"]["08_eval_bleu"]["images"] == 6


def test_the_page_lists_every_result_of_every_block(ctx: dict[str, Any]) -> None:
    page = (NOTEBOOK.parents[1] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\d\d_\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert list(listed) == list(ctx)
    for name, results in ctx.items():
        assert set(results) <= set(re.findall(r"`(\w+)", listed[name])), name


def upload(name: str, content: bytes) -> dict[str, Any]:
    """What the browser hands on, as ipywidgets' FileUpload holds it."""
    return {
        "name": name,
        "type": "image/jpeg",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    }
