from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from captune.core.config import dump, resolve
from captune.core.errors import CaptuneError
from captune.core.files import write_json, write_jsonl, write_text
from captune.core.runs import Run, find_runs
from captune.training.runs import compare_runs, list_runs, show_run

HISTORY = [
    {"step": 10, "epoch": 0.5, "loss": 3.0, "learning_rate": 1e-4},
    {"step": 20, "epoch": 1.0, "eval_loss": 2.0, "eval_cider": 0.4, "eval_bleu_4": 0.10, "eval_images": 500},
    {"step": 40, "epoch": 2.0, "eval_loss": 1.5, "eval_cider": 0.6, "eval_bleu_4": 0.12, "eval_images": 500},
    {"step": 60, "epoch": 3.0, "eval_loss": 1.7, "eval_cider": 0.6, "eval_bleu_4": 0.11, "eval_images": 500},
]


def make_run(folder: Path, *, created: str = "2026-11-01T10:00:00+00:00", finished: bool = True, **flags: Any) -> Run:
    run = Run(folder)
    write_text(folder / "config.yaml", dump(resolve("train", flags=flags).values))
    run.write_manifest(
        {"created": created, "model": "new:blip-small", "data": "data", "data_digest": "d1", "finished": finished}
    )
    write_jsonl(folder / "history.jsonl", HISTORY)
    for step, epoch in ((40, 2.0), (60, 3.0)):
        checkpoint = run.checkpoints_folder / f"checkpoint-{step}"
        write_text(checkpoint / "model.safetensors", "x" * 1000)
        write_json(checkpoint / "complete.json", {"step": step, "epoch": epoch})
    run.point("best-loss", "checkpoint-40")
    return run


def test_a_copy_that_followed_links_keeps_its_pointers(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    copy = Run(shutil.copytree(tmp_path / "a", tmp_path / "copy"))
    assert not (copy.path / "best-loss").is_symlink()
    assert copy.pointed("best-loss") == copy.checkpoint("best-loss").name == "checkpoint-40"
    copy.point("best-loss", "checkpoint-60")
    assert copy.checkpoint("best-loss").name == "checkpoint-60"
    assert [c.name for c in copy.checkpoints()] == ["checkpoint-40", "checkpoint-60"]


def test_a_pointer_that_a_kill_left_half_made_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".best-loss.99999999.part").symlink_to("checkpoints/checkpoint-60")
    run = make_run(tmp_path)
    assert run.pointed("best-loss") == "checkpoint-40"
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_run_in_one_row(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    (summary,) = list_runs(tmp_path)
    assert summary.path == str(tmp_path / "a")
    assert (summary.state, summary.model, summary.epochs, summary.steps) == ("finished", "new:blip-small", 3.0, 60)
    assert summary.checkpoints == ("checkpoint-40", "checkpoint-60")
    assert summary.pointers == {"best-loss": "checkpoint-40"}
    # Loss is best where it is lowest, scores where they are highest; of equals the earliest; counts are no scores.
    assert {name: (best.value, best.epoch) for name, best in summary.best.items()} == {
        "loss": (1.5, 2.0),
        "cider": (0.6, 2.0),
        "bleu_4": (0.12, 2.0),
    }
    # The pointer is a link: the checkpoint behind it counts once.
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file() and not path.is_symlink()]
    assert summary.size == sum(path.stat().st_size for path in files if "best-loss" not in path.parts)


def test_runs_are_listed_by_age(tmp_path: Path) -> None:
    make_run(tmp_path / "a", created="2026-11-02T10:00:00+00:00")
    make_run(tmp_path / "b", created="2026-11-01T10:00:00+00:00", finished=False)
    (tmp_path / "no-run").mkdir()
    assert [(Path(run.path).name, run.state) for run in list_runs(tmp_path)] == [("b", "stopped"), ("a", "finished")]
    assert [run.path.name for run in find_runs(tmp_path / "a")] == ["a"]


@pytest.mark.parametrize(("name", "text"), [("manifest.json", "{"), ("manifest.json", "[]")])
def test_a_broken_run_does_not_hide_the_others(tmp_path: Path, name: str, text: str) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    (tmp_path / "a" / name).write_text(text, encoding="utf-8")
    broken, sound = list_runs(tmp_path)
    assert (broken.state, sound.state) == ("broken", "finished")
    assert "manifest.json" in broken.problem


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    with open(run.path / "history.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 80, "eval_los')
    detail = show_run(run.path)
    assert detail.summary.steps == 60
    assert len(detail.validations) == 3
    assert len(detail.training) == 1


def test_everything_about_a_run_is_json(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", epochs=3.0)
    write_json(run.path / "eval_bleu.json", {"model": "a"})
    told = json.loads(json.dumps(show_run(run.path).to_json()))
    assert told["summary"]["best"]["cider"] == {"value": 0.6, "epoch": 2.0, "step": 40}
    assert told["summary"]["state"] == "finished"
    assert told["config"]["train"]["epochs"] == 3.0
    assert told["evaluation"] == {"model": "a"}


def test_comparing_shows_only_what_differs(tmp_path: Path) -> None:
    make_run(tmp_path / "a", epochs=3.0, num_beams=5)
    make_run(tmp_path / "b", epochs=4.0, num_beams=5)
    comparison = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert comparison.differences == {"train.epochs": (3.0, 4.0)}
    assert [Path(run.path).name for run in comparison.runs] == ["a", "b"]


def test_one_run_is_compared_over_its_validations(tmp_path: Path) -> None:
    make_run(tmp_path / "a", epochs=3.0)
    comparison = compare_runs([tmp_path / "a"])
    assert comparison.differences == {}
    (steps,) = comparison.validations
    assert [step.step for step in steps] == [20, 40, 60]
    picked = {rule: step.step for step in steps for rule in step.picked_by}
    assert picked["cider"] == 40
    assert "meteor" not in picked  # it was not measured
    assert json.loads(json.dumps(comparison.to_json()))["validations"][str(tmp_path / "a")][1]["step"] == 40


def test_other_data_is_a_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    run = make_run(tmp_path / "b")
    run.write_manifest({**run.manifest(), "data_digest": "d2"})
    assert compare_runs([tmp_path / "a", tmp_path / "b"]).differences == {"data_digest": ("d1", "d2")}


def test_a_checkpoints_name_stands_for_its_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    assert show_run(f"{tmp_path / 'a'}@last").summary.steps == 60


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=r"is not a run: it has no manifest\.json"):
        show_run(tmp_path)
    with pytest.raises(CaptuneError, match="is not a run: there is no such folder"):
        show_run(tmp_path / "none")
    with pytest.raises(CaptuneError, match="nothing to compare"):
        compare_runs([])
    with pytest.raises(CaptuneError, match="There is no folder"):
        list_runs(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", 3),
        ("model", None),
        ("processes", "two"),
        ("changed", "x"),
        ("versions", None),
        ("ended", "yes"),
        ("options", [1]),
        ("options", {"train": 1}),
        ("data_splits", {"train": None}),
    ],
)
def test_a_manifest_of_another_form_is_named(tmp_path: Path, name: str, value: object) -> None:
    run = Run(tmp_path)
    run.write_manifest({"data": "x", name: value})
    with pytest.raises(CaptuneError, match=f"'{name}' is not what captune writes") as caught:
        run.manifest()
    assert "checkpoint-STEP" in caught.value.hint
