"""What is wrong with an export is said, and nothing is left behind."""

from __future__ import annotations

import errno
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import captune
from captune.cli.main import run
from captune.core.errors import CaptuneError, UsageError
from captune.core.exported import EXPORT, FORMAT, VISION, Exported, export_folder
from captune.export import graphs as described
from captune.export import onnx
from captune.export.graphs import graphs_of
from captune.inference.runtime.model import ExportTokenizer
from captune.inference.runtime.sessions import open_session
from captune.models import FAMILIES
from captune.models.loading.loader import load_backbone
from copies import Copy
from exported import saved_model
from noise import noise
from vision_parts import joined

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.usefixtures("traced_once")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model("blip", tmp_path_factory.mktemp("models") / "blip")


def breaks(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    """A writer whose largest weight in one of the files is not what the model has."""
    write = onnx.write

    def broken(graphs: Any, folder: Path, **asked: Any) -> None:
        import onnx as files
        from onnx import numpy_helper

        write(graphs, folder, **asked)
        found = files.load(str(folder / f"{name}.onnx"))
        largest = max(found.graph.initializer, key=lambda one: len(one.raw_data))
        largest.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(largest)), largest.name))
        files.save(found, str(folder / f"{name}.onnx"))

    return broken


@pytest.mark.parametrize("name", ["vision", "text"])
def test_an_export_that_says_something_else_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(onnx, "write", breaks(name, lambda weights: weights[..., ::-1].copy()))
    with pytest.raises(CaptuneError, match=r"not written: by .* it says something else on \d+ % of|\d+% of 16 images"):
        captune.export(model, tmp_path / "made" / "x")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_off_are_refused_though_the_captions_are_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "write", breaks("vision", lambda weights: weights * 1.002))
    with pytest.raises(CaptuneError, match="is off by"):
        captune.export(model, tmp_path / "x", check_images=2)
    assert list(tmp_path.iterdir()) == []


def test_an_int8_export_that_changes_too_much_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "write", breaks("text", lambda weights: weights[::-1].copy()))
    with pytest.raises(CaptuneError, match="less than 90%") as raised:
        captune.export(model, tmp_path / "x", int8=True, min_identical=0.9)
    assert "--min-identical" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_calibration_needs_int8_and_pictures(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="8-bit"):
        captune.export(model, tmp_path / "x", calibrate_on=tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CaptuneError):
        captune.export(model, tmp_path / "x", int8=True, calibrate_on=empty)
    (empty / "a.png").write_text("no picture")
    with pytest.raises(CaptuneError, match="can be read"):
        captune.export(model, tmp_path / "x", int8=True, calibrate_on=empty)
    assert not (tmp_path / "x").exists()


