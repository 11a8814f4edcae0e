"""prepare → train → evaluate → caption, typed as a user would, each verb a process of its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from captune.cli.main import run
from typed import Typed

OPTIONS = "--max-steps 6 --eval-steps 3 --batch-size 4 --validation-images 2 --max-new-tokens 6 --num-beams 2"
TINY = [*OPTIONS.split(), "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def folder(captune: Typed, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which a source was prepared and a model trained by the command line."""
    here = tmp_path_factory.mktemp("journey")
    captune("prepare", tiny_data.parent, "--out", "data", "--split", "60/20/20", folder=here)
    captune("train", "--data", "data", "--model", "new:blip-tiny", "--out", "runs/a", *TINY, folder=here)
    return here


def test_evaluate_puts_two_models_side_by_side(captune: Typed, folder: Path) -> None:
    done = captune("evaluate", "runs/a", "--data", "data", "--against", "runs/a@checkpoint-0", "--json", folder=folder)
    said = json.loads(done.stdout)
    written = json.loads((folder / "runs/a/eval_bleu.json").read_text())
    assert set(written["models"]) == {"runs/a", "runs/a@checkpoint-0"}
    first, second = (written["models"][name]["scores"] for name in ("runs/a", "runs/a@checkpoint-0"))
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "sacrebleu", "perplexity"):
        assert written["differences"]["runs/a@checkpoint-0"][name] == pytest.approx(first[name] - second[name])
    assert first["perplexity"] < second["perplexity"]
    assert "signature" in json.dumps(written["models"]["runs/a"]["settings"])
    assert str(first["cider"])[:6] in json.dumps(said)
    lines = [json.loads(line) for line in (folder / "runs/a/eval_per_image.jsonl").read_text().splitlines()]
    assert len(lines) == written["images"]
    assert all({"id", "image", "references", "models"} <= set(line) for line in lines)


def test_fewer_images_and_references(captune: Typed, folder: Path) -> None:
    captune(
        "evaluate", "runs/a", "--data", "data", "--split", "train", "--limit-images", 3, "--limit-references", 1,
        "--out", "limited", folder=folder,
    )  # fmt: skip
    written = json.loads((folder / "limited/eval_bleu.json").read_text())
    assert (written["images"], written["references"]) == (3, 3)


@pytest.mark.parametrize("format", ["text", "json", "jsonl", "csv", "xml", "txt"])
def test_caption_a_folder_in_every_printed_format(
    folder: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((folder / "data").rglob("*.png")) or sorted(Path(p) for p in _pictures(folder))
    words = ["caption", *map(str, images[:3]), "--model", str(folder / "runs/a"), "--format", format]
    assert run(words) == 0
    printed = capsys.readouterr().out
    if format == "txt":
        assert len(printed.splitlines()) == 3
    else:
        assert all(image.name in printed for image in images[:3])


def _pictures(folder: Path) -> list[str]:
    with open(folder / "data/test.csv", encoding="utf-8", newline="") as file:
        return sorted({row["image_path"] for row in csv.DictReader(file)})


def test_one_bad_picture_costs_only_itself(captune: Typed, folder: Path) -> None:
    bad = folder / "bad.jpg"
    bad.write_text("<html>404</html>")
    listed = "\n".join([_pictures(folder)[0], str(bad), _pictures(folder)[1], "missing.jpg"]) + "\n"
    # The list names images by their whole paths, outside of the working folder.
    command = ("caption", "-", "--model", "runs/a", "--format", "jsonl", "--allow-outside")
    done = captune(*command, folder=folder, code=3, stdin=listed)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "error", "ok", "error"]
    assert rows[0]["caption"] is not None
    assert rows[1]["error"]
    assert "bad.jpg" in done.stderr
    assert "missing.jpg" in done.stderr


def test_a_batch_gives_the_captions_of_single_images(captune: Typed, folder: Path) -> None:
    images = _pictures(folder)
    many = captune("caption", *images, "--model", "runs/a", "--format", "jsonl", folder=folder)
    one = captune("caption", *images, "--model", "runs/a", "--format", "jsonl", "--batch-size", 1, folder=folder)
    together, alone = ([json.loads(line) for line in done.stdout.splitlines()] for done in (many, one))
    assert [row["caption"] for row in together] == [row["caption"] for row in alone]
    assert [row["confidence"] for row in together] == pytest.approx([row["confidence"] for row in alone], rel=1e-4)


def test_a_run_from_the_first_checkpoint_trains_on(captune: Typed, folder: Path) -> None:
    captune(
        "train", "--data", "data", "--model", "runs/a@best-loss", "--out", "runs/b", *TINY, "--freeze", "vision,bridge",
        folder=folder,
    )  # fmt: skip
    manifest = json.loads((folder / "runs/b/manifest.json").read_text())
    assert manifest["trained_parameters"] == manifest["parts"]["text"]
    listed = captune("runs", "list", "runs", "--json", folder=folder)
    assert {Path(run["run"]).name if "run" in run else Path(run["path"]).name for run in json.loads(listed.stdout)} == {
        "a",
        "b",
    }


def test_wrong_inputs_say_what_to_do(captune: Typed, folder: Path) -> None:
    for words, told in (
        (["train", "--data", "nowhere", "--model", "new:blip-tiny", "--out", "runs/c"], "captune prepare"),
        (["train", "--data", "data", "--model", "new:blip-tiny", "--out", "runs/a"], "--resume"),
        (["train", "--data", "data", "--model", "new:blip-huge", "--out", "runs/c"], "tiny"),
        (["evaluate", "runs/a@best", "--data", "data", "--split", "tset"], "test"),
        (["evaluate", "runs/a@epoch-9", "--data", "data"], "epoch-"),
        (["caption", "x.jpg", "--model", "runs/nothing-here/at/all"], "Check the path"),
        (["caption", "x.jpg", "--model", "runs/a", "--num-beams", "0"], "--num-beams"),
    ):
        done = captune(*words, folder=folder, code=(1, 2))
        assert told in done.stderr, f"{words}\n{done.stderr}"
    assert not (folder / "runs/c").exists()
