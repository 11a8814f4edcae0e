"""What is no model, told by its files and by the Hub's answers; nothing here loads torch."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from captune.core.errors import CaptuneError, UsageError
from captune.core.model_names import local_folder, parse_new_name
from captune.models.loading.errors import load_error, unknown_kind


def folder(tmp_path: Path, **files: str) -> str:
    made = tmp_path / "m"
    made.mkdir()
    for name, text in files.items():
        (made / name.replace("__", ".")).write_text(text)
    return str(made)


@pytest.mark.parametrize(
    ("files", "told", "hint"),
    [
        ({}, "is empty", "model folder"),
        ({"model_index__json": '{"_class_name": "FluxPipeline"}'}, "diffusers pipeline .FluxPipeline", "model folder"),
        (
            {"adapter_config__json": '{"peft_type": "LORA", "base_model_name_or_path": "a/b"}'},
            "adapters .LORA. of a/b",
            "merge_and_unload",
        ),
        ({"adapter_config__json": "[]"}, "of a model that it does not name", "merge_and_unload"),
        ({"best__pth": "x"}, r"holds weights .best\.pth", "captune convert"),
        ({"pytorch_model__bin": "x"}, r"holds weights .pytorch_model\.bin", "captune convert"),
        ({"q4__gguf": "x"}, r"holds weights .q4\.gguf", "such a file was made of"),
        ({"splits__json": "{}"}, "prepared data", "model folder"),
    ],
)
def test_a_folder_without_a_configuration(tmp_path: Path, files: dict[str, str], told: str, hint: str) -> None:
    with pytest.raises(CaptuneError, match=told) as caught:
        local_folder(folder(tmp_path, **files))
    assert hint in caught.value.hint
    assert "no config.json" in caught.value.message or "diffusers" in caught.value.message


@pytest.mark.parametrize(
    "name", ["x.pt", "x.pth", "x.bin", "x.ckpt", "x.safetensors", "x.gguf", "x.h5", "x.zip", "x.txt"]
)
def test_a_file_is_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CaptuneError, match="a model is a folder"):
        local_folder(str(tmp_path / name))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CaptuneError, match="one file of a model") as caught:
        local_folder(str(tmp_path / name))
    assert f"--model {tmp_path}" in caught.value.hint


def test_models_inside_a_folder_are_listed(tmp_path: Path) -> None:
    (tmp_path / "all" / "a").mkdir(parents=True)
    (tmp_path / "all" / "a" / "config.json").write_text("{}")
    with pytest.raises(CaptuneError, match="no model itself") as caught:
        local_folder(str(tmp_path / "all"))
    assert str(tmp_path / "all" / "a") in caught.value.hint


def test_models_that_are_still_to_be_made_are_no_folders() -> None:
    for name, told in (("new:blip-tiny", "without training"), ("a/vision+b/text", "has not learned to look")):
        with pytest.raises(UsageError, match=told) as caught:
            local_folder(name)
        assert "captune train --model" in caught.value.hint


def test_a_folder_of_nearly_that_name_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "long").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("./runs/lon", str(tmp_path / "runs" / "lnog")):
        with pytest.raises(CaptuneError, match="There is no model folder") as caught:
            local_folder(name)
        assert "Did you mean" in caught.value.hint
        assert "runs/long'?" in caught.value.hint
    assert local_folder("runs/lon") is None  # may be a Hub id: what could not be fetched is told with the folder
    assert load_error("runs/lon@last", None, OSError("no network")).hint.startswith("Did you mean 'runs/long'?")
    assert load_error("org/name", None, OSError("no network")).hint.startswith("With network")


def test_names_that_no_file_system_takes_and_addresses() -> None:
    assert local_folder("x" * 256) is None  # not a folder: the Hub says what it thinks of the name
    for name in ("a\0b", "m/gone.pth", "/" + "x" * 5000):
        with pytest.raises(CaptuneError, match="There is no"):
            local_folder(name)
    with pytest.raises(CaptuneError, match="is an address") as caught:
        local_folder("https://huggingface.co/org/name")
    assert caught.value.hint.endswith("org/name")


SIZES = {"blip": ("tiny", "base"), "blip-2": ("tiny", "tiny-t5"), "clip-gpt2": ("tiny", "small")}


def test_new_names() -> None:
    assert parse_new_name("new:blip-tiny", SIZES) == ("blip", "tiny")
    assert parse_new_name("new:blip-2-tiny-t5", SIZES) == ("blip-2", "tiny-t5")
    for name, told, hint in (
        ("new:clip-gpt2", "names no size", "new:clip-gpt2-tiny, new:clip-gpt2-small"),
        ("new:blip-huge", "no size 'huge' of blip", "new:blip-base"),
        ("new:clip-gpt-tiny", "no new model", "Did you mean 'new:clip-gpt2-tiny'"),
        ("new:BLIP-Tiny", "no new model", "Did you mean 'new:blip-tiny'"),
        ("new:blip2-tiny-t5", "no new model", "Did you mean 'new:blip-2-tiny-t5'"),
        ("new:shout-tiny", "no model family 'shout'", "once that package is installed"),
        ("new:loud-shout-tiny-t5", "no model family 'loud-shout'", "Known: blip, blip-2, clip-gpt2."),
        ("new:shout", "no model family 'shout'", "Known: blip"),
        ("new:", "no new model", "new:blip-tiny"),
    ):
        with pytest.raises(UsageError, match=told) as caught:
            parse_new_name(name, SIZES)
        assert hint in caught.value.hint, name


def answered(status: int, code: str) -> Exception:
    """What the Hub's client raises for an answer, wrapped as transformers does."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import hf_raise_for_status

    # The Hub's client speaks through httpx or its successor.
    httpx = importlib.import_module(next(c for c in HfHubHTTPError.__mro__ if c.__name__ == "HTTPError").__module__)
    request = httpx.Request("GET", "https://huggingface.co/api/models/org/name")
    headers = {"X-Error-Code": code} if code else {}
    try:
        hf_raise_for_status(httpx.Response(status, headers=headers, request=request))
    except HfHubHTTPError as error:
        outer = OSError("There was a specific connection error when trying to load org/name")
        outer.__cause__ = error
        return outer
    raise AssertionError("an answer of this kind is an error")