def test_a_tokenizer_that_writes_otherwise_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = ExportTokenizer.decode
    monkeypatch.setattr(ExportTokenizer, "decode", lambda self, tokens: decode(self, tokens).upper())
    with pytest.raises(CaptuneError, match="its tokenizer makes"):
        captune.export(model, tmp_path / "x", check_images=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", ["blip-2", "blip-vqa", "vlm"])
def test_a_family_that_cannot_be_exported_names_those_that_can(tmp_path: Path, family: str) -> None:
    torch.manual_seed(0)
    FAMILIES[family].tiny().save(tmp_path / "m")
    with pytest.raises(CaptuneError, match=f"This {family} cannot be exported") as raised:
        captune.export(tmp_path / "m", tmp_path / "x")
    assert "BLIP, GIT" in raised.value.hint
    assert not (tmp_path / "x").exists()


def test_what_stands_at_out_is_never_touched(model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        captune.export(model, tmp_path / "full")
    with pytest.raises(UsageError, match="is a file"):
        captune.export(model, tmp_path / "file")
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_wrong_words_are_answered_before_anything_is_loaded(model: Path, tmp_path: Path, tiny_data: Path) -> None:
    with pytest.raises(UsageError, match="no export target 'onx'") as raised:
        captune.export(model, tmp_path / "x", to="onx")
    assert "Did you mean 'onnx'?" in raised.value.hint
    with pytest.raises(CaptuneError, match="split"):
        captune.export(model, tmp_path / "x", data=tiny_data, split="vall")
    with pytest.raises(UsageError, match="not allowed"):
        captune.export(model, tmp_path / "x", min_identical=2)
    with pytest.raises(CaptuneError, match="no model folder"):
        captune.export(tmp_path / "nowhere", tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        captune.export(model, tmp_path / "x", check_on=str(tmp_path / "empty"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("package", "extra"), [("onnxscript", "export"), ("openvino", "openvino")])
def test_a_missing_package_is_named_with_its_extra(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CaptuneError, match=f"'{package}'") as raised:
        captune.export(model, tmp_path / "x", to="openvino")
    assert f"captune[{extra}]" in raised.value.hint


def test_broken_pictures_are_left_out_of_the_check(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "pictures"
    images.mkdir()
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff but no image")
    with pytest.raises(CaptuneError, match="No image of"):
        captune.export(model, tmp_path / "x", check_on=str(images))
    noise((60, 40), 80).save(images / "whole.png")
    assert run(["export", str(model), "--out", str(tmp_path / "x"), "--check-on", str(images), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert (report["check"]["pictures"], report["check"]["source"]) == (1, str(images))
    assert "Left out of the check" in printed.err
    assert (tmp_path / "x" / "vision.onnx").is_file()


def test_the_table_and_the_sizes_are_printed(
    model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--check-images", "2", "--data", str(tiny_data), "--limit-images", "2", "--resamples", "20"]
    assert run(["export", str(model), "--out", str(tmp_path / "x"), *words]) == 0
    printed = capsys.readouterr()
    assert "greedy" in printed.out
    assert "100.0%" in printed.out
    assert "cider" in printed.out
    assert "Written: " in printed.err
    assert run(["export", str(model), "--out", str(tmp_path / "x")]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_stop_in_the_middle_leaves_no_folder(warm: str, model: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "made" / "x"
    process = Copy(warm, ["export", str(model), "--out", str(out), "--quiet"])
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("made/.x.*.part/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    code = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert process.wait() == code, process.stderr
    assert not out.exists()
    if number == signal.SIGKILL:  # what it left is hidden, and the next export clears it away
        assert [path.name.startswith(".x.") for path in (tmp_path / "made").iterdir()] == [True]
        captune.export(model, out, check_images=1)
        assert [path.name for path in (tmp_path / "made").iterdir()] == ["x"]
    else:
        assert "Nothing was written." in process.stderr
        assert not (tmp_path / "made").exists()


def test_a_full_disk_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fills(graphs: Any, folder: Path, **asked: Any) -> None:
        (folder / "vision.onnx").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx, "write", fills)
    with pytest.raises(CaptuneError, match="disk is full"):
        captune.export(model, tmp_path / "a" / "x")
    assert list(tmp_path.iterdir()) == []


def test_what_openvino_cannot_write_is_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")

    def full(*given: Any, **asked: Any) -> None:
        raise RuntimeError("Exception from src/core:\nbasic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", full)
    with pytest.raises(CaptuneError, match=r"cannot write vision\.xml: basic_ios") as raised:
        captune.export(model, tmp_path / "x", to="openvino")
    assert "disk is full" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_told_of_an_export(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's converter reports each use to its maker."""
    told = Mock()
    monkeypatch.setattr(pytest.importorskip("openvino_telemetry").Telemetry, "send_event", told)
    captune.export(model, tmp_path / "x", to="openvino", check_images=1)
    assert not told.called


def test_weights_beyond_two_gigabytes_lie_beside_the_graph(model: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(model))
    graphs = graphs_of(backbone)
    onnx.write_graph(graphs.vision, tmp_path / "vision.onnx", largest=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vision.onnx", "vision.onnx.data"]
    pixels = graphs.vision.example["pixels"]
    found = open_session(tmp_path, VISION, "onnx", graphs.layers)(pixels=pixels.numpy())
    with torch.inference_mode():
        mine = graphs.vision.module(graphs.vision.example)
    for expected, got in zip(mine, found.values(), strict=True):
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_facts_of_another_format_or_broken_ones_are_refused(tmp_path: Path) -> None:
    assert export_folder(tmp_path) is None
    (tmp_path / EXPORT).write_text(json.dumps({"format": 99}))
    assert export_folder(tmp_path / EXPORT) == export_folder(tmp_path) == tmp_path
    with pytest.raises(CaptuneError, match="format 99"):
        Exported.read(tmp_path)
    (tmp_path / EXPORT).write_text(json.dumps({"format": 1, "family": "blip"}))
    with pytest.raises(CaptuneError, match="format 1; this captune reads format 2") as raised:
        Exported.read(tmp_path)
    assert "Export the model again" in raised.value.hint
    (tmp_path / EXPORT).write_text(json.dumps({"format": FORMAT, "family": "blip"}))
    with pytest.raises(CaptuneError, match="not whole"):
        Exported.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(CaptuneError, match=r"tokenizer\.json cannot be read"):
        ExportTokenizer.load(tmp_path / "tokenizer.json", clean_up=False)


def test_a_tokenizer_in_python_is_refused_and_a_padding_one_does_not_pad(model: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptuneError, match="is not one of the package tokenizers"):
        described.write_tokenizer(object(), tmp_path)
    backbone = load_backbone(str(model))
    tokenizer, text = backbone.tokenizer, "a man on a bike ."
    expected = backbone.tokenize(text)
    tokenizer.backend_tokenizer.enable_padding(length=30)
    tokenizer.backend_tokenizer.enable_truncation(2)
    described.write_tokenizer(tokenizer, tmp_path)
    assert ExportTokenizer.load(tmp_path / "tokenizer.json", clean_up=False).encode(text) == expected
    assert 2 < len(expected) < 30


@pytest.mark.parametrize(
    ("clean_up", "text"), [(True, "a man's dog, isn't it?"), (False, "a man 's dog , is n't it ?")]
)
def test_text_is_cleaned_up_as_by_transformers(tmp_path: Path, clean_up: bool, text: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = ["[UNK]", "a", "man", "'s", "dog", ",", "is", "n't", "it", "?"]
    plain = Tokenizer(models.WordLevel({shard: n for n, shard in enumerate(pieces)}, unk_token="[UNK]"))
    theirs: Any = PreTrainedTokenizerFast(tokenizer_object=plain, clean_up_tokenization_spaces=clean_up)
    described.write_tokenizer(theirs, tmp_path)
    words = ExportTokenizer.load(tmp_path / "tokenizer.json", clean_up=described.cleans_up(theirs))
    tokens = list(range(1, len(pieces)))
    assert words.decode(tokens) == theirs.decode(tokens) == text


@pytest.mark.parametrize("kind", ["vit", "dinov2", "siglip"])
def test_other_vision_parts_with_a_gpt2_can_be_exported(kind: str, tmp_path: Path) -> None:
    backbone = joined(kind, tmp_path)
    backbone.save(tmp_path / "m")
    report = captune.export(tmp_path / "m", tmp_path / "x", check_images=3)
    assert report.check.identical == 1.0
    assert Exported.read(tmp_path / "x").pixels.shorter == backbone.pixels.shorter
