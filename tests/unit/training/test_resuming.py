"""A run goes on with the model, the data and the options that it began with; other versions are told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from captune.core.config import dump, resolve
from captune.core.errors import CaptuneError, UsageError
from captune.core.files import write_json
from captune.core.files.fingerprints import file_content
from captune.core.progress import SILENT
from captune.core.records import ImageRecord
from captune.core.runs import CONFIG, MANIFEST, Run
from captune.datasets.prepared import SPLITS, PreparedData, read_prepared, read_split, write_splits
from captune.training.resuming import (
    check_same_data,
    check_same_model,
    check_trained,
    check_unedited,
    data_facts,
    has_begun,
    model_facts,
    no_run_error,
    record_session,
    resolve_resumed,
    restore_config,
)
from recorded import RecordedProgress

PLAIN = resolve("train", flags={}).values
ADAPTERS = resolve("train", flags={"lora": "on"}).values


# -- the model ------------------------------------------------------------------------------------


def test_another_model_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_manifest({"model": "new:blip-tiny"})
    check_same_model(run, "new:blip-tiny", PLAIN)
    with pytest.raises(UsageError, match="began with new:blip-tiny, not new:git-tiny") as caught:
        check_same_model(run, "new:git-tiny", PLAIN)
    assert "Leave --model out" in caught.value.hint
    run.write_manifest({"model": "./start"})
    check_same_model(run, "start/", PLAIN)


def test_adapters_go_on_the_same_weights_alone(tmp_path: Path) -> None:
    folder, run = tmp_path / "model", Run(tmp_path / "run")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    run.write_manifest(model_facts(str(folder), ADAPTERS))
    check_same_model(run, str(folder), ADAPTERS)
    (folder / "model.safetensors").write_bytes(b"w3ights")
    with pytest.raises(UsageError, match="not the one that the adapters"):
        check_same_model(run, str(folder), ADAPTERS)
    check_same_model(run, str(folder), PLAIN)  # all weights are in the checkpoint


# -- the data -------------------------------------------------------------------------------------


def prepared(folder: Path, reference: str = "a dog", color: str = "red") -> PreparedData:
    """A prepared folder of two splits with two images each."""
    folder.mkdir()
    splits = {}
    for split in ("train", "val"):
        splits[split] = []
        for number in range(2):
            image = folder / f"{split}-{number}.bmp"  # of one size, whatever it shows
            Image.new("RGB", (4, 4), color).save(image)
            splits[split].append(ImageRecord(f"{split}-{number}", str(image), (reference, f"a cat {number}"), split))
    contents = {record.id: file_content(record.image) for records in splits.values() for record in records}
    write_splits(folder, splits, contents, {"source": "photos"})
    return read_prepared(folder)


def splits_of(data: PreparedData) -> dict[str, list[ImageRecord]]:
    return {name: read_split(data.folder, name) for name in ("train", "val")}


def edit(folder: Path, change: Callable[[list[str]], list[str]], split: str = "train") -> None:
    path = folder / f"{split}_split.jsonl"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def repaint(folder: Path, size: int = 4) -> None:
    Image.new("RGB", (size, size), "blue").save(folder / "val-1.bmp")


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "references": (lambda d: edit(d, lambda lines: [lines[0].replace("dog", "cow"), *lines[1:]]), "train.*references"),
    "order": (lambda d: edit(d, lambda lines: lines[::-1], "val"), "val.*another order"),
    "ids": (lambda d: edit(d, lambda lines: [line.replace("train-", "t-", 1) for line in lines]), "train.*ids"),
    "images": (lambda d: repaint(d, 5), "val.*other image files"),
    "images of the same size": (repaint, "val.*other image files"),
    "exchanged images": (
        lambda d: edit(d, lambda lines: [a.replace(x, y) for a, x, y in zip(lines, "01", "10", strict=True)]),
        "train",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_other_data_are_refused_with_what_differs(tmp_path: Path, attack: str) -> None:
    data, run = prepared(tmp_path / "data"), Run(tmp_path / "run")
    run.write_manifest(data_facts(data, splits_of(data)))
    check_same_data(run, data, splits_of(data), SILENT)
    change, expected = ATTACKS[attack]
    change(data.folder)
    with pytest.raises(UsageError, match=f"--data: the {expected}") as caught:
        check_same_data(run, read_prepared(data.folder), splits_of(data), SILENT)
    assert "another --out" in caught.value.hint


def test_another_folder_is_refused_and_a_copy_is_not(tmp_path: Path) -> None:
    data, run = prepared(tmp_path / "data"), Run(tmp_path / "run")
    run.write_manifest(data_facts(data, splits_of(data)))
    other = prepared(tmp_path / "other", reference="a cow")
    with pytest.raises(UsageError, match="other data"):
        check_same_data(run, other, splits_of(other), SILENT)
    copy = prepared(tmp_path / "copy")  # the same bytes, written later
    os.utime(copy.folder / "train-0.bmp", (0, 0))
    facts = check_same_data(run, copy, splits_of(copy), SILENT)
    record_session(run, 4, facts, {}, SILENT)
    assert run.manifest()["data"] == str(copy.folder)
    assert run.manifest()["changed"] == [{"step": 4, "data": [str(data.folder), str(copy.folder)]}]


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data")
    (data.folder / "val-0.bmp").unlink()
    with pytest.raises(CaptuneError, match=r"val-0\.bmp of the val split cannot be read: No such file") as caught:
        data_facts(data, splits_of(data))
    assert "captune prepare" in caught.value.hint


GOOD = b'{"id": "a", "image_path": "train-0.bmp", "references": ["a dog", "a cat 0"]}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "counts 2 with 4: it was cut off or edited"),
        (GOOD, "counts 2 with 4"),
        (GOOD + GOOD[:-20], "line 2: expected an object"),
        (GOOD.decode().encode("utf-16"), "is not UTF-8 text"),
        (bytes(range(256)), "is not UTF-8 text"),
        (b"\0" * 100, "line 1: expected an object"),
        (b"[1, 2]\n", "line 1: expected an object"),
        (b"7\n", "line 1: expected an object"),
        (GOOD.replace(b'["a dog", "a cat 0"]', b'"a dog"'), "line 1: expected an object"),
        (GOOD.replace(b'"train-0.bmp"', b"null"), "line 1: expected an object"),
        (b"[" * 100_000 + b"\n", "line 1: expected an object"),
    ],
)
def test_a_damaged_split_is_named_with_the_next_step(tmp_path: Path, content: bytes, message: str) -> None:
    data = prepared(tmp_path / "data")
    (data.folder / "train_split.jsonl").write_bytes(content)
    with pytest.raises(CaptuneError, match=f"train_split.jsonl.* {message}|train_split.jsonl.*{message}") as caught:
        read_split(data.folder, "train")
    assert f"captune prepare photos --out {data.folder}" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe{\0}\0", b'{"version": 1}', b"[" * 100_000])
def test_a_damaged_summary_is_named(tmp_path: Path, content: bytes) -> None:
    data = prepared(tmp_path / "data")
    (data.folder / SPLITS).write_bytes(content)
    with pytest.raises(CaptuneError, match=SPLITS) as caught:
        read_prepared(data.folder)
    assert caught.value.hint.startswith("Run: captune prepare SOURCE --out")


# -- versions and options ---------------------------------------------------------------------------


def test_other_versions_are_told_once_and_written_down(tmp_path: Path) -> None:
    from captune.core.machine import versions

    data, run, progress = prepared(tmp_path / "data"), Run(tmp_path / "run"), RecordedProgress()
    facts = data_facts(data, splits_of(data))
    run.write_manifest({**facts, "versions": {**versions(), "torch": "1.0", "platform": "elsewhere"}})
    record_session(run, 8, facts, {}, progress)
    (told,) = progress.warnings
    assert f"torch {versions()['torch']} instead of 1.0" in told
    assert run.manifest()["changed"] == [{"step": 8, "versions": {"torch": ["1.0", versions()["torch"]]}}]
    record_session(run, 9, facts, {}, progress)
    assert len(progress.warnings) == 1


def test_options_that_were_edited_in_the_run_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_manifest({"options": PLAIN.model_dump(mode="json")})
    check_unedited(run, resolve("train", flags={"loader_workers": 2}).values)
    with pytest.raises(UsageError, match=r"train\.learning_rate = 0\.5, and the run began with"):
        check_unedited(run, resolve("train", flags={"learning_rate": 0.5}).values)


def test_a_folder_that_is_no_run_is_named_as_such(tmp_path: Path) -> None:
    assert "there is no such folder" in no_run_error(Run(tmp_path / "none")).message
    assert "it has no manifest.json and no config.yaml" in no_run_error(Run(tmp_path)).message
    assert not has_begun(Run(tmp_path))


def test_a_run_without_its_options_has_them_from_the_manifest(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved = resolve("train", flags={"learning_rate": 0.5}).values
    run.write_manifest({"options": json.loads(json.dumps(saved.model_dump(mode="json")))})
    assert restore_config(run, SILENT)
    assert (run.path / CONFIG).read_text() == dump(saved)
    (run.path / CONFIG).unlink()
    write_json(run.path / MANIFEST, {})
    assert not restore_config(run, SILENT)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match=r"No checkpoint of .* is whole: optimizer\.pt is missing") as caught:
        check_trained(Run(tmp_path), None, {"checkpoint-4": "optimizer.pt is missing"})
    assert "copy" in caught.value.hint
    check_trained(Run(tmp_path), None, {"checkpoint-0": "x"})


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    check_trained(run, None, {})
    run.point("best-loss", "checkpoint-0")
    check_trained(run, None, {})
    run.point("best-loss", "checkpoint-4")
    with pytest.raises(CaptuneError, match="checkpoint-4 is missing"):
        check_trained(run, None, {})


@pytest.mark.parametrize("content", ["a: 1\n", "a: [", b"\xff\xfea\0", b"a: \0"])
def test_damaged_options_of_a_run_are_taken_from_the_manifest(tmp_path: Path, content: str | bytes) -> None:
    run = Run(tmp_path)
    (tmp_path / CONFIG).write_bytes(content.encode() if isinstance(content, str) else content)
    run.write_manifest({"options": PLAIN.model_dump(mode="json")})
    with pytest.raises(UsageError, match=CONFIG) as caught:
        resolve_resumed(run, None, None, (), {}, {})
    assert caught.value.hint.startswith(f"Remove it: captune train --resume --out {tmp_path} ")