@pytest.mark.parametrize(
    ("status", "code", "told", "hint"),
    [
        (404, "RepoNotFound", "no model org/nome on the Hugging Face Hub", "Did you mean 'org/name'"),
        (401, "RepoNotFound", "that this user may see", "hf auth login"),
        (403, "GatedRepo", "is gated", "Agree at"),
        (404, "RevisionNotFound", "no such revision", "tree/main"),
        (403, "", "refuses", "token"),
        (429, "", "answers with 429", "later"),
        (503, "", "answers with 503", "later"),
    ],
)
def test_what_the_hub_answers(status: int, code: str, told: str, hint: str) -> None:
    error = load_error("org/nome", None, answered(status, code), ["org/name"])
    assert told in error.message
    assert hint in error.hint


@pytest.mark.parametrize("method", ["gptq", "awq", "hqq", None])
def test_quantized_weights_and_code_of_ones_own(tmp_path: Path, method: str | None) -> None:
    made = Path(folder(tmp_path, config__json=json.dumps({"quantization_config": {"quant_method": method}})))
    error = load_error(str(made), made, ImportError("Loading it requires optimum"))
    assert f"quantized ({method or 'in a way that is not named'})" in error.message
    assert "optimum" in error.message
    error = load_error(str(made), made, ValueError("contains custom code which must be executed"))
    assert "trust_remote_code" in error.message
    error = load_error(str(made), made, AttributeError("'list' object has no attribute 'get'"))
    assert "do not load here: one of its files does not hold what it should" in error.message
    (made / "config.json").write_text("{}")
    error = load_error(str(made), made, AttributeError("'list' object has no attribute 'get'"))
    assert "cannot be loaded: one of its files does not hold what it should" in error.message


@pytest.mark.parametrize("quantization", ["fp8", {"bits": 4}, {"quant_method": "spqr"}])
@pytest.mark.parametrize("error", [RuntimeError("GPU is required"), ValueError("no `quant_method`")])
def test_quantized_weights_that_fail_in_another_way(tmp_path: Path, quantization: object, error: Exception) -> None:
    made = Path(folder(tmp_path, config__json=json.dumps({"quantization_config": quantization})))
    told = load_error(str(made), made, error)
    assert "are quantized (" in told.message
    assert "model that was quantized" in told.hint


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("siglip", "compares"),
        ("gpt2", "sees no images"),
        ("t5", "sees no images"),
        ("whisper", "hears"),
        ("dinov2", "writes no text"),
        ("nix", "does not know."),
    ],
)
def test_models_of_other_kinds_are_told_by_what_they_do(kind: str, told: str) -> None:
    error = unknown_kind("m", kind, ["blip", "git"])
    assert told in error.message
    assert "blip, git" in error.hint


def test_a_tokenizer_that_needs_sentencepiece(tmp_path: Path) -> None:
    missing = ImportError("\nSiglipTokenizer requires the SentencePiece library but it was not found.")
    assert load_error("m", tmp_path, missing).hint == "pip install sentencepiece"
